"""How much of a prior's face is left after it was led to another one, to two adversaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from leakaudit.defences.crafting import Measures
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.mahalanobis_cosine import Deviations, mahalanobis_cosine
from leakaudit.models.best_response import Reader

SHOWN = 256  # faces of the prior by which it is told how faces differ


@final
@dataclass(frozen=True, eq=False)
class Likeness:
    """Mahalanobis cosines of faces of the prior, of themselves and of what features tell of them.

    ``differ`` is how faces of the prior differ, ``reader`` the ridge regression that reads it from
    features: what a linear adversary does.
    """

    measures: Measures
    differ: Deviations
    reader: Reader

    @staticmethod
    @torch.no_grad()
    def fit(measures: Measures) -> Likeness:
        """By the draws that the amortised start was fitted on; no further encoder passes."""
        faces = in_chunks(lambda z: measures.pooled(measures.prior(z)), measures.draws, 64)
        differ = Deviations.fit(faces[:SHOWN])
        return Likeness(measures, differ, measures.reader(differ.told(faces)))

    @torch.no_grad()
    def made(self, one: Tensor, other: Tensor) -> Tensor:
        """How alike (N,) the faces of latents (N, latent) are, to who searches the prior."""
        measures = self.measures
        told = [self.differ.told(measures.pooled(measures.prior(z))) for z in (one, other)]
        return mahalanobis_cosine(*told)

    @torch.no_grad()
    def read(self, one: Tensor, other: Tensor) -> Tensor:
        """How alike (N,) a linear adversary finds the faces of features (N, ...).

        A part of the face that the encoder hardly shows is read as none, and counts as little.
        """
        return mahalanobis_cosine(self.reader(one), self.reader(other))
