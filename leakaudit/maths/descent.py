"""Descent for many faces at once, each at its own pace, each leaving when it has arrived.

No face feels another one: the loss is a number a face, curvature, step length and the end are
decided face by face, so that the size of a batch can't change a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from leakaudit.core.checks import above_zero, at_least
from leakaudit.maths.chunks import chunked
from leakaudit.maths.lbfgs import begun, moved

Loss = Callable[[Tensor, Tensor], Tensor]
"""Maps points ``(n, ...)`` and the rows ``(n,)`` they belong to, to losses ``(n,)``."""
Project = Callable[[Tensor, Tensor], Tensor]
"""Maps points ``(n, ...)`` and their rows back to where they may lie."""

NOTHING = 1e-8  # share of the first loss under which nothing is left to gain


@dataclass(frozen=True)
class Descent:
    """How points descend: L-BFGS with a step length a face, until nothing is gained.

    ``steps`` is the budget: losses evaluated a face after the first. ``rate`` is how far the first
    step goes, root mean square in units of the point; the loss itself decides the later ones, so
    that an order of magnitude hardly matters. A face ends, and leaves the batch, when its loss fell
    by less than ``gain`` (a share) over its last ``patience`` steps, or to a hundred millionth of
    the first. ``memory`` pairs of steps and gradients tell the curvature.
    Source: Liu and Nocedal 1989 (L-BFGS), with Armijo's rule and quadratic interpolation.
    """

    steps: int = 200
    rate: float = 0.1
    gain: float = 0.01
    patience: int = 20
    memory: int = 10

    def __post_init__(self) -> None:
        at_least("descent", 0, steps=self.steps, gain=self.gain)
        at_least("descent", 1, patience=self.patience, memory=self.memory)
        above_zero("descent", rate=self.rate)


@final
@dataclass(frozen=True, eq=False)
class Descended:
    """The best points (N, ...) with their losses (N,), and how they were reached.

    ``path`` (T, N) is the best loss of each face after each step, from the start on; ``settled``
    (N,) tells which faces stopped because nothing was gained any more; ``spent`` (N,) counts the
    losses evaluated for a face.
    """

    points: Tensor
    loss: Tensor
    path: Tensor
    settled: Tensor
    spent: Tensor

    @property
    def curve(self) -> tuple[float, ...]:
        """The mean best loss at each step, over the faces whose loss is finite then."""
        finite = self.path.isfinite()
        means = self.path.where(finite, 0.0).sum(1) / finite.sum(1)
        return tuple(means.nan_to_num(math.inf).tolist())

    @property
    def evaluations(self) -> int:
        """Losses of single faces that were evaluated."""
        return int(self.spent.sum())

    @property
    def share_settled(self) -> float:
        """The share of faces that stopped because nothing was gained any more; 1 for no faces."""
        return float(self.settled.double().mean()) if len(self.settled) else 1.0

    @staticmethod
    def joined(parts: Sequence[Descended]) -> Descended:
        """Batches of different faces as one; a batch that ended early stays where it was."""
        return Descended(
            torch.cat([part.points for part in parts]),
            torch.cat([part.loss for part in parts]),
            torch.cat(_paths(parts), dim=1),
            torch.cat([part.settled for part in parts]),
            torch.cat([part.spent for part in parts]),
        )

    @staticmethod
    def best_of(tries: Sequence[Descended]) -> Descended:
        """Several descents of the same faces as one: each face's with the least loss.

        ``spent`` is that of all descents together.
        """
        pick = torch.stack([one.loss for one in tries]).argmin(0)
        face = torch.arange(len(pick), device=pick.device)
        return Descended(
            torch.stack([one.points for one in tries])[pick, face],
            torch.stack([one.loss for one in tries])[pick, face],
            torch.stack(_paths(tries))[pick, :, face].T,
            torch.stack([one.settled for one in tries])[pick, face],
            torch.stack([one.spent for one in tries]).sum(0),
        )


def _paths(parts: Sequence[Descended]) -> list[Tensor]:
    """The paths, all as long as the longest."""
    longest = max(len(part.path) for part in parts)
    return [
        torch.cat([part.path, part.path[-1:].expand(longest - len(part.path), -1)])
        for part in parts
    ]


def descend(
    loss: Loss,
    start: Tensor,
    *,
    how: Descent,
    project: Project = lambda points, rows: points,
    batch: int | None = None,
) -> Descended:
    """The best point a face of a descent from ``start`` (N, ...), ``batch`` faces at a time.

    Losses are zero or more. One that isn't finite counts as infinitely bad, and whatever isn't
    finite of a gradient as zero.
    """
    rows = torch.arange(len(start), device=start.device)
    parts = chunked(
        lambda part: _descend(loss, start[part], part, how, project), rows, batch or len(rows)
    )
    return Descended.joined(parts)


def _descend(loss: Loss, start: Tensor, rows: Tensor, how: Descent, project: Project) -> Descended:
    shape, index = start.shape[1:], torch.arange(len(rows), device=rows.device)
    best = start.detach().clone().flatten(1)
    best_loss, slope = _value_and_slope(loss, best, rows, shape)
    first, path, spent = best_loss.clone(), [best_loss.clone()], torch.ones_like(rows)
    settled = torch.zeros_like(rows, dtype=torch.bool)
    past = first.new_full((len(rows), how.patience), math.inf)
    state = begun(index, best.clone(), first.clone(), slope, rate=how.rate, memory=how.memory)
    for step in range(how.steps):
        going = state.slope.any(dim=1)
        settled[state.index[~going & state.loss.isfinite()]] = True
        state = state if bool(going.all()) else state.only(going)
        if len(state.index) == 0:
            break
        tried = state.points + state.length[:, None] * state.direction
        tried = project(tried.view(-1, *shape), rows[state.index]).detach().flatten(1)
        value, slope = _value_and_slope(loss, tried, rows[state.index], shape)
        spent[state.index] += 1
        state = moved(state, tried, value, slope, slot=step % how.memory, rate=how.rate)
        best[state.index], best_loss[state.index] = state.points, state.loss
        path.append(best_loss.clone())
        # A slot holds the loss that a face had ``patience`` steps ago; infinity at first.
        ago = past[state.index, step % how.patience]
        past[state.index, step % how.patience] = state.loss
        arrived = state.loss <= NOTHING * first[state.index]
        arrived |= state.loss >= (1 - how.gain) * ago
        settled[state.index[arrived & state.loss.isfinite()]] = True
        state = state.only(~arrived) if bool(arrived.any()) else state
    return Descended(best.view_as(start), best_loss, torch.stack(path), settled, spent)


def _value_and_slope(
    loss: Loss, flat: Tensor, rows: Tensor, shape: torch.Size
) -> tuple[Tensor, Tensor]:
    """Losses (n,), infinite where they aren't finite, and slopes (n, width), zero where not."""
    points = flat.detach().view(-1, *shape).requires_grad_()
    with torch.enable_grad():
        values = loss(points, rows)
        slope = None
        if values.requires_grad:
            (slope,) = torch.autograd.grad(values.sum(), points, allow_unused=True)
    slope = torch.zeros_like(flat) if slope is None else slope.flatten(1).nan_to_num(0.0, 0.0, 0.0)
    values = values.detach().to(flat)
    sound = values.isfinite()
    return torch.where(sound, values, math.inf), torch.where(sound[:, None], slope, 0.0)
