"""Heads that utility is measured on: checked for shape, order and worth before they count."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from leakaudit.audit.heads import check_head_options, given_head
from leakaudit.core.errors import LeakauditError, UsageError, WeightsError
from leakaudit.core.rng import Rng
from leakaudit.models.encoder import Preprocessing, SplitEncoder
from leakaudit.models.faces import Faces
from leakaudit.models.weights import save_safetensors

IMAGES = torch.rand(24, 3, 16, 16, generator=Rng(0).torch())
HEAD = """
import torch
from torch import nn

class Head(nn.Module):
    def __init__(self, wide={wide}):
        super().__init__()
        self.last = nn.Linear(6, wide)
    def forward(self, feature):
        return self.last(feature.mean((2, 3)))

class Several(Head):
    def forward(self, feature):
        return [super().forward(feature)]

class Nan(Head):
    def forward(self, feature):
        return super().forward(feature) * float("nan")

class Wrong(Head):
    def forward(self, feature):
        return self.last(feature)
"""


class Net(nn.Module):
    """Two logits: redness and brightness, exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)
        self.last = nn.Linear(6, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(6, 3)[:, :, None, None])
            self.conv.bias.zero_()
            self.last.weight.copy_(torch.tensor([[9.0, -9, 0, 0, 0, 0], [3, 3, 3, 0, 0, 0]]))
            self.last.bias.copy_(torch.tensor([0.0, -4.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.conv(x).mean((2, 3)))


def encoder() -> SplitEncoder:
    return SplitEncoder(Net(), "conv", preprocessing=Preprocessing(16), name="net")


def faces(*names: str, swapped: bool = False) -> Faces:
    logits = Net()(IMAGES).detach()
    truth = (logits > logits.median(0).values).float()
    truth = truth.flip(1) if swapped else truth
    truth = truth[:, [0] * len(names)] if len(names) != 2 else truth
    return Faces(IMAGES, torch.arange(24) // 2, tuple("abcdefghijkl"), truth, names)


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(HEAD.replace("{wide}", "2"), encoding="utf-8")
    return str(path)


def test_the_networks_own_rest_is_the_head() -> None:
    split = encoder()
    head = given_head("cloud", None, split, faces("red", "bright"))
    assert torch.allclose(head.module(split(IMAGES)), Net()(IMAGES), atol=1e-5)
    assert head.name == "the network's own rest behind 'conv'" and head.doubts == ()


def test_a_users_head_with_its_weights_is_the_head(spec: str, tmp_path: Path) -> None:
    save_safetensors(
        tmp_path / "head.safetensors", {"last." + k: v for k, v in Net().last.state_dict().items()}
    )
    head = given_head(f"{spec}:Head", tmp_path / "head.safetensors", encoder(), faces("a", "b"))
    assert torch.allclose(head.module(encoder()(IMAGES)), Net()(IMAGES), atol=1e-5)
    assert head.name == "the user's mine.py:Head" and head.doubts == ()
    assert not head.module.training


def test_weights_that_do_not_fit_a_head_are_refused(spec: str, tmp_path: Path) -> None:
    save_safetensors(tmp_path / "head.safetensors", {"last.weight": torch.zeros(2, 6)})
    with pytest.raises(WeightsError, match=r"last\.bias"):
        given_head(f"{spec}:Head", tmp_path / "head.safetensors", encoder(), faces("a", "b"))


def test_columns_in_the_wrong_order_are_doubted() -> None:
    split = encoder()
    (doubt,) = given_head("cloud", None, split, faces("bright", "red", swapped=True)).doubts
    assert (doubt.id, doubt.severity) == ("weak-head", "serious")
    assert doubt.bears_on("none", "utility") and not doubt.bears_on("none", "worst")


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("cloud", r"gives \(8, 2\) for 8 features of 6x16x16, and \(8, 3\) is expected"),
        ("Head", r"one logit for each of the 3 attributes \(a, b, c\)"),
        ("Several", "gives list, not logits"),
        ("Wrong", "mine.py"),
        ("Hed", "Did you mean Head"),
    ],
)
def test_a_head_of_another_shape_is_refused(spec: str, which: str, told: str) -> None:
    name = which if which == "cloud" else f"{spec}:{which}"
    with pytest.raises(LeakauditError, match=told) as caught:
        given_head(name, None, encoder(), faces("a", "b", "c"))
    assert caught.value.exit_code == 2


def test_answers_that_are_not_finite_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="NaN"):
        given_head(f"{spec}:Nan", None, encoder(), faces("a", "b"))


@pytest.mark.parametrize(
    ("head", "weights", "attributes", "told"),
    [
        (None, Path("w.pt"), Path("a.csv"), "Add --head"),
        ("cloud", Path("w.pt"), Path("a.csv"), "from --weights"),
        ("cloud", None, None, "needs --attributes"),
        ("x.py:f", None, None, "needs --attributes"),
    ],
)
def test_options_that_cannot_go_together_are_refused(head, weights, attributes, told) -> None:
    with pytest.raises(UsageError, match=told):
        check_head_options(head, weights, attributes)
    check_head_options(None, None, None)
    check_head_options("x.py:f", Path("w.pt"), Path("a.csv"))
