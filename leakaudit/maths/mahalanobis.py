"""Distance of a gap between features in units of how far such gaps usually reach.

Letters: R (M, d) usual gaps, mean zero; Sigma = R'R / M, of rank at most M, with eigenvectors V
(d, k) and eigenvalues s (k,); lambda the variance of an element off their span.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """``gap' (V S V' + lambda I)^-1 gap``, a face: what is usual counts little, the rest much.

    ``floor`` is the least lambda. A gap with much off the span, as of a feature with noise on it,
    asks for a larger one: ``noise`` measures it.
    """

    directions: Tensor
    variances: Tensor
    floor: float

    @staticmethod
    def fit(gaps: Tensor, *, shrink: float, least: float) -> Mahalanobis:
        """From usual gaps (M, ...); lambda is ``shrink`` of their mean variance, plus ``least``.

        Costs M³ once, in float64. Source: ridge-shrunk covariance, Hoffbeck and Landgrebe 1996.
        """
        R = gaps.detach().flatten(1).double()
        gram = R @ R.T / max(len(R), 1)
        floor = shrink * float(R.square().mean()) + max(least, 1e-12)
        values, vectors = torch.linalg.eigh(gram)
        seen = values > 1e-3 * floor
        directions = R.T @ vectors[:, seen] / (values[seen] * len(R)).sqrt()
        return Mahalanobis(directions.to(gaps), values[seen].to(gaps), floor)

    def noise(self, gap: Tensor) -> Tensor:
        """lambda a face (N,): the mean square of a gap (N, ...) off the span, or ``floor``."""
        flat = gap.flatten(1)
        rest = flat - (flat @ self.directions) @ self.directions.T
        free = max(flat.shape[1] - len(self.variances), 1)
        return (rest.square().sum(1) / free).clamp(min=self.floor)

    def __call__(self, gap: Tensor, noise: Tensor) -> Tensor:
        """Squared distances (N,) for gaps (N, ...), lambda being ``noise`` (N,)."""
        flat = gap.flatten(1)
        along = flat @ self.directions
        rest = flat - along @ self.directions.T
        usual = along.square() / (self.variances + noise[:, None])
        return rest.square().sum(1) / noise + usual.sum(1)
