"""How likely a latent is, given a feature: the prior on z, and what the prior can't express.

Letters: z (N, d) latents; r = Enc(G(z)) - F, the gap of a face; A (d, dF) the linear map from
latents to features that fits the prior's samples best.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.mahalanobis import Mahalanobis
from leakaudit.models.best_response import Amortiser

Response = Callable[[Tensor], Tensor]
SHRINK = 0.1
"""Variance off the span of the usual gaps, at least, in units of their mean variance."""
LEAST = 1e-2
"""The same in units of the mean variance of the prior's features."""


@final
@dataclass(frozen=True, eq=False)
class Posterior:
    """``(r' Sigma^-1 r + |z|²) / d``: twice the negative logarithm, less a constant, a coordinate.

    Sigma is the covariance of the gaps that the amortised start leaves on public pictures: where
    the prior often misses, a gap says little; in quiet directions, which tell people apart, it says
    much. A feature with noise on it gets its own level of it. Source: maximum a posteriori
    inversion with a model-error covariance, Kaipio and Somersalo 2005, ch. 5.
    """

    metric: Mahalanobis
    linear: Tensor

    @staticmethod
    def fit(response: Response, amortiser: Amortiser, features: Tensor, *, batch: int) -> Posterior:
        """From public features (M, ...); costs one pass each."""
        with torch.no_grad():
            gaps = in_chunks(lambda f: response(amortiser(f)) - f, features, batch)
        least = LEAST * amortiser.scale / math.prod(features.shape[1:])
        metric = Mahalanobis.fit(gaps, shrink=SHRINK, least=least)
        return Posterior(metric, amortiser.linear())

    def loss(self, gap: Tensor, z: Tensor, noise: Tensor) -> Tensor:
        """Losses (N,) for gaps (N, ...), latents (N, d) and levels of noise (N,)."""
        return (self.metric(gap, noise) + z.square().sum(1)) / z.shape[1]

    def curvature(self, noise: Tensor) -> Tensor:
        """The loss's second derivatives (N, d, d) by z in the linear world of ``linear``."""
        along = self.linear @ self.metric.directions
        off = self.linear @ self.linear.T - along @ along.T
        weights = 1 / (self.metric.variances + noise[:, None])
        seen = (along * weights[:, None]) @ along.T
        eye = torch.eye(len(off), dtype=off.dtype, device=off.device)
        return 2 * (seen + off / noise[:, None, None] + eye) / len(off)


def whitening(curvature: Tensor) -> Tensor:
    """T (N, d, d) with ``T T' = curvature^-1``, face by face; curvature is positive definite."""
    root: Tensor = torch.linalg.cholesky(curvature)
    eye = torch.eye(root.shape[1], dtype=root.dtype, device=root.device)
    return torch.linalg.solve_triangular(root.mT, eye.expand_as(root), upper=True)
