"""Which element of one vector is which of another: the most correlated one, at any scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Matching:
    """A map from vectors (N, d) to vectors (N, k), each element a line of one of the inputs.

    ``partner`` (k,) says which, ``correlation`` (k,) how well it follows. A seeded permutation with
    signs and scales is undone from two dozen pairs, whatever d is: by chance the best of d
    correlations over M samples is about ``sqrt(2 ln d / M)``, and a true partner has 1.
    """

    partner: Tensor
    correlation: Tensor
    centre: Tensor
    slope: Tensor
    base: Tensor
    reach: Tensor

    @staticmethod
    def fit(inputs: Tensor, targets: Tensor, *, block: int = 1024) -> Matching:
        """The map fitted on inputs (M, ...) and targets (M, ...), M at least 3; M d k products."""
        x, y = inputs.detach().flatten(1), targets.detach().flatten(1)
        mean_x, mean_y = x.mean(0), y.mean(0)
        scale_x, scale_y = _deviation(x), _deviation(y)
        a, b = (x - mean_x) / scale_x, (y - mean_y) / scale_y
        found = [_best(a, part) for part in b.split(block, dim=1)]
        partner = torch.cat([index for index, _ in found])
        correlation = torch.cat([value for _, value in found])
        slope = correlation * scale_y / scale_x[partner]
        reach = 2 * (x - mean_x).abs().amax(0)[partner]
        return Matching(partner, correlation, mean_x[partner], slope, mean_y, reach)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Predictions (N, k) for inputs (N, ...)."""
        away = inputs.flatten(1)[:, self.partner] - self.centre
        return away.clamp(-self.reach, self.reach) * self.slope + self.base


def _best(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    table = b.T @ a / (len(a) - 1)
    index = table.abs().argmax(1)
    return index, table.gather(1, index[:, None])[:, 0].clamp(-1, 1)


def _deviation(x: Tensor) -> Tensor:
    rounding = 1e-5 * x.square().mean(0).sqrt()
    return torch.maximum(x.std(0), rounding).clamp(min=torch.finfo(x.dtype).tiny)
