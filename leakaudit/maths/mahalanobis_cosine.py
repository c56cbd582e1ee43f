"""How alike two faces are, measured by how faces differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as fn


@final
@dataclass(frozen=True, eq=False)
class Deviations:
    """Faces told in deviations: their cosine is the Mahalanobis cosine.

    Faces less their ``centre`` (d,) are told along principal ``directions`` (d, k), each divided by
    its standard deviation. So what faces share much of, as tone or light, counts no more than a
    small part by which one knows a person. Source: Yambor, Draper and Beveridge 2002, "Analyzing
    PCA-based face recognition algorithms", with the cosine of Beveridge et al. 2005 (MahCosine).
    """

    centre: Tensor
    directions: Tensor

    @staticmethod
    def fit(faces: Tensor, *, share: float = 0.98) -> Deviations:
        """From faces (M, d): the directions, divided already, that hold ``share`` of the variance.

        None where all faces are the same.
        """
        exact = faces.double()
        centre = exact.mean(0)
        _, sizes, ways = torch.linalg.svd(exact - centre, full_matrices=False)
        held = sizes.square().cumsum(0) / sizes.square().sum().clamp(min=1e-30)
        before = torch.cat([held.new_zeros(1), held[:-1]])
        kept = (before < share) & (sizes > 1e-6 * exact.norm())  # below it is rounding
        spread = sizes[kept] / max(len(faces) - 1, 1) ** 0.5
        return Deviations(centre.to(faces), (ways[kept].T / spread).to(faces))

    def told(self, faces: Tensor) -> Tensor:
        """Faces (N, d) along the directions, (N, k)."""
        return (faces - self.centre) @ self.directions


NOTHING = 1e-4
"""Below so many deviations there is only rounding."""


def mahalanobis_cosine(one: Tensor, other: Tensor) -> Tensor:
    """Cosines (N,) of faces in deviations (N, k) with others; 1 where both differ in nothing.

    A face has 1 with itself, strangers have 0 on average.
    """
    nothing = (one.norm(dim=1) < NOTHING) & (other.norm(dim=1) < NOTHING)
    return torch.where(nothing, 1.0, fn.cosine_similarity(one, other, dim=1))
