"""``leakaudit prior train`` and a scan's own priors, as a user types them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import leakaudit.cli.prior  # noqa: F401 - the command registers itself
from leakaudit.models.prior_files import load_prior, read_facts
from leakaudit.report.json import read_result

SMALL = ("--size", "32", "--latent", "6", "--width", "8", "--steps", "3", "--batch", "4")
NET = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
class Own(nn.Module):
    latent = 4
    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(4, 3 * 48 * 48)
    def forward(self, z):
        return torch.sigmoid(self.lift(z)).view(-1, 3, 48, 48)
def own():
    torch.manual_seed(0)
    return Own()
def signed():
    net = own()
    return nn.Sequential(net, nn.Tanh())
"""
PRESET = """
[attacks.blackbox-decoder]
training.steps = 4
training.batch = 8
[attacks.whitebox-latent]
samples = 30
search.steps = 2
restarts = 1
[training]
prior.steps = 2
prior.batch = 4
oracle.steps = 3
oracle.batch = 8
"""


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Pictures of patches: 70 public ones, and four of each of six people."""
    root, draw = tmp_path_factory.mktemp("folders"), np.random.default_rng(0)
    (root / "public").mkdir()
    for k in range(70):
        save(root / "public" / f"{k}.png", draw.integers(0, 255, (4, 4, 3)))
    for person in range(6):
        (root / "faces" / f"{person}").mkdir(parents=True)
        patches = draw.integers(10, 245, (4, 4, 3))
        for k in range(4):
            noisy = patches + draw.integers(-9, 9, (4, 4, 3))
            save(root / "faces" / f"{person}" / f"{k}.png", noisy)
    return root


def save(path, pixels):
    picture = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    picture.resize((48, 48), Image.Resampling.NEAREST).save(path)


@pytest.fixture
def train(leakaudit, folders, tmp_path):
    def run(*arguments, out="prior.safetensors"):
        fixed = ("prior", "train", "--public", folders / "public", "--out", tmp_path / out)
        return leakaudit(*fixed, *SMALL, *arguments)

    return run


@pytest.fixture
def own(leakaudit, folders, tmp_path):
    (tmp_path / "work" / "net.py").write_text(NET)
    (tmp_path / "work" / "small.toml").write_text(PRESET)

    def run(*arguments, folder="run"):
        fixed = ("scan", "--encoder", "net.py:make", "--layer", "0", "--preset", "small.toml")
        data = ("--images", folders / "faces", "--public", folders / "public")
        return leakaudit(*fixed, *data, "--run-dir", tmp_path / folder, *arguments)

    return run


def test_a_training_ends_with_a_file_two_sheets_and_figures(train, tmp_path):
    done = train("--architecture", "residual")
    assert done.code == 0, done.err
    assert done.out.startswith("Prior: ") and "diversity" in done.out
    assert "about" in done.said and "3 steps" in done.said
    prior, facts = load_prior(tmp_path / "prior.safetensors")
    assert prior.shape.architecture == facts["architecture"] == "residual"
    assert prior.shape.latent == 6
    assert (facts["public_images"], facts["held_out"], facts["seed"]) == ("54", "16", "0")
    assert json.loads(facts["training"])["steps"] == 3
    assert (facts["align"], facts["crop"]) == ("none", "none")
    assert set(json.loads(facts["quality"])) >= {"gap", "diversity", "error", "mean_error"}
    for path in tmp_path.glob("prior-*.png"):
        with Image.open(path) as sheet:  # 48 samples; 16 held-out faces, each above its own
            assert sheet.size == (12 * 32, 4 * 32)
    made = [*tmp_path.glob("*.png"), *tmp_path.glob("*.safetensors")]
    assert len(made) >= 3
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in made)
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert left == ["prior-held-out.png", "prior-samples.png", "prior.safetensors"]


def test_the_same_seed_gives_the_same_file_and_another_one_another(train, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert train("--seed", seed, out=f"{name}.safetensors").code == 0
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    again = train("--seed", "2", out="a.safetensors")
    assert "a.safetensors will be replaced" in again.said
    assert (tmp_path / "a.safetensors").read_bytes() == c


def test_resuming_a_finished_training_does_nothing_again(train, tmp_path):
    train()
    before = (tmp_path / "prior.safetensors").stat().st_mtime_ns
    done = train("--resume")
    assert done.code == 0 and "finished before" in done.said and done.out.startswith("Prior: ")
    assert (tmp_path / "prior.safetensors").stat().st_mtime_ns == before


def test_an_interrupted_training_is_not_overwritten_by_mistake(train, tmp_path, monkeypatch):
    from leakaudit.models import prior_sessions

    real = prior_sessions.PriorTrainer.advance

    def stopped(self):
        if self.done == 2 and self.training.steps == 3:  # not the one that is timed
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(prior_sessions.PriorTrainer, "advance", stopped)
    done = train("--checkpoint-every", "0")
    assert done.code == 130 and "go on with --resume" in done.said
    monkeypatch.setattr(prior_sessions.PriorTrainer, "advance", real)
    assert (tmp_path / "prior.checkpoint.safetensors").is_file()
    refused = train()
    assert refused.code == 2 and "Go on with it by --resume" in refused.said
    assert train("--resume").code == 0
    assert not (tmp_path / "prior.checkpoint.safetensors").exists()
    once = (tmp_path / "prior.safetensors").read_bytes()
    train(out="once.safetensors")
    assert (tmp_path / "once.safetensors").read_bytes() == once


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--align", "mtcn"), "no way of aligning faces"),
        (("--align", "mtcnn", "--crop", "1,1,20,20"), "both say which part"),
        (("--size", "100"), "96 or 112"),
        (("--size", "16"), "--size"),
        (("--architecture", "shufle"), "Did you mean shuffle"),
        (("--latent", "0"), "--latent"),
        (("--crop", "1,2,3"), "Four whole numbers"),
        (("--steps", "0"), "--steps"),
        (("--batch", "1"), "--batch"),
        (("--out", "prior.pt"), "Say --out prior.safetensors"),
        (("--public", "gone"), "no such folder"),
        (("--limit", "64", "--crop", "0,0,900,900"), "smaller than the crop"),
        (("--sed", "1"), "--seed"),
    ],
)
def test_what_cant_be_trained_ends_with_two(train, tmp_path, arguments, told):
    done = train(*arguments)
    assert done.code == 2
    assert told.lower() in done.said.lower()
    assert not (tmp_path / "prior.safetensors").exists()


def test_pictures_without_a_face_are_left_out_where_faces_are_to_be_aligned(train):
    done = train("--align", "mtcnn")
    assert done.code == 2
    assert "without a face that was found" in done.said


def test_too_few_public_pictures_are_refused(leakaudit, folders, tmp_path):
    done = leakaudit("prior", "train", "--public", folders / "faces", "--out", "p.safetensors")
    assert done.code == 2
    assert "Only 24 public pictures" in done.said


@pytest.mark.slow
def test_a_scan_at_a_side_of_48_trains_and_caches_its_prior(own, tmp_path):
    first = own("--input-size", "48")
    assert first.code == 0, first.err
    assert "2 steps, about" in first.said and "kept in the cache" in first.said
    second = own("--input-size", "48", folder="again")
    assert "taken from the cache" in second.said
    third = own("--input-size", "48", "--no-cache", folder="third")
    assert "cache" not in third.said
    results = [read_result(tmp_path / name / "result.json") for name in ("run", "again", "third")]
    assert len({result.subject["prior_sha256"] for result in results}) == 1
    assert results[0].scores == results[1].scores == results[2].scores
    assert len(results[0].scores) > 20


def test_a_trained_prior_is_taken_by_a_scan_of_its_size_only(own, train, tmp_path):
    train("--architecture", "residual")
    done = own("--input-size", "32", "--prior", tmp_path / "prior.safetensors")
    assert done.code == 0, done.err
    assert "read from prior.safetensors" in done.said
    done = own("--input-size", "48", "--prior", tmp_path / "prior.safetensors", folder="other")
    assert done.code == 2
    assert "Say --input-size 32" in done.said


def test_a_users_own_generator_goes_through_a_whole_scan(own, tmp_path):
    done = own("--input-size", "48", "--prior", "net.py:own", "--attacks", "whitebox-latent")
    assert done.code == 0, done.err
    result = read_result(tmp_path / "run" / "result.json")
    assert any("user's own net.py:own" in remark for remark in result.subject["trained"])
    assert len(result.subject["prior_sha256"]) == 64
    assert "prior.safetensors" not in {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--prior", "net.py:owm"), "Did you mean own"),
        (("--prior", "net.py:signed"), "doesn't say how long its latent is"),
        (("--prior", "net.py:own", "--prior-weights", "gone.safetensors"), "no such weights file"),
        (("--prior-weights", "w.safetensors"), "needs --prior"),
        (("--prior", "gone.safetensors"), "no such weights file"),
        (("--prior", "torchvision:resnet18"), "doesn't name a generator"),
    ],
)
def test_a_generator_that_cant_be_used_ends_with_two(own, arguments, told):
    done = own("--input-size", "48", *arguments)
    assert done.code == 2, done.err
    assert told in done.said


def test_a_side_that_no_network_here_makes_ends_with_two(own):
    done = own("--input-size", "100")
    assert done.code == 2
    assert "96 or 112" in done.said


@pytest.mark.slow
def test_facts_of_a_kept_prior_name_its_training(own, tmp_path):
    own("--input-size", "48")
    facts = read_facts(tmp_path / "run" / "prior.safetensors")
    assert facts["size"] == "48" and facts["public_images"] == "70"
