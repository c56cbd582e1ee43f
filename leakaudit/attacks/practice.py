"""What an adaptive decoder practises on: real releases, and those of a stand-in for the defence."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from leakaudit.attacks.learnt import Judge
from leakaudit.attacks.pairs import Pairs
from leakaudit.attacks.ridge import CleanPairs, asked_and_known
from leakaudit.attacks.stand_in import StandIn, stand_ins
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox
from leakaudit.maths.chunks import in_chunks
from leakaudit.models.decoder import Draw

REAL = 0.25
"""Share of real releases in a batch; the stand-in makes the rest."""


@final
@dataclass(frozen=True, eq=False)
class Practice:
    """Real pairs to fit and to choose by, and a stand-in that makes more of them.

    ``released`` (R, ...) are releases of ``images`` (R, 3, H, W) with clean features ``clean``;
    ``held_released`` and ``held_images`` are looked at and never fitted. ``known`` are further
    public pictures with clean features, whose releases the stand-in makes; it is ``None`` where
    nothing is known of how releases follow from features.
    """

    asked: Pairs
    known: CleanPairs
    released: Tensor
    clean: Tensor
    images: Tensor
    held_released: Tensor
    held_clean: Tensor
    held_images: Tensor
    stand_in: StandIn | None
    judge: Judge

    @staticmethod
    def of(held: AdaptiveBlackBox, *, queries: int, repeats: int, pairs: int) -> Practice:
        """``queries`` public pictures released ``repeats`` times, and ``pairs`` clean ones."""
        asked, known = asked_and_known(held, queries, pairs, releases=repeats)
        released, clean, images = _rows(asked, asked.fit)
        held_released, held_clean, held_images = _rows(asked, asked.held_out)
        found = stand_ins(clean, released)
        errors = [float((one.expected(held_clean) - held_released).square().sum()) for one in found]
        best = min(range(len(found)), key=errors.__getitem__, default=None)
        return Practice(
            asked,
            known,
            released,
            clean,
            images,
            held_released,
            held_clean,
            held_images,
            None if best is None else found[best],
            Judge(held_images, held.recogniser),
        )

    def batches(self, size: int, rng: Rng) -> Draw:
        """Batches of features and their pictures: a quarter real, the rest from the stand-in."""
        real = size if self.stand_in is None else max(1, int(REAL * size))
        generator, turns = rng.torch(), itertools.count()

        def draw() -> tuple[Tensor, Tensor]:
            i = torch.randint(len(self.released), (real,), generator=generator)
            features, images = self.released[i], self.images[i]
            if self.stand_in is None:
                return features, images
            j = torch.randint(len(self.known.images), (size - real,), generator=generator)
            made = self.stand_in.draw(self.known.features[j], rng.derive("offsets", next(turns)))
            return torch.cat([features, made]), torch.cat([images, self.known.images[j]])

        return draw

    @torch.no_grad()
    def error(self, decoder: nn.Module) -> float:
        """The judge's error of a decoder on held-out releases."""
        return self.judge.error(in_chunks(decoder, self.held_released, 64))


def _rows(asked: Pairs, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Releases of these pictures, their clean features and they themselves, release by release."""
    count = len(asked.released)
    released = asked.released[:, index].flatten(0, 1)
    return (
        released,
        torch.cat([asked.clean[index]] * count),
        torch.cat([asked.images[index]] * count),
    )
