"""Fixed convolutions give the bits of PyTorch's own, for half the work of a product with J."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from leakaudit.maths.convolution import FixedConvolutions
from leakaudit.maths.hypergradient import linearise

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 3},
    "strided": {"kernel_size": 4, "stride": 2, "padding": 1},
    "uneven": {"kernel_size": (3, 1), "stride": (1, 2), "padding": (2, 0)},
    "dilated": {"kernel_size": 3, "dilation": 2, "groups": 2, "bias": False},
    "worded": {"kernel_size": 3, "padding": "same"},
}


class Convolutions(TorchDispatchMode):
    """Counts the convolutions that are run, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "convolution" in str(func)
        return func(*args, **(kwargs or {}))


def network(kind: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = nn.Conv2d(4, 6, **KINDS[kind], dtype=dtype)
        last = nn.Conv2d(6, 2, 3, dtype=dtype)
    return nn.Sequential(first, nn.Tanh(), last).requires_grad_(False)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_first_derivatives_are_the_bits_of_pytorch(kind: str) -> None:
    net, found = network(kind, torch.float32), []
    for within in (True, False):
        x = normal(3, 4, 9, 9).float().requires_grad_()
        if within:
            with FixedConvolutions():
                y = net(x)
        else:
            y = net(x)
        found.append((y.detach(), torch.autograd.grad(y.square().sum(), x)[0]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_products_with_the_jacobian_are_those_of_forward_differentiation(kind: str) -> None:
    net, z, p = network(kind), normal(3, 4 * 81), normal(3, 4 * 81, seed=1)

    def response(z: Tensor) -> Tensor:
        return net(z.view(-1, 4, 9, 9))

    at = linearise(response, z)
    value, tangent = torch.func.jvp(response, (z,), (p,))
    torch.testing.assert_close(at.feature, value, rtol=0, atol=1e-12)
    torch.testing.assert_close(at.push(p), tangent, rtol=0, atol=1e-12)
    w = normal(*value.shape, seed=2)
    assert float((w * tangent).sum()) == pytest.approx(float((at.back(w) * p).sum()), rel=1e-12)


def test_a_product_with_the_jacobian_runs_each_convolution_once() -> None:
    net = network("plain")
    at = linearise(lambda z: net(z.view(-1, 4, 9, 9)), normal(2, 4 * 81))
    with Convolutions() as run:
        at.push(normal(2, 4 * 81, seed=1))
    assert run.count == 2


def test_weights_that_learn_keep_their_gradients() -> None:
    net = network("plain").requires_grad_(True)
    with FixedConvolutions():
        net(normal(2, 4, 9, 9).requires_grad_()).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())


def test_a_response_that_does_not_depend_on_the_latent_has_products_of_zero() -> None:
    at = linearise(lambda z: torch.ones(len(z), 5, dtype=z.dtype), normal(2, 3))
    assert not bool(at.push(normal(2, 3)).any()) and at.push(normal(2, 3)).shape == (2, 5)
    assert not bool(at.back(normal(2, 5)).any()) and at.back(normal(2, 5)).shape == (2, 3)
