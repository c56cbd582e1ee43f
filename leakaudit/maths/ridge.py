"""Ridge regression in closed form; inputs may outnumber samples; the data pick the penalty.

Letters: X (M, d) standardised inputs, Y (M, k) centred targets, K = X X' / d. The dual weights are
A = (K + lambda I)^-1 Y, and a prediction is x X' A / d. With the eigenvectors of K every penalty
costs one product, and so does its leave-one-out error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-10, 7))
"""Candidates for lambda, in units of the mean diagonal of K; leave-one-out tries every other."""
PROBES = 128
"""Random combinations of the targets on which the penalty is chosen where targets are many."""
QUIETEST = 1e-5
"""An element whose deviation is below this share of its size is rounding, and isn't blown up."""


@final
@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted map from inputs (N, ...) to targets (N, k).

    ``error`` is the mean squared error on samples that weren't fitted, over that of the mean
    target: 0 is perfect, 1 no better than the mean. ``left_out`` has it sample by sample, averaged
    over targets, in their unit squared. ``penalty`` is lambda in units of K's mean diagonal;
    infinite where the mean target did best, which is then what is predicted. ``reach`` (d,), in
    deviations, is how far from its mean an input element counts at most: six, or twice as far as
    it was seen, so that one that was nearly dead can't run away.
    """

    mean: Tensor
    deviation: Tensor
    reach: Tensor
    factors: tuple[Tensor, ...]
    base: Tensor
    error: float
    left_out: Tensor
    penalty: float

    @staticmethod
    def fit(inputs: Tensor, targets: Tensor) -> Ridge:
        """The map fitted on inputs (M, ...) and targets (M, k), judged by leave-one-out; M >= 2.

        Each input element is standardised by its own mean and deviation, however small it is: what
        tells people apart may lie in a quiet one. One penalty serves all targets. Source: Hoerl and
        Kennard 1970; the leave-one-out form is Allen's PRESS (1974). Costs M³ once, in float64.
        """
        flat = inputs.detach().flatten(1)
        scale = _Scale.of(flat, flat.std(0))
        x, base = scale(flat), targets.mean(0)
        y = targets - base
        system = _System.of(x, y, len(x))
        error, share = system.left_one_out()
        if math.isinf(share):
            left_out = _apart(y).square().mean(1)
        else:
            alone = system.dual(share).square().mean(1) / system.diagonal(share).square()
            left_out = alone.to(y)
        factors = system.factors(share)
        return Ridge(scale.mean, scale.deviation, _reach(x), factors, base, error, left_out, share)

    @staticmethod
    def fit_shifted(
        inputs: Tensor,
        targets: Tensor,
        *,
        offsets: Tensor,
        judges: tuple[Tensor, Tensor],
        weight: float = 1.0,
    ) -> Ridge:
        """The map fitted as if each of ``offsets`` (Q, ...) were added to each of ``inputs``.

        The expected squared error over independent offsets of mean zero is that of ``inputs`` alone
        plus ``|W offset|²``, so that offsets are samples of target zero and no draw is needed. An
        element is standardised by its deviation with offsets: noisy ones count less. ``weight``
        multiplies that term: above 1 where a few offsets stand for many more like them.
        ``judges``, inputs and targets that weren't fitted, choose the penalty and give the error.
        Source: Bishop 1995, "Training with noise is equivalent to Tikhonov regularization".
        """
        flat, moves = inputs.detach().flatten(1), offsets.detach().flatten(1)
        spread = (flat.var(0) + moves.square().mean(0)).sqrt()
        scale = _Scale.of(flat, spread)
        share_each = math.sqrt(weight * len(flat) / max(len(moves), 1))
        x = torch.cat([scale(flat), share_each * moves / scale.deviation])
        base = targets.mean(0)
        y = torch.cat([targets - base, torch.zeros_like(targets[:1]).expand(len(moves), -1)])
        system = _System.of(x, y, len(flat))
        reach = _reach(x[: len(flat)])
        seen = scale(judges[0].detach().flatten(1)).clamp(-reach, reach)
        share = system.judged(seen, judges[1] - base)
        factors = system.factors(share)
        done = Ridge(scale.mean, scale.deviation, reach, factors, base, 1.0, base, share)
        gaps = (done(judges[0]) - judges[1]).square().mean(1)
        usual = float((judges[1] - base).square().mean())
        error = float(gaps.mean()) / max(usual, 1e-30)
        return Ridge(scale.mean, scale.deviation, reach, factors, base, error, gaps, share)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Predictions (N, k) for inputs (N, ...)."""
        x = (inputs.flatten(1) - self.mean) / self.deviation
        x = x.clamp(-self.reach, self.reach)
        for factor in self.factors:
            x = x @ factor
        return x + self.base


@dataclass(frozen=True, eq=False)
class _Scale:
    mean: Tensor
    deviation: Tensor

    @staticmethod
    def of(flat: Tensor, deviation: Tensor) -> _Scale:
        rounding = QUIETEST * flat.square().mean(0).sqrt()
        tiny = torch.finfo(flat.dtype).tiny
        return _Scale(flat.mean(0), torch.maximum(deviation, rounding).clamp(min=tiny))

    def __call__(self, flat: Tensor) -> Tensor:
        return (flat - self.mean) / self.deviation


def _reach(x: Tensor) -> Tensor:
    return (2 * x.abs().amax(0)).clamp(min=6)


def _apart(y: Tensor) -> Tensor:
    """How far centred targets (M, k) lie from the mean of the others."""
    return y * (len(y) / (len(y) - 1))


@dataclass(frozen=True, eq=False)
class _System:
    """K's eigenvectors, and the targets in full and as probes (M, at most PROBES)."""

    x: Tensor
    y: Tensor
    probes: Tensor
    values: Tensor
    vectors: Tensor
    size: float

    @staticmethod
    def of(x: Tensor, y: Tensor, centred: int) -> _System:
        """The first ``centred`` rows share a constant, the others have none."""
        gram = (x @ x.T).double() / x.shape[1]
        size = float(gram.diagonal()[:centred].mean())
        # The constant direction belongs to the mean: a large eigenvalue keeps it out of both the
        # dual weights and the leave-one-out errors, where it would give left-out samples away.
        gram[:centred, :centred] += 1e9 * max(size, 1e-30) / centred
        values, vectors = torch.linalg.eigh(gram)
        return _System(x, y, _probes(y).double(), values.clamp(min=0), vectors, size)

    def _shrink(self, share: float) -> Tensor:
        return 1 / (self.values + share * max(self.size, 1e-30))

    def dual(self, share: float) -> Tensor:
        """A (M, k) under this penalty, in float64 where the map fits in one matrix."""
        inverse = (self.vectors * self._shrink(share)) @ self.vectors.T
        kind = torch.float64 if self._one_matrix() else self.y.dtype
        return inverse.to(kind) @ self.y.to(kind)

    def factors(self, share: float) -> tuple[Tensor, ...]:
        """The map; of nothing but zeros under an infinite penalty."""
        if math.isinf(share):
            return (self.y.new_zeros(self.x.shape[1], self.y.shape[1]),)
        dual, left = self.dual(share), self.x.T / self.x.shape[1]
        if not self._one_matrix():
            return left, dual
        # With more samples than degrees of freedom A is large and cancels: summed in float64 once.
        return ((left.double() @ dual).to(self.y),)

    def _one_matrix(self) -> bool:
        (count, width), targets = self.x.shape, self.y.shape[1]
        return width * targets <= count * (width + targets)

    def diagonal(self, share: float) -> Tensor:
        """The diagonal (M,) of (K + lambda I)^-1."""
        return (self.vectors.square() * self._shrink(share)).sum(1)

    def left_one_out(self) -> tuple[float, float]:
        """The relative leave-one-out error of the best penalty, and the penalty."""
        total = float(_apart(self.probes).square().mean())
        best = (1.0, math.inf)
        if self.size <= 0 or total <= 0:
            return best
        turned = self.vectors.T @ self.probes
        for share in PENALTIES[::2]:
            dual = self.vectors @ (self._shrink(share)[:, None] * turned)
            error = float((dual / self.diagonal(share)[:, None]).square().mean()) / total
            best = min(best, (error, share))
        return best

    def judged(self, seen: Tensor, wanted: Tensor) -> float:
        """The penalty with the least error at standardised inputs and centred targets."""
        aim = _probes(wanted).double()
        best = (float(aim.square().mean()), math.inf)
        if self.size <= 0:
            return math.inf
        near = (seen @ self.x.T).double() / seen.shape[1] @ self.vectors
        turned = self.vectors.T @ self.probes
        for share in PENALTIES:
            made = near @ (self._shrink(share)[:, None] * turned)
            best = min(best, (float((made - aim).square().mean()), share))
        return best[1]


def _probes(y: Tensor) -> Tensor:
    """The targets (M, k), or fixed random combinations of them where they are many."""
    if y.shape[1] <= PROBES:
        return y
    draws = torch.randn(y.shape[1], PROBES, generator=torch.Generator().manual_seed(0))
    return y @ draws.to(y)
