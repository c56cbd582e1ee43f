"""The cloud's half is the network's own rest, and where it can't be, that is found out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.models.cloud import cloud_half
from leakaudit.models.encoder import Preprocessing, SplitEncoder

IMAGES = torch.rand(12, 3, 16, 16, generator=Rng(0).torch())


class Net(nn.Module):
    """Two blocks, the second with a shortcut inside, a pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.two = nn.Conv2d(6, 6, 3, 1, 1)
        self.act = nn.ReLU()
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = self.act(x + self.two(x))
        return self.last(x.mean((2, 3)))


def encoder(layer: str, network: nn.Module | None = None) -> SplitEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = network or Net()
    return SplitEncoder(made, layer, preprocessing=Preprocessing(16, channels="bgr"), name="net")


@pytest.mark.parametrize("layer", ["one", "one.0", "act", "last"])
def test_the_rest_gives_what_the_whole_network_gives(layer: str) -> None:
    split = encoder(layer)
    rest = cloud_half(split, IMAGES)
    whole = split.network(split.prepare(IMAGES))
    assert torch.allclose(rest(split(IMAGES)), whole, atol=1e-6)
    moved = split(IMAGES) + 0.5
    assert not torch.allclose(rest(moved), whole, atol=1e-2)
    assert rest(moved[:0]).shape[1] == 3


def test_a_torchvision_network_runs_on_from_its_layers() -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        network = torchvision.models.resnet18(weights=None, num_classes=5)
    for layer in ("layer1", "layer3", "avgpool"):
        made = SplitEncoder(network, layer, preprocessing=Preprocessing(32), name="resnet18")
        rest = cloud_half(made, IMAGES)
        assert torch.allclose(rest(made(IMAGES)), network(made.prepare(IMAGES)), atol=1e-5)


def test_gradients_flow_from_the_answer_to_the_feature_and_hooks_are_gone() -> None:
    split = encoder("one")
    rest = cloud_half(split, IMAGES)
    feature = split(IMAGES).requires_grad_()
    (slope,) = torch.autograd.grad(rest(feature).square().sum(), feature)
    assert float(slope.abs().max()) > 0
    assert not any(module._forward_hooks for module in split.network.modules())


def test_a_branch_is_found_out() -> None:
    with pytest.raises(UsageError, match=r"doesn't follow from the feature at 'two' alone"):
        cloud_half(encoder("two"), IMAGES)


def test_a_picture_that_goes_around_the_split_by_a_hair_is_found_out() -> None:
    class Around(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.02 * x.mean((1, 2, 3))[:, None]

    with pytest.raises(UsageError, match="branch"):
        cloud_half(encoder("one", Around()), IMAGES)


def test_a_layer_that_runs_twice_is_given_its_first_output_only() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.act(self.two(self.act(self.one(x)))).mean((2, 3)))

    split = encoder("act", Twice())
    rest = cloud_half(split, IMAGES)
    assert torch.allclose(rest(split(IMAGES)), split.network(split.prepare(IMAGES)), atol=1e-6)


def test_an_answer_of_several_tensors_is_refused() -> None:
    class Pair(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            answer = super().forward(x)
            return answer, answer

    with pytest.raises(UsageError, match="tuple and not one tensor"):
        cloud_half(encoder("one", Pair()), IMAGES)


def test_a_rest_that_fails_names_the_users_line() -> None:
    class Fails(Net):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"no rest for {self.one(x).shape[0]}")

    with pytest.raises(UsageError, match=r"behind 'one' raised RuntimeError.*test_cloud.py"):
        cloud_half(encoder("one", Fails()), IMAGES)
