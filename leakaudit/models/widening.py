"""Widening: from a latent's face to faces near it that no latent gives.

Letters: h_k = G_k(... G_1(z)), the activation after k stages of the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakaudit.core.checks import above_zero, at_least
from leakaudit.maths.descent import Descended, Descent, descend

Stage = Callable[[Tensor], Tensor]
Judge = Callable[[Tensor, Tensor], Tensor]
"""Maps pictures (n, 3, H, W) and their rows (n,) to losses (n,)."""


@dataclass(frozen=True)
class Widening:
    """After the latent, so many ``stages`` of activations are searched in turn, ``steps`` each.

    A stage stays within an L1 ball about where it begins, of ``radius`` times that activation's L1
    norm. ``rate`` is in units of its mean size. Source: IF-GMI (Qiu et al. 2024), progressive
    optimisation of a generator's intermediate features.
    """

    stages: int = 2
    steps: int = 15
    radius: float = 0.3
    rate: float = 0.04

    def __post_init__(self) -> None:
        at_least("widening", 0, stages=self.stages)
        at_least("widening", 1, steps=self.steps)
        above_zero("widening", radius=self.radius, rate=self.rate)


def widen(stage: int, begin: Tensor, *, stages: tuple[Stage, ...], judge: Judge, how: Widening
) -> Descended:  # fmt: skip
    """The best activations after ``stage`` stages, from ``begin`` (N, ...)."""
    size = begin.flatten(1).abs()
    reach = how.radius * size.sum(1)
    units = size.mean(1).clamp(min=1e-12).view(-1, *[1] * (begin.dim() - 1))

    def loss(moves: Tensor, rows: Tensor) -> Tensor:
        return judge(onwards(begin[rows] + units[rows] * moves, stages[stage:]), rows)

    def project(moves: Tensor, rows: Tensor) -> Tensor:
        flat = within_l1(moves.flatten(1), (reach / units.flatten())[rows])
        return flat.view_as(moves)

    descent = Descent(steps=how.steps, rate=how.rate)
    found = descend(loss, torch.zeros_like(begin), how=descent, project=project)
    return replace(found, points=begin + units * found.points)


def onwards(x: Tensor, stages: tuple[Stage, ...]) -> Tensor:
    """``x`` through the stages in turn."""
    for stage in stages:
        x = stage(x)
    return x


def within_l1(points: Tensor, radius: Tensor) -> Tensor:
    """The nearest points (N, d) whose L1 norm is at most ``radius`` (N,). Source: Duchi 2008."""
    size = points.abs()
    ranked = size.sort(1, descending=True).values
    beyond = ranked.cumsum(1) - radius[:, None]
    place = torch.arange(1, size.shape[1] + 1, device=size.device)
    count = (ranked * place > beyond).sum(1, keepdim=True).clamp(min=1)
    cut = (beyond.gather(1, count - 1) / count).clamp(min=0)
    return points.sign() * (size - cut).clamp(min=0)
