"""``leakaudit doctor``: planted encoders whose trouble is known must be told in words."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import leakaudit.cli.doctor  # noqa: F401 - the command registers itself
from leakaudit.audit import environment
from leakaudit.audit.doctor import examine
from leakaudit.audit.trials import Trial, auc_of, separation, verdict
from leakaudit.core.errors import InputError
from leakaudit.models.catalogue import LPIPS_TRUNK, at_hand
from leakaudit.models.encoder import Preprocessing, SplitEncoder
from leakaudit.models.faces import Faces
from leakaudit.models.programs import Batch, Program

SIDE, PEOPLE = 8, 10
PLAIN = Preprocessing(SIDE)


def faces(*, signal: int = 0, dark: bool = False) -> Faces:
    """Three pictures of each of ten people, who differ in one channel; another one is noise."""
    generator = torch.Generator().manual_seed(2)
    people = torch.arange(PEOPLE).repeat_interleave(3)
    who = torch.rand(PEOPLE, SIDE, SIDE, generator=generator)
    images = torch.full((3 * PEOPLE, 3, SIDE, SIDE), 0.5)
    images[:, signal] = who[people] * (0.1 if dark else 1.0)
    images[:, 2 - signal] = torch.rand(3 * PEOPLE, SIDE, SIDE, generator=generator)
    return Faces(images, people, tuple(map(str, range(PEOPLE))))


class Reads(nn.Module):
    """Sees one channel only, through ``bounds`` outside of which everything is the same."""

    def __init__(self, channel: int, bounds: tuple[float, float] = (-1e6, 1e6)) -> None:
        super().__init__()
        self.channel, self.bounds = channel, bounds

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.channel].clamp(*self.bounds)


def encoder(network: nn.Module, preprocessing: Preprocessing = PLAIN) -> SplitEncoder:
    return SplitEncoder(network, "last", preprocessing=preprocessing, name="planted")


def test_an_encoder_that_was_trained_on_bgr_is_found_out():
    found = examine(encoder(Reads(2)), faces(signal=0))
    assert found.auc < 0.65
    assert found.verdict.startswith("Channels are probably BGR: people separate better so (AUC 1.0")
    assert (found.pictures, found.people) == (30, 10)
    right = examine(encoder(Reads(2), replace(PLAIN, channels="bgr")), faces(signal=0))
    assert right.auc > 0.99 and "as given (BGR channels, [0, 1])" in right.verdict


def test_an_encoder_that_was_trained_on_another_scale_is_found_out():
    network = Reads(0, (-1.0, -0.8))  # dark pixels on the scale of [-1, 1]
    found = examine(encoder(network), faces(dark=True))
    assert found.verdict.startswith("The scale is probably [-1, 1]: people separate better")
    assert found.auc == 0.5 and found.dead == 1.0
    assert any("100% of the feature's elements never vary" in w for w in found.warnings)
    assert any("gradient to the picture is zero" in w for w in found.warnings)


def test_channels_and_scale_together_are_found_out():
    found = examine(encoder(Reads(2, (-1.0, -0.8))), faces(dark=True))
    assert found.verdict.startswith("Channels are probably BGR and the scale is probably [-1, 1]")


def test_where_nothing_separates_nothing_is_claimed():
    found = examine(encoder(Reads(1)), faces())  # the green channel is the same for everybody
    assert found.verdict.startswith("No preprocessing makes this layer tell people apart")


def test_a_healthy_encoder_has_no_warnings_and_known_numbers():
    found = examine(encoder(Reads(0)), faces())
    assert found.warnings == () and found.dead == 0.0
    norms = faces().images[:, 0].flatten(1).norm(dim=1)
    assert found.norm == pytest.approx(float(norms.mean()), rel=1e-5)
    assert found.gradient.blind == pytest.approx(2 / 3)  # two channels are never read
    expected = (2 * faces().images[:4, 0]).square().mean().div(3).sqrt()
    assert found.gradient.size == pytest.approx(float(expected), rel=1e-5)


def test_an_encoder_without_gradients_is_said_to_have_none():
    program = Program(Reads(0), name="p.onnx", batch=Batch(), differentiable=False)
    found = examine(encoder(program), faces())
    assert found.gradient.size is None
    assert any("only black-box attacks" in warning for warning in found.warnings)


def test_an_encoder_that_mixes_its_batch_is_said_to():
    class Mixes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0] - x[:, 0].mean(0)

    found = examine(encoder(Mixes()), faces())
    assert any("depends on the others in its batch" in warning for warning in found.warnings)


def test_the_first_normalisation_tells_the_scale_that_it_was_trained_on():
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.norm.running_mean.fill_(127.5)
            self.norm.running_var.fill_(255.0**2 / 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x)[:, :1]

    found = examine(encoder(Normed()), faces())
    assert found.auc > 0.99  # cosines don't mind the scale
    told = next(t for t in found.trials if t.words == "RGB channels, [0, 255]")
    assert told.misfit is not None and found.trials[0].misfit is not None
    assert "scale is probably [0, 255]: the network's first normalisation layer" in found.verdict


def trial(**changed) -> Trial:
    return replace(Trial("rgb", "[0, 1]", 0.8, 0.0, 0.0, None), **changed)


def test_a_gain_within_chance_is_not_claimed():
    better = trial(channels="bgr", auc=0.9, gain=0.1, error=0.06)
    assert "as well as any" in verdict((trial(), better))
    assert "BGR" in verdict((trial(), replace(better, error=0.04)))


def test_where_both_orders_of_channels_do_as_well_that_is_said():
    other = trial(channels="bgr", auc=0.79, gain=-0.01, error=0.004)
    assert "which is right can't be told" in verdict((trial(), other))
    assert "can't be told" not in verdict((trial(), replace(other, auc=0.7, gain=-0.1)))


def test_a_small_gain_does_not_outweigh_what_the_network_was_trained_on():
    better = trial(scale="[0, 255]", auc=0.83, gain=0.03, error=0.01, misfit=40.0)
    kept = verdict((trial(misfit=0.2), better))
    assert "as given (RGB channels, [0, 1]) fits" in kept and "misfit 0.20 against 40.00" in kept
    assert "probably" not in kept
    # Where a third one fits best, that is told, and not the one that separates better.
    right = trial(scale="[-1, 1]", auc=0.8, misfit=0.1)
    told = verdict((trial(misfit=9.0), better, right))
    assert told.startswith("The scale is probably [-1, 1]: ")
    assert "though RGB channels, [0, 255] separates these people better" in told
    assert "although separation" not in told
    # One that fits as well is followed.
    fits = replace(better, misfit=0.4)
    assert verdict((trial(misfit=0.2), fits)).startswith("The scale is probably [0, 255]: people")


def test_of_equal_rivals_the_smaller_change_is_told():
    both = trial(channels="bgr", scale="[-1, 1]", auc=0.905, gain=0.105, error=0.01)
    one = trial(channels="bgr", auc=0.9, gain=0.1, error=0.01)
    assert verdict((trial(), both, one)).startswith("Channels are probably BGR: ")


def test_the_area_under_the_curve_is_mann_and_whitneys():
    scores = torch.tensor([3.0, 1.0, 2.0, 1.0])
    positive = torch.tensor([True, True, False, False])
    assert auc_of(scores, positive) == (2 + 0.5) / 4  # 3>2, 3>1, 1<2, 1=1
    assert auc_of(scores, torch.zeros(4, dtype=torch.bool)) == 0.5
    features = torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    auc, left = separation(features, torch.tensor([0, 0, 1, 1]))
    assert auc == 1.0 and left.tolist() == [0.5, 0.5]  # one person alone has no rival


def test_people_with_one_picture_are_not_enough():
    alone = faces().select(torch.arange(0, 30, 3))
    with pytest.raises(InputError, match="0 people have two pictures"):
        examine(encoder(Reads(0)), alone)


# The command


@pytest.fixture
def folder(tmp_path):
    shown = faces()
    for index, (image, person) in enumerate(zip(shown.images, shown.people.tolist(), strict=True)):
        place = tmp_path / "faces" / f"p{person}"
        place.mkdir(parents=True, exist_ok=True)
        array = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(place / f"{index}.png")
    return tmp_path / "faces"


@pytest.fixture
def spec(tmp_path):
    code = "from torch import nn\nclass Red(nn.Module):\n    def forward(self, x):\n"
    (tmp_path / "mine.py").write_text(code + "        return x[:, 2].flatten(1)\n")
    return f"{tmp_path / 'mine.py'}:Red"


@pytest.mark.parametrize(("half", "told"), [(True, "bfloat16"), (False, "float32")])
def test_it_says_in_which_precision_the_machine_trains(leakaudit, monkeypatch, half, told):
    monkeypatch.setattr(environment, "has_half", lambda device: half)
    answer = leakaudit("doctor")
    assert f"trainings in {told}" in " ".join(answer.out.split())


def test_the_machine_is_looked_at_without_an_encoder(leakaudit):
    done = leakaudit("doctor")
    assert done.code == 0
    for name in ("torch", "facenet-pytorch", "timm", "onnxruntime", "processor", "LPIPS trunk"):
        assert any(name in line for line in done.out.splitlines()), name
    told = json.loads(leakaudit("doctor", "--format", "json").out)
    assert told["encoder"] is None
    trunk = next(item for item in told["environment"] if item["name"] == "LPIPS trunk")
    assert trunk["there"] == (at_hand(LPIPS_TRUNK) is not None)
    assert {item["name"] for item in told["environment"]} >= {"leakaudit", "torch", "GPU"}


def test_a_finding_ends_with_zero_and_stands_last(leakaudit, spec, folder):
    asked = ("doctor", "--encoder", spec, "--images", folder, "--input-size", "8")
    done = leakaudit(*asked)
    assert done.code == 0
    assert done.out.splitlines()[-1].startswith("Verdict: Channels are probably BGR")
    assert "30 pictures of 10 people" in done.out and "as given" in done.out
    told = json.loads(leakaudit(*asked, "--channels", "bgr", "--format", "json").out)
    assert told["encoder"]["auc"] > 0.99 and told["encoder"]["feature_shape"] == [64]
    assert "as well as any" in told["encoder"]["verdict"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--encoder", "SPEC"], "needs --encoder and --images"),
        (["--images", "DIR"], "needs --encoder and --images"),
        (["--encoder", "SPEC", "--images", "gone"], "gone"),
        (["--encoder", "SPEC", "--images", "DIR", "--layer", "no"], "Unknown layer 'no'"),
        (["--encoder", "SPEC", "--images", "DIR", "--channels", "rbg"], "order of channels 'rbg'"),
        (["--encoder", "SPEC", "--images", "DIR", "--mean", "1,2"], "Three numbers"),
        (["--encoder", "net.onx", "--images", "DIR"], "doesn't name a network"),
        (["--format", "xml"], "Unknown format"),
    ],
)
def test_wrong_input_ends_with_two(leakaudit, spec, folder, arguments, told):
    words = {"SPEC": spec, "DIR": folder}
    done = leakaudit("doctor", *(words.get(a, a) for a in arguments), "--input-size", "8")
    assert done.code == 2 and told in done.said
