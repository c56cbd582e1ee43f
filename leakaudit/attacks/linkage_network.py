"""A small network from features to a recogniser's embedding, for what no linear map can tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.attacks.stand_in import Map
from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.rng import Rng

ENOUGH = 1000
"""Pictures that principal coordinates are taken from, at most."""


@final
@dataclass(frozen=True, eq=False)
class Coordinates:
    """Principal coordinates of standardised inputs.

    ``directions`` (d, n) turns inputs, standardised by ``mean`` and ``deviation`` (d,) and held
    within ten deviations, into coordinates of variance 1; ``spread`` (n,) are the shares of
    variance they have by themselves, the largest first.
    """

    mean: Tensor
    deviation: Tensor
    directions: Tensor
    spread: Tensor

    @staticmethod
    def of(inputs: Tensor, count: int) -> Coordinates:
        """At most ``count`` coordinates of inputs (M, d), fewer where there is less to tell."""
        mean, rounding = inputs.mean(0), 1e-5 * inputs.square().mean(0).sqrt()
        deviation = torch.maximum(inputs.std(0), rounding).clamp(min=torch.finfo(inputs.dtype).tiny)
        x = ((inputs - mean) / deviation).clamp(-10, 10)
        values, vectors = torch.linalg.eigh((x @ x.T).double() / x.shape[1])
        values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
        kept = values > 1e-6 * values[0]
        kept[0] = True  # constant inputs have one coordinate, and it is constant
        values, vectors = values[kept].clamp(min=1e-12), vectors[:, kept]
        turn = (vectors * (math.sqrt(len(x)) / values)).to(x)
        return Coordinates(mean, deviation, x.T @ turn / x.shape[1], (values / values.sum()).to(x))

    def __call__(self, inputs: Tensor) -> Tensor:
        """Coordinates (N, n) of inputs (N, d)."""
        return ((inputs - self.mean) / self.deviation).clamp(-10, 10) @ self.directions


@dataclass(frozen=True)
class NetworkTraining:
    """How the network is trained: Adam, a cosine rate, noise on its inputs.

    ``components`` principal coordinates go in, at most one for three pictures; ``noise`` is in
    units of their mean deviation. The loss is 1 - cosine.
    """

    steps: int = 300
    batch: int = 128
    rate: float = 2e-3
    width: int = 256
    components: int = 320
    noise: float = 0.3

    def __post_init__(self) -> None:
        at_least("linkage network", 10, steps=self.steps)
        at_least("linkage network", 1, batch=self.batch, width=self.width)
        at_least("linkage network", 1, components=self.components)
        at_least("linkage network", 0, noise=self.noise)
        above_zero("linkage network", rate=self.rate)


class _Perceptron(nn.Module):
    """A line and a bend beside it, (N, n) to (N, d)."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.line = nn.Linear(inputs, outputs)
        self.inner, self.outer = nn.Linear(inputs, width), nn.Linear(width, outputs)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x) + self.outer(fn.silu(self.inner(x)))


def train_network(
    inputs: Tensor,
    targets: Tensor,
    *,
    held_out: tuple[Tensor, Tensor],
    training: NetworkTraining,
    rng: Rng,
) -> tuple[Map, tuple[float, ...]]:
    """The network fitted on inputs (M, k) and unit targets (M, d), and its held-out losses.

    It is the one of eleven evenly spaced looks with the least loss on ``held_out``.
    """
    few = inputs[:ENOUGH]
    coordinates = Coordinates.of(few, min(training.components, max(1, len(few) // 3)))
    # Between whitened and natural coordinates: rare directions count, but less.
    weight = coordinates.spread.sqrt().sqrt()
    weight = weight / weight.square().mean().sqrt().clamp(min=1e-12)
    x, judged = coordinates(inputs) * weight, coordinates(held_out[0]) * weight
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive("init").state)
        net = _Perceptron(x.shape[1], training.width, targets.shape[1])
    net.to(x.device)
    optimiser = torch.optim.Adam(net.parameters(), lr=training.rate)
    generator, checks = rng.derive("training").torch(), list[float]()
    best = {name: value.clone() for name, value in net.state_dict().items()}
    for step in range(training.steps + 1):
        if step % max(1, training.steps // 10) == 0 or step == training.steps:
            with torch.no_grad():
                checks.append(float(_loss(net(judged), held_out[1])))
            if checks[-1] <= min(checks):
                best = {name: value.clone() for name, value in net.state_dict().items()}
        if step == training.steps:
            break
        pace = 0.5 * (1 + math.cos(math.pi * step / training.steps))
        for group in optimiser.param_groups:
            group["lr"] = training.rate * min(1.0, (step + 1) / 20) * max(0.01, pace)
        pick = torch.randint(len(x), (training.batch,), generator=generator).to(x.device)
        noise = torch.randn(training.batch, x.shape[1], generator=generator).to(x)
        loss = _loss(net(x[pick] + training.noise * noise), targets[pick])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    net.load_state_dict(best)
    net.requires_grad_(False)
    return (lambda f: fn.normalize(net(coordinates(f) * weight), dim=1)), tuple(checks)


def _loss(made: Tensor, true: Tensor) -> Tensor:
    return 1 - fn.cosine_similarity(made, true, dim=1).mean()
