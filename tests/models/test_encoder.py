"""The encoder under audit: its cut, its derivatives, and every way in which it can't be loaded."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from leakaudit.audit.own import encoder_doubts
from leakaudit.core.errors import UnknownNameError, UsageError, WeightsError
from leakaudit.models.encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    SplitEncoder,
    check_features,
    layer_names,
    load_encoder,
    load_encoders,
    load_module,
)
from leakaudit.models.weights import load_into, save_safetensors, sha256_of, sha256_of_state

SMALL = Preprocessing(16)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.pair = Pair()
        self.never = nn.Identity()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        x = self.act(x - 0.1)
        return self.fc(self.pair(x)[0].mean(dim=(2, 3)))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def tiny(layer: str = "norm", **options: object) -> SplitEncoder:
    settings = {"preprocessing": SMALL, "name": "tiny", **options}
    return SplitEncoder(Tiny(), layer, **settings)  # type: ignore[arg-type]


def wrapped(forward: Callable[[Tensor], object]) -> SplitEncoder:
    network = nn.Module()
    network.forward = forward  # type: ignore[assignment]
    return SplitEncoder(network, "last", preprocessing=SMALL, name="mine")


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pt"
    torch.save(resnet18(weights=None).state_dict(), path)
    return path


def load_resnet(path: Path, layer: str = "layer1", side: int = 32) -> SplitEncoder:
    return load_encoder(
        "torchvision:resnet18", weights=path, layer=layer, preprocessing=Preprocessing(side)
    )


def written(folder: Path, code: str) -> str:
    (folder / "mine.py").write_text("import torch\nfrom torch import nn\n" + code)
    return f"{folder / 'mine.py'}:make"


def load_written(folder: Path, code: str, layer: str = "last") -> SplitEncoder:
    return load_encoder(written(folder, code), weights=None, layer=layer, preprocessing=SMALL)


def jvp(encoder: SplitEncoder, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    result = torch.func.jvp(encoder, (x,), (v,))
    return result[0], result[1]


# The cut


def test_the_feature_is_what_the_layers_by_hand_give(resnet_file: Path, images: Tensor) -> None:
    network = resnet18(weights=None).eval()
    network.load_state_dict(torch.load(resnet_file))
    encoder = load_encoder(
        "torchvision:resnet18",
        weights=resnet_file,
        layer="layer1",
        preprocessing=Preprocessing(16, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    )
    mean, std = (
        torch.tensor(IMAGENET_MEAN)[:, None, None],
        torch.tensor(IMAGENET_STD)[:, None, None],
    )
    x = network.maxpool(network.relu(network.bn1(network.conv1((images - mean) / std))))
    assert torch.allclose(encoder(images), network.layer1(x), atol=1e-6)
    assert encoder.feature_shape == (64, 4, 4)
    assert (encoder.name, encoder.layer) == ("torchvision:resnet18", "layer1")
    assert encoder.weights_sha256 == sha256_of(resnet_file)


def test_last_is_the_output_of_the_network(resnet_file: Path) -> None:
    assert load_resnet(resnet_file, "last").feature_shape == (1000,)


def test_nothing_behind_the_split_is_run() -> None:
    encoder = tiny("conv")
    encoder.network.get_submodule("norm").forward = None  # type: ignore[assignment]
    assert encoder(torch.rand(1, 3, 16, 16)).shape == (1, 4, 16, 16)


def test_the_network_is_left_without_hooks_and_can_be_run_whole(images: Tensor) -> None:
    network = Tiny().eval()
    whole = network(images)
    SplitEncoder(network, "conv", preprocessing=SMALL, name="tiny")(images)
    assert torch.equal(network(images), whole)
    assert not network.conv._forward_hooks


def test_a_network_that_catches_exceptions_is_cut_all_the_same(
    tmp_path: Path, images: Tensor
) -> None:
    code = (
        "class N(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.a = nn.Flatten()\n"
        "    def forward(self, x):\n"
        "        try:\n            return self.a(x) * 0\n"
        "        except Exception:\n            return x\n"
        "make = N\n"
    )
    encoder = load_written(tmp_path, code, layer="a")
    assert torch.equal(encoder(images), images.flatten(1))


def test_the_encoder_is_frozen_and_stays_in_evaluation_mode(images: Tensor) -> None:
    encoder = tiny()
    before = encoder(images)
    nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(encoder(images), before)


def test_gradients_reach_the_pictures_and_the_input_is_untouched(images: Tensor) -> None:
    copied = images.clone().requires_grad_()
    tiny("act")(copied).sum().backward()
    assert copied.grad is not None and copied.grad.abs().sum() > 0
    assert torch.equal(copied.detach(), images)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_gives_features_that_can_be_computed_with(
    half: torch.dtype, images: Tensor
) -> None:
    network = copy.deepcopy(tiny("act").network).to(half)
    same = Preprocessing(input_size=tiny("act").preprocessing.input_size)
    split = SplitEncoder(network, "act", preprocessing=same, name="halved")
    assert split(images).dtype == torch.float32
    assert any("audited as float32" in note for note in split.notes)


def test_passes_are_counted_in_pictures(images: Tensor) -> None:
    encoder = tiny()
    assert encoder.counter.passes == 0
    encoder(images)
    encoder(images[:2])
    assert encoder.counter.passes == 5
    torch.func.vjp(encoder, images)
    assert encoder.counter.passes == 8


def test_a_copy_counts_for_itself(images: Tensor) -> None:
    encoder = tiny()
    other = copy.deepcopy(encoder)
    assert torch.equal(other(images), encoder(images))
    assert (encoder.counter.passes, other.counter.passes) == (3, 3)


def test_the_hash_without_a_file_is_that_of_the_tensors() -> None:
    first, second = tiny(), tiny()
    assert first.weights_sha256 == second.weights_sha256 and len(first.weights_sha256) == 64


# Derivatives


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # torch's own, at its first jvp
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("layer", ["conv1", "layer1", "layer1.0.bn2", "last"])
def test_jvp_and_vjp_agree_with_finite_differences(resnet_file: Path, layer: str) -> None:
    encoder = load_resnet(resnet_file, layer).double()
    draw = torch.Generator().manual_seed(0)
    x, v = (torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=draw) for _ in range(2))
    step = 1e-6
    difference = (encoder(x + step * v) - encoder(x - step * v)) / (2 * step)
    feature, forward = jvp(encoder, x, v)
    assert torch.equal(feature, encoder(x))
    assert torch.allclose(forward, difference, rtol=1e-5, atol=1e-6 * float(forward.abs().max()))
    pull = torch.func.vjp(encoder, x)[1]
    u = torch.rand(feature.shape, dtype=torch.float64, generator=draw)
    assert float((pull(u)[0] * v).sum()) == pytest.approx(float((u * difference).sum()), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_derivatives_pass_through_resizing(images: Tensor) -> None:
    encoder = tiny("conv", preprocessing=Preprocessing((8, 12), channels="bgr")).double()
    x, v = images.double(), torch.ones_like(images, dtype=torch.float64)
    _, forward = jvp(encoder, x, v)
    assert torch.allclose(forward, encoder(x + v) - encoder(x))  # all of it is affine
    pull = torch.func.vjp(encoder, x)[1]
    u = torch.rand_like(forward)
    assert float((pull(u)[0] * v).sum()) == pytest.approx(float((u * forward).sum()))


# Preprocessing


def test_mean_and_std_are_in_the_order_of_the_channels(images: Tensor) -> None:
    preprocessing = Preprocessing(16, mean=(0.1, 0.2, 0.3), std=(1, 2, 4), channels="bgr")
    encoder = SplitEncoder(nn.Identity(), "last", preprocessing=preprocessing, name="identity")
    blue, green, red = encoder(images).unbind(dim=1)
    assert torch.allclose(red, (images[:, 0] - 0.3) / 4)
    assert torch.allclose(green, (images[:, 1] - 0.2) / 2)
    assert torch.allclose(blue, images[:, 2] - 0.1)


def test_other_sizes_are_cut_to_shape_about_the_centre_and_resized() -> None:
    encoder = SplitEncoder(
        nn.Identity(), "last", preprocessing=Preprocessing((8, 4)), name="identity"
    )
    images = torch.zeros(1, 3, 16, 16)
    images[..., 4:12] = 1
    assert encoder.feature_shape == (3, 8, 4)
    assert torch.allclose(encoder(images), torch.ones(1, 3, 8, 4))


@pytest.mark.parametrize(
    "settings",
    [{"input_size": 0}, {"input_size": 8, "std": (1, 0, 1)}, {"input_size": 8, "mean": (0.5,)},
     {"input_size": 8, "channels": "rbg"}],
)  # fmt: skip
def test_impossible_preprocessing_is_a_usage_error(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        Preprocessing(**settings)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


# Layers


def test_layer_names_are_all_paths() -> None:
    assert layer_names(Tiny()) == ("conv", "norm", "act", "pair", "never", "fc")


def test_an_unknown_layer_shows_the_nearest_names(resnet_file: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"'layr1'.*Did you mean layer1") as caught:
        load_resnet(resnet_file, "layr1")
    assert caught.value.exit_code == 2


def test_a_layer_like_no_other_shows_the_outermost_names(resnet_file: Path) -> None:
    with pytest.raises(UnknownNameError, match="Known: avgpool, bn1, conv1, fc, last, layer1"):
        load_resnet(resnet_file, "zzzzzz")


def test_a_layer_that_is_not_run_is_said() -> None:
    with pytest.raises(UsageError, match="'never' is there but is not run"):
        tiny("never")


def test_a_layer_that_gives_a_tuple_is_said() -> None:
    with pytest.raises(UsageError, match="'pair' gives a tuple"):
        tiny("pair")


def test_a_network_that_gives_a_dictionary_is_said() -> None:
    with pytest.raises(UsageError, match="gives a dict"):
        wrapped(lambda x: {"logits": x})


@pytest.mark.parametrize(
    "forward", [lambda x: x.sum(), lambda x: x.mean(0), lambda x: x.long(), lambda x: x[:, 0, 0, 0]]
)
def test_an_output_without_a_row_for_each_picture_is_said(
    forward: Callable[[Tensor], Tensor],
) -> None:
    with pytest.raises(UsageError, match="one row of floating numbers"):
        wrapped(forward)


def test_a_layer_that_runs_twice_is_noted() -> None:
    assert "runs 2 times" in tiny("act").notes[0]
    assert tiny("norm").notes == ()


# Features


def test_features_that_are_not_finite_name_the_layer(images: Tensor) -> None:
    encoder = tiny()
    encoder.network.get_parameter("conv.weight").data[0] = float("nan")
    with pytest.raises(UsageError, match=r"layer 'norm' of 3 of 3 pictures hold NaN") as caught:
        check_features(encoder, images)
    assert caught.value.exit_code == 2


def test_sound_features_have_no_notes(images: Tensor) -> None:
    encoder = tiny()
    encoder.network.get_buffer("norm.running_mean").fill_(0.1)
    assert check_features(encoder, images) == ()


def test_features_that_depend_on_the_batch_are_noted(images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    encoder = SplitEncoder(network, "last", preprocessing=SMALL, name="mine")
    (note,) = check_features(encoder, images)
    assert "depends on the others in its batch" in note


def test_a_network_that_has_seen_no_picture_is_noted(images: Tensor) -> None:
    norm = nn.BatchNorm2d(4)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), norm).eval()
    encoder = SplitEncoder(network, "last", preprocessing=SMALL, name="mine")
    (note,) = check_features(encoder, images)
    assert "of a new network" in note
    norm.running_mean = torch.full((4,), 0.1)
    assert check_features(encoder, images) == ()
    assert encoder_doubts((note,), from_file=True) == []  # folded into the convolutions, say
    (doubt,) = encoder_doubts((note, "Something else"), from_file=False)
    assert (doubt.id, doubt.severity, doubt.why) == ("encoder-not-as-deployed", "serious", note)


def test_a_random_encoder_is_noted(images: Tensor) -> None:
    (note,) = check_features(wrapped(lambda x: x + torch.randn_like(x)), images)
    assert "random" in note


def test_a_constant_encoder_is_noted(images: Tensor) -> None:
    (note,) = check_features(wrapped(torch.ones_like), images)
    assert "same feature for every picture" in note


# Weights


def test_torchvision_without_weights_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"random ones are never audited.*--weights FILE"):
        load_encoder("torchvision:resnet18", weights=None, layer="conv1", preprocessing=SMALL)


def test_an_unknown_torchvision_network_shows_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="resnet18"):
        load_encoder("torchvision:resnet81", weights=None, layer="conv1", preprocessing=SMALL)


def test_weights_of_another_network_are_refused(resnet_file: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing in the file.*resnet18.pt for torchvision"):
        load_encoder(
            "torchvision:resnet34", weights=resnet_file, layer="layer1", preprocessing=SMALL
        )


def test_what_lies_behind_the_split_may_differ_and_is_said(
    resnet_file: Path, tmp_path: Path, images: Tensor
) -> None:
    state = torch.load(resnet_file)
    state["fc.weight"], state["fc.bias"] = torch.zeros(40, 512), torch.zeros(40)
    kept = {name: t for name, t in state.items() if not name.startswith(("layer3", "layer4"))}
    save_safetensors(tmp_path / "w.safetensors", kept)
    encoder = load_resnet(tmp_path / "w.safetensors", side=16)
    assert "not loaded, because the audit never runs it" in encoder.notes[0]
    assert torch.equal(encoder(images), load_resnet(resnet_file, side=16)(images))
    with pytest.raises(WeightsError, match=r"fc.weight is 40x512"):
        load_resnet(tmp_path / "w.safetensors", "last")


def test_one_file_gives_one_network_whatever_it_lacks_behind_the_split(
    resnet_file: Path, tmp_path: Path
) -> None:
    """A deployment's key follows from the encoder, so that a random rest would be another one."""
    kept = {n: t for n, t in torch.load(resnet_file).items() if not n.startswith(("layer4", "fc"))}
    save_safetensors(tmp_path / "w.safetensors", kept)
    prints = set()
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            prints.add(sha256_of_state(load_resnet(tmp_path / "w.safetensors", side=16)))
    assert len(prints) == 1


def test_what_a_file_lacks_stays_where_it_is_tied_to_what_it_has() -> None:
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    net["unused"].weight = net["used"].weight
    load_into(
        net, {"used.weight": torch.ones(2, 2), "used.bias": torch.ones(2)}, where="w",
        ignore_prefixes=("unused",),
    )  # fmt: skip
    assert torch.equal(net["used"].weight, torch.ones(2, 2))
    assert torch.equal(net["unused"].bias, torch.zeros(2))


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_mean", "layer1.1.conv2.weight"])
def test_what_lies_before_the_split_may_never_differ(
    resnet_file: Path, tmp_path: Path, name: str
) -> None:
    state = torch.load(resnet_file)
    state[name] = torch.zeros(7)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=f"of another shape: {name}"):
        load_resnet(tmp_path / "w.pt")
    del state[name]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=f"missing in the file: {name}"):
        load_resnet(tmp_path / "w.pt")


def test_an_extra_tensor_before_the_split_is_refused(resnet_file: Path, tmp_path: Path) -> None:
    state = torch.load(resnet_file) | {"layer1.0.se.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"unknown to the network: layer1.0.se.weight"):
        load_resnet(tmp_path / "w.pt")


def test_weights_that_are_used_without_calling_their_module_are_still_needed(
    tmp_path: Path,
) -> None:
    code = (
        "class N(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.token = nn.Linear(3, 3)\n        self.out = nn.Identity()\n"
        "        self.head = nn.Linear(3, 3)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.out(x.mean((2, 3)) @ self.token.weight.data.T))\n"
        "make = N\n"
    )
    spec = written(tmp_path, code)
    torch.save({"token.bias": torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"1 missing in the file: token\.weight"):
        load_encoder(spec, weights=tmp_path / "w.pt", layer="out", preprocessing=SMALL)
    torch.save({"token.weight": torch.eye(3)}, tmp_path / "w.pt")
    encoder = load_encoder(spec, weights=tmp_path / "w.pt", layer="out", preprocessing=SMALL)
    assert "3 not loaded" in encoder.notes[0] and "head.weight" in encoder.notes[0]


# The user's own code


def test_a_factory_in_a_file_is_loaded_with_its_neighbours(tmp_path: Path, images: Tensor) -> None:
    (tmp_path / "sibling_of_mine.py").write_text("width = 5\n")
    code = (
        "from dataclasses import dataclass\nfrom sibling_of_mine import width\n"
        "@dataclass\nclass Settings:\n    width: int = width\n"
        "def make():\n    return nn.Conv2d(3, Settings().width, 1)\n"
    )
    encoder = load_written(tmp_path, code)
    assert encoder(images).shape == (3, 5, 16, 16)
    assert encoder.name == "mine.py:make"
    assert "factory's own weights" in encoder.notes[0]


def test_a_factory_in_a_package_is_loaded(images: Tensor) -> None:
    encoder = load_encoder("torch.nn:Identity", weights=None, layer="last", preprocessing=SMALL)
    assert torch.equal(encoder(images), images)


def test_a_module_instead_of_a_factory_is_understood(tmp_path: Path, images: Tensor) -> None:
    assert load_written(tmp_path, "make = nn.Flatten()\n")(images).shape == (3, 768)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def make():\n    raise ValueError('no\\nway')\n", "ValueError: no way (mine.py, line 4)"),
        ("def make():\n    nn.Linear('a', 1)\n", "(mine.py, line 4)"),
        ("def make(width):\n    pass\n", "The factory 'make' raised TypeError"),
        ("import no_such_package\n", "raised ModuleNotFoundError"),
        ("def make(:\n    pass\n", "raised SyntaxError"),
        ("raise SystemExit(1)\n", "mine.py raised SystemExit: 1 (mine.py, line 3)"),
        ("def make():\n    return 3\n", "gave a int, not a torch.nn.Module"),
        ("make = 3\n", "'make' is a int, not a factory"),
        ("def mak():\n    pass\n", "Unknown factory 'make'"),
        ("class make(nn.Module):\n    def forward(self, x):\n        return x @ x[0, 0, :2]\n",
         "mine.py:make on pictures of 16 x 16 raised RuntimeError"),
    ],
)  # fmt: skip
def test_failures_in_the_users_code_are_told_in_one_sentence_with_the_line(
    tmp_path: Path, code: str, told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load_written(tmp_path, code)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value) and caught.value.exit_code == 2


def test_a_package_that_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match=r"Importing no.such raised ModuleNotFoundError.*'no'\)?"):
        load_encoder("no.such:make", weights=None, layer="last", preprocessing=SMALL)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such Python file"):
        load_encoder(f"{tmp_path}/x.py:make", weights=None, layer="last", preprocessing=SMALL)


@pytest.mark.parametrize(
    "spec",
    ["net.pt", "net.pth", "resnet18", "mine.py", "", ":make", "mine.py:", "a:b c"],
)
def test_a_form_that_is_not_read_says_which_are(spec: str) -> None:
    with pytest.raises(UsageError, match=r"torchvision:NAME, timm:NAME, .*FILE.onnx"):
        load_encoder(spec, weights=None, layer="last", preprocessing=SMALL)


def test_running_out_of_memory_is_not_blamed_on_the_users_code() -> None:
    def forward(x: Tensor) -> Tensor:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(torch.cuda.OutOfMemoryError):
        wrapped(forward)


# Oracles and heads


def test_a_head_is_loaded_strictly_and_frozen(tmp_path: Path) -> None:
    spec = written(tmp_path, "def make():\n    return nn.Linear(3, 2)\n")
    torch.save({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "w.pt")
    head = load_module(spec, tmp_path / "w.pt")
    assert head(torch.ones(1, 3)).tolist() == [[3.0, 3.0]]
    assert not head.training and not any(p.requires_grad for p in head.parameters())
    torch.save({"weight": torch.ones(2, 3)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="missing in the file: bias"):
        load_module(spec, tmp_path / "w.pt")


# Several layers of one network

RANDOM = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.two = nn.Conv2d(4, 4, 3)
        self.head = nn.Conv2d(4, 9, 12)

    def forward(self, x):
        return self.head(self.two(self.one(x)))

def make():
    return Net()
"""


def test_layers_share_one_network_so_that_random_weights_are_the_same(
    tmp_path: Path, images: Tensor
) -> None:
    one, two = load_encoders(
        written(tmp_path, RANDOM), weights=None, layers=("one", "two"), preprocessing=SMALL
    )
    assert torch.equal(one.network.two(one(images)), two(images))
    assert one.weights_sha256 == two.weights_sha256
    macs = [27 * 4 * 14 * 14, 36 * 4 * 12 * 12, 4 * 9 * 12 * 12]
    assert one.depth == pytest.approx(macs[0] / sum(macs))
    assert two.depth == pytest.approx((macs[0] + macs[1]) / sum(macs))


def test_weights_must_reach_the_deepest_of_the_layers(tmp_path: Path, images: Tensor) -> None:
    spec = written(tmp_path, RANDOM)
    whole = load_encoder(spec, weights=None, layer="two", preprocessing=SMALL)
    state = whole.network.state_dict()
    torch.save({k: v for k, v in state.items() if k.startswith("one")}, tmp_path / "one.pt")
    torch.save({k: v for k, v in state.items() if "head" not in k}, tmp_path / "two.pt")
    for order in (("one", "two"), ("two", "one")):
        with pytest.raises(WeightsError, match=r"two\.weight"):
            load_encoders(
                spec, weights=tmp_path / "one.pt", layers=order, preprocessing=SMALL
            )  # fmt: skip
        found = load_encoders(
            spec, weights=tmp_path / "two.pt", layers=order, preprocessing=SMALL
        )  # fmt: skip
        deep = next(encoder for encoder in found if encoder.layer == "two")
        assert torch.equal(deep(images), whole(images))


def test_a_network_that_fails_behind_the_split_has_no_known_depth(tmp_path: Path) -> None:
    code = RANDOM.replace("self.one(x)))", "self.one(x))).reshape(7)")
    (encoder,) = load_encoders(
        written(tmp_path, code), weights=None, layers=("one",), preprocessing=SMALL
    )
    assert encoder.depth is None
    assert encoder.feature_shape == (4, 14, 14)


def test_a_single_encoder_is_loaded_without_the_compiler(tmp_path: Path) -> None:
    """What counts multiply-adds imports it, which takes each process of an export two seconds."""
    same = RANDOM.replace("return Net()", "torch.manual_seed(3)\n    return Net()")
    code = (
        "import sys\n"
        "from leakaudit.models.encoder import load_encoder\n"
        "from leakaudit.models.preprocessing import Preprocessing\n"
        f"load_encoder({written(tmp_path, same)!r}, weights=None, layer='one',\n"
        "    preprocessing=Preprocessing(16))\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
