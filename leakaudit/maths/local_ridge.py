"""Ridge regression whose weights all positions of a map share: a convolution in closed form.

Letters: X_i (p, n) are the p numbers seen around each of the n positions of sample i, and Y_i
(k, n) its targets there; G = sum_i X_i X_i' and C = sum_i X_i Y_i'. The weights are
W = (G + lambda I)^-1 C. Few samples suffice, for each brings n equations for the same weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as fn

PENALTIES = tuple(10.0**power for power in range(-6, 3))
"""Candidates for lambda, in units of the mean diagonal of G."""
FOLDS = 4


@final
@dataclass(frozen=True, eq=False)
class LocalRidge:
    """A fitted convolution from maps (N, C, h, w) to maps (N, k, h, w), with a constant.

    ``kernel`` (k, C, side, side) acts on channels standardised by ``mean`` and ``deviation``
    (C, 1, 1), zero beyond the edge; ``base`` (k, 1, 1) is added.
    """

    mean: Tensor
    deviation: Tensor
    kernel: Tensor
    base: Tensor
    penalty: float

    @staticmethod
    def fit(inputs: Tensor, targets: Tensor, *, side: int) -> LocalRidge:
        """The convolution of odd ``side`` fitted on maps (M, C, h, w) and (M, k, h, w).

        The penalty has the least error on left-out quarters of the samples (not of positions, which
        are no independent witnesses). Costs M h w (C side²)² once. M at least 4.
        """
        mean, deviation = _moments(inputs)
        base = targets.mean((0, 2, 3), keepdim=True)[0]
        x, y = (inputs - mean) / deviation, targets - base
        folds = [_products(x[k::FOLDS], y[k::FOLDS], side) for k in range(FOLDS)]
        gram = torch.stack([g for g, _ in folds]).sum(0)
        cross = torch.stack([c for _, c in folds]).sum(0)
        penalty = min(PENALTIES, key=_errors(folds, gram, cross).__getitem__)
        weights = _solve(gram, cross, penalty).to(x)
        kernel = weights.T.reshape(y.shape[1], x.shape[1], side, side).contiguous()
        return LocalRidge(mean, deviation, kernel, base, penalty)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Predicted maps (N, k, h, w) for maps (N, C, h, w)."""
        x = (inputs - self.mean) / self.deviation
        return fn.conv2d(x, self.kernel, padding=self.kernel.shape[-1] // 2) + self.base


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    mean = inputs.mean((0, 2, 3), keepdim=True)[0]
    deviation = (inputs - mean).square().mean((0, 2, 3), keepdim=True)[0].sqrt()
    rounding = 1e-5 * inputs.square().mean((0, 2, 3), keepdim=True)[0].sqrt()
    return mean, torch.maximum(deviation, rounding).clamp(min=torch.finfo(inputs.dtype).tiny)


def _products(x: Tensor, y: Tensor, side: int, *, batch: int = 16) -> tuple[Tensor, Tensor]:
    """G and C of these samples, in float64."""
    size, width = x.shape[1] * side * side, y.shape[1]
    gram = torch.zeros(size, size, dtype=torch.float64, device=x.device)
    cross = torch.zeros(size, width, dtype=torch.float64, device=x.device)
    for a, b in zip(x.split(batch), y.split(batch), strict=True):
        seen = fn.unfold(a, side, padding=side // 2).transpose(0, 1).flatten(1)
        aim = b.flatten(2).transpose(0, 1).flatten(1)
        gram += (seen @ seen.T).double()
        cross += (seen @ aim.T).double()
    return gram, cross


def _solve(gram: Tensor, cross: Tensor, penalty: float) -> Tensor:
    ridge = penalty * max(float(gram.diagonal().mean()), 1e-30)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge * eye, cross)


def _errors(folds: list[tuple[Tensor, Tensor]], gram: Tensor, cross: Tensor) -> dict[float, float]:
    """For each penalty, the squared error on left-out folds, less the targets' own squares."""
    errors = dict.fromkeys(PENALTIES, 0.0)
    for g, c in folds:
        rest, aim = gram - g, cross - c
        for penalty in PENALTIES:
            w = _solve(rest, aim, penalty)
            errors[penalty] += float((w * (g @ w - 2 * c)).sum())
    return errors if all(map(math.isfinite, errors.values())) else dict.fromkeys(PENALTIES, 0.0)
