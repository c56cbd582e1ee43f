"""The spread that regression takes away, given back along principal directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Spread:
    """A map from predictions (N, k) to rows that vary as much as true ones do.

    The least squared error is reached by predictions that shrink towards the mean, the more the
    less is known; who is looked for among faces does better with one that lies among them. Along
    each principal direction of the true rows, ``directions`` (k, r), deviations are multiplied by
    ``gain`` (r,); what lies outside of them is dropped. Source: Blau and Michaeli 2018, "The
    perception-distortion tradeoff", with independent directions.
    """

    centre: Tensor
    base: Tensor
    directions: Tensor
    gain: Tensor

    @staticmethod
    def fit(made: Tensor, true: Tensor, *, rank: int = 200, most: float = 4.0) -> Spread:
        """From predictions (N, k) and true rows (M, k), not necessarily of the same samples.

        At most ``rank`` directions, each multiplied by 1 to ``most``.
        """
        centre, base = made.mean(0), true.mean(0)
        away = true - base
        values, vectors = torch.linalg.eigh((away @ away.T).double())
        kept = min(rank, len(true) - 1, true.shape[1])
        values, vectors = values[-kept:].flip(0), vectors[:, -kept:].flip(1)
        seen = values > 1e-9 * float(values[0].clamp(min=1e-30))
        values, vectors = values[seen], vectors[:, seen]
        directions = away.T @ (vectors / values.sqrt()).to(away)
        wanted = (values / (len(true) - 1)).sqrt().to(away)
        has = ((made - centre) @ directions).std(0)
        gain = (wanted / has.clamp(min=1e-12)).clamp(1.0, most)
        return Spread(centre, base, directions, gain)

    def __call__(self, made: Tensor) -> Tensor:
        """Rows (N, k) for predictions (N, k)."""
        along = (made - self.centre) @ self.directions
        return (along * self.gain) @ self.directions.T + self.base
