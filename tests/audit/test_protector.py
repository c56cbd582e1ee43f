"""Protection for programs: a class in front of one's own call, and a callable for data engines."""

import pickle
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import leakaudit
from audit.edges import QUICK, Fragile, Small, pictures, small_prior, write_networks
from leakaudit import Crafter, Protector
from leakaudit.core.errors import InputError, RunError, UsageError
from leakaudit.core.keys import read_or_make_key
from leakaudit.models.pictures import UnusableError

ROOT = Path(__file__).resolve().parents[2]
FEW = {
    "samples": 40,
    "start_steps": 2,
    "outer_steps": 3,
    "search.steps": 4,
    "block": 4,
    "worth": 1.0,
}


@pytest.fixture(scope="module")
def crafter() -> Crafter:
    return Crafter(Small(), small_prior(), beta=2, seed=1, **FEW)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit; a row that couldn't be protected with this key is NaN in both."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def test_pictures_are_protected_in_every_form_alike(crafter):
    images = pictures(3)
    made = crafter.protect_images(images)
    assert made.shape == (3, 8, 8, 8)
    assert made.dtype == torch.float32
    assert torch.equal(crafter.protect_images(as_bytes(images)), made)
    assert torch.equal(crafter.protect_images((images * 255).round().to(torch.uint8)), made)


def test_one_picture_alone_is_protected_as_among_others(crafter):
    images = pictures(6)
    among = crafter.try_images(images).features
    assert torch.equal(crafter.protect_images(images[2:3]), among[2:3])


def test_the_users_encoder_is_left_as_it_was():
    encoder = Small().train()
    Crafter(encoder, small_prior(), beta=2, seed=1, **FEW)
    assert encoder.training
    assert all(p.requires_grad for p in encoder.parameters())


def test_a_fresh_object_draws_a_fresh_key():
    images = pictures(4)
    a, b = (Crafter(Small(), small_prior(), beta=2, **FEW) for _ in range(2))
    assert same(a.try_images(images).features, a.try_images(images).features)
    assert not same(a.try_images(images).features, b.try_images(images).features)


def test_a_key_replays_in_another_object(tmp_path):
    images = pictures(2)
    key, _ = read_or_make_key(tmp_path / "k")
    by_file = Crafter(Small(), small_prior(), beta=2, key=tmp_path / "k", **FEW)
    by_bytes = Crafter(Small(), small_prior(), beta=2, key=key, **FEW)
    first, second = by_file.try_images(images), by_bytes.try_images(images)
    assert same(first.features, second.features)


def test_a_generator_of_ones_own_is_a_prior():
    prior = small_prior()
    plain = nn.Sequential(prior.generator)
    made = Crafter(Small(), plain, beta=2, latent=8, seed=1, **FEW)
    assert made.try_images(pictures(2)).features.shape == (2, 8, 8, 8)
    plain.latent = 8  # as `--prior file.py:factory` reads it
    again = Crafter(Small(), plain, beta=2, seed=1, **FEW)
    assert same(again.try_images(pictures(2)).features, made.try_images(pictures(2)).features)


def test_pictures_that_rounding_left_a_little_too_bright_are_taken(crafter):
    bright = pictures(1)
    bright[0, 0, 0, 0] = 1.0
    expected = crafter.try_images(bright).features
    bright[0, 0, 0, 0] = 1 + 1e-6
    assert same(crafter.try_images(bright).features, expected)
    with pytest.raises(InputError, match=r"and 1\.003"):
        crafter.try_images(bright * 1.003)


def test_features_that_are_no_tensor_are_said(crafter):
    with pytest.raises(InputError, match="not a ndarray"):
        crafter.protect_features(np.zeros((1, 8, 8, 8), np.float32))


def test_the_file_of_a_prior_is_a_prior(tmp_path):
    _, file = write_networks(tmp_path)
    images = pictures(2)
    by_file = Crafter(Small(), file, beta=2, seed=1, **FEW).try_images(images)
    by_object = Crafter(Small(), small_prior(), beta=2, seed=1, **FEW).try_images(images)
    assert torch.allclose(by_file.features, by_object.features, atol=0.05, equal_nan=True)


def test_a_face_that_cannot_be_protected_gives_nothing():
    fragile = Crafter(Fragile(), small_prior(), beta=2, seed=1, **FEW)
    images = pictures(3)
    images[1, :, 0, 0] = 1.0
    with pytest.raises(RunError, match="row 1"):
        fragile.protect_images(images)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.zeros(3, 32, 32), "no pictures"),
        (torch.zeros(1, 1, 32, 32), "no pictures"),
        (np.zeros((1, 32, 32, 3)), "no pictures"),
        ("x.png", "a str"),
        (torch.full((1, 3, 32, 32), 2.0), "between"),
        (torch.full((1, 3, 32, 32), float("nan")), "NaN"),
        (torch.zeros(0, 3, 32, 32), "no pictures to protect"),
        (torch.zeros(1, 3, 16, 16), "prior"),
    ],
)
def test_what_is_no_picture_is_said(crafter, images, told):
    with pytest.raises(UsageError, match=told):
        crafter.protect_images(images)


def test_public_pictures_may_be_bytes(crafter):
    images = as_bytes(pictures(2))
    more = {"seed": 1, "samples": 40, "start_steps": 1, "outer_steps": 1, "worth": 1.0}
    one, two = (
        Crafter(Small(), small_prior(), public=public, **more).protect_images(images)
        for public in (as_bytes(pictures(8)), pictures(8))
    )
    assert same(one, two)


def test_faces_of_another_scale_are_refused_though_the_encoder_takes_them():
    pooling = nn.Sequential(Small(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    guard = Crafter(pooling, small_prior(), samples=40, start_steps=1, outer_steps=1, worth=1.0)
    with pytest.raises(UsageError, match="48 x 64, and the prior's faces 32 x 32"):
        guard.protect_images(torch.rand(1, 3, 64, 48))


class Giving(nn.Module):
    """An encoder whose answer is in some other form."""

    def __init__(self, form: type) -> None:
        super().__init__()
        self.net, self.form = Small(), form

    def forward(self, images: torch.Tensor) -> object:
        feature = self.net(images)
        if self.form is torch.Tensor:
            return feature[0]
        if self.form is float:
            return feature.sum()
        if self.form is set and len(images) == 3:
            raise RuntimeError("the batch is 1 or 2")
        if self.form is set:
            return feature
        return {"feature": feature} if self.form is dict else (feature, 1)


class Bound(nn.Module):
    """What can't be copied, as a network with a tensor that was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Small()
        self.computed = next(self.net.parameters()) * 2


def test_a_number_of_another_kind_is_a_number():
    settings = {**FEW, "block": np.int64(4)}
    one, two = (
        Crafter(Small(), small_prior(), beta=2, seed=seed, **settings) for seed in (3, np.int64(3))
    )
    assert same(one.try_images(pictures(2)).features, two.try_images(pictures(2)).features)


def test_a_network_on_another_device_is_moved():
    """As one on a GPU: it takes pictures of the CPU only once it was moved there."""

    class Elsewhere(Small):
        here = False

        def to(self, *where, **more):
            self.here = True
            return super().to(*where, **more)

        def forward(self, x):
            assert self.here
            return super().forward(x)

    made = Crafter(Elsewhere(), small_prior(), beta=2, seed=1, **FEW)
    assert made.try_images(pictures(2)).features.shape == (2, 8, 8, 8)


def test_a_program_of_torch_is_an_encoder_too():
    traced = torch.jit.trace(Small().eval(), pictures(2))
    made = Crafter(traced, small_prior(), beta=2, seed=1, **FEW).try_images(pictures(3))
    assert made.features.shape == (3, 8, 8, 8)
    assert not made.faults


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"encoder": "resnet"}, "not a torch.nn.Module"),
        ({"prior": 3}, "not a network"),
        ({"prior": nn.Identity()}, "latent="),
        ({"prior": nn.Identity(), "latent": 4}, "not a picture"),
        ({"key": b"short"}, "32 bytes"),
        ({"key": b"0" * 32, "seed": 1}, "not both"),
        ({"bta": 3}, "Did you mean beta"),
        ({"beta": -1}, "beta must be 0"),
        ({"block": 0}, "no picture"),
        ({"public": torch.zeros(0, 3, 32, 32)}, "public pictures are 0"),
        ({"public": [1, 2]}, "a list"),
        ({"pool": 64}, "pool=64 is larger"),
        ({"block": "a"}, "block is 'a', not a whole number"),
        ({"seed": "x"}, "seed is 'x', not a whole number"),
        ({"public": torch.rand(4, 3, 16, 32)}, "public pictures are 32 x 16, .* faces 32 x 32"),
        ({"encoder": Small().half()}, r"can't take pictures .*float32.*encoder\.float\(\)"),
        ({"encoder": nn.Linear(7, 2)}, "can't take pictures"),
        ({"encoder": Giving(torch.Tensor)}, r"shape \(8, 8, 8\) for 1 pictures"),
        ({"encoder": Giving(float)}, r"shape \(\) for 1 pictures"),
        ({"encoder": Giving(set)}, r"pictures \(3, 3, 32, 32\).*takes any number"),
        ({"encoder": Giving(tuple)}, r"gives a tuple, not a tensor.*returns the feature alone"),
        ({"encoder": Giving(dict)}, "gives a dict"),
        ({"encoder": Bound()}, "This Bound can't be copied"),
    ],
)
def test_what_cannot_be_used_is_said(given, told):
    rest = {k: v for k, v in given.items() if k not in ("encoder", "prior")}
    with pytest.raises(UsageError, match=told):
        Crafter(given.get("encoder", Small()), given.get("prior", small_prior()), **rest)


# -- the callable --------------------------------------------------------------------------------


@pytest.fixture
def protector(tmp_path) -> Protector:
    encoder, prior = write_networks(tmp_path)
    read_or_make_key(tmp_path / "k")
    return Protector(
        encoder=encoder, layer="last", prior=prior, key=str(tmp_path / "k"), size=32, block=4,
        defence=f"{QUICK},beta=2",
    )  # fmt: skip


def test_a_callable_travels_to_a_worker_and_releases_the_same_bits(protector):
    batch = as_bytes(pictures(5))
    made = protector(batch)
    assert made.shape == (5, 8, 8, 8)
    assert made.dtype == np.float32
    travelled = pickle.loads(pickle.dumps(protector))
    assert len(pickle.dumps(protector)) < 4000  # no network travels
    assert np.array_equal(travelled(batch[2:4]), made[2:4], equal_nan=True)


def test_a_mapping_loses_its_pictures_and_gains_features(protector):
    batch = {"id": np.arange(2), "image": as_bytes(pictures(2))}
    made = protector(batch)
    assert set(made) == {"id", "feature"}
    assert np.array_equal(made["feature"], protector(batch["image"]), equal_nan=True)


def test_pictures_of_other_sizes_are_cut_and_bad_ones_are_nan(protector):
    mixed = np.empty(3, dtype=object)
    mixed[0] = as_bytes(pictures(1))[0]
    mixed[1] = np.zeros((40, 60, 3), np.uint8)
    mixed[2] = np.zeros((4, 4, 3), np.uint8)
    made = protector(mixed)
    assert np.isnan(made[2]).all()
    assert np.array_equal(made[0], protector(as_bytes(pictures(1)))[0], equal_nan=True)


def test_a_callable_cuts_pictures_as_its_recipe_says(protector, monkeypatch):
    """The same releases as from files read with this crop or alignment."""
    large = np.zeros((1, 60, 90, 3), np.uint8)
    large[0, 10:42, 20:52] = as_bytes(pictures(1))[0]
    expected = protector(as_bytes(pictures(1)))
    cut = Protector(**{**asdict(protector.recipe), "crop": "20,10,52,42"})
    assert np.array_equal(cut(large), expected)
    assert not np.array_equal(protector(large), expected)

    class Finder:
        def cut(self, picture, size):
            if np.asarray(picture).max() == 0:
                raise UnusableError("without a face that was found")
            return picture.crop((20, 10, 52, 42)).resize((size, size)), 0.0

    monkeypatch.setattr("leakaudit.audit.protector.aligner_of", lambda text: text and Finder())
    aligned = Protector(**{**asdict(protector.recipe), "align": "mtcnn"})
    made = pickle.loads(pickle.dumps(aligned))(np.concatenate([large, np.zeros_like(large)]))
    assert np.array_equal(made[:1], expected)
    assert np.isnan(made[1]).all()


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((2, 32, 32, 3)),
        np.zeros((2, 3, 32, 32)),
        as_bytes(pictures(1))[0],
        np.zeros((3, 3, 32, 32), np.uint8),
    ],
)
def test_a_batch_of_another_form_is_no_row_of_nan(protector, batch):
    with pytest.raises(InputError, match="No row of the batch is a picture"):
        protector(batch)


def test_wrong_calls_are_said(protector):
    with pytest.raises(InputError, match="no column 'image'"):
        protector({"picture": np.zeros((1, 32, 32, 3), np.uint8)})
    with pytest.raises(UsageError, match="Protector"):
        Protector(encoder="x.py:make", layr="last")
    with pytest.raises(UsageError, match="key or from a seed"):
        Protector(encoder="x.py:make", layer="last", prior="p")


# -- what the documents show ---------------------------------------------------------------------


def blocks(file: str, word: str) -> list[str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    return [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in code]


@pytest.mark.parametrize(
    ("file", "word"),
    [("README.md", "protect_images"), ("docs/protect.md", "Protector(")],
)
def test_the_example_runs(file, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_networks(tmp_path)
    (code,) = blocks(file, word)
    space = {"encoder": Small(), "images": pictures(2), "send": lambda features: features}
    exec(compile(code, file, "exec"), space)
    assert space["features"].shape == (2, 8, 8, 8)


def test_the_public_names_need_no_torch():
    import subprocess
    import sys

    code = "import sys, leakaudit; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert leakaudit.Crafter is Crafter
