"""adaptive-generator: decoders of other architectures, seeds and losses than a defence met."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, final

import torch
from torch import nn

from leakaudit.attacks.adaptive_decoder import DecoderReady, Trained, fitted, trained_on
from leakaudit.attacks.base import Attack, Queries, ReadyAttack
from leakaudit.attacks.learnt import Lessons, learn
from leakaudit.attacks.pairs import learnable
from leakaudit.attacks.practice import Practice
from leakaudit.attacks.ridge import first_release
from leakaudit.core.checks import at_least
from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, BlackBox, ThreatModel
from leakaudit.maths.chunks import in_chunks
from leakaudit.models.decoder import Decoder, DecoderTraining, train_decoder
from leakaudit.models.eigenfaces import eigenfaces
from leakaudit.models.mixing_decoder import mixing_decoder

NARROW = 32
"""Channels of the convolutional decoder; the one of ``blackbox-decoder`` has 64."""


def _by_absolute_error(steps: int, batch: int, rate: float, patience: int) -> DecoderTraining:
    return DecoderTraining(steps=steps, batch=batch, rate=rate, loss="l1", patience=patience)


@final
@dataclass(frozen=True)
class AdaptiveGenerator(Attack):
    """Two other decoders on releases of public pictures; the judge takes the better one.

    One is convolutional with its own width, seed and the absolute error for a loss: trained on
    clean pairs, then trained on as ``adaptive-decoder`` does. The other mixes all elements: the
    best closed-form map from release to the latents of ``components`` eigenfaces, then a correction
    by convolutions. A defence made against one decoder is no defence against another.
    Source: Crafter (NDSS 2024), adaptive adversary A2; the architectures are ours.
    """

    name: ClassVar[str] = "adaptive-generator"
    holds: ClassVar[type[ThreatModel]] = AdaptiveBlackBox
    source: ClassVar[str] = "Crafter, NDSS 2024, A2"

    queries: int = 128
    repeats: int = 1
    pairs: int = 1000
    components: int = 256
    clean: DecoderTraining = field(default_factory=partial(_by_absolute_error, 200, 32, 2e-3, 0))
    training: DecoderTraining = field(default_factory=partial(_by_absolute_error, 60, 24, 1e-3, 4))

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries, pairs=self.pairs)
        at_least(self.name, 1, repeats=self.repeats, components=self.components)
        at_least(self.name, 1, patience=self.training.patience)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence and trains both decoders."""
        assert isinstance(held, AdaptiveBlackBox)
        practice = Practice.of(held, queries=self.queries, repeats=self.repeats, pairs=self.pairs)
        found = [
            self._convolutional(held, practice, rng.derive("convolutional")),
            self._mixing(practice, rng.derive("mixing")),
        ]
        best = min(found, key=lambda one: one.error)
        return DecoderReady(best, passes=len(held.public) + self.queries)

    def queries_ahead(self) -> Queries:
        """Each picture ``repeats`` times."""
        return Queries(self.queries, self.repeats)

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """One decoder on clean pairs, two on releases, and half a dozen regressions."""
        count = min(self.pairs, public)
        pictures = self.clean.steps * self.clean.batch
        pictures += 2 * self.training.steps * self.training.batch
        steps = pictures / DecoderTraining().batch
        return Cost(encodes=public + self.queries, decoder_steps=steps, solves=(count,) * 4)

    def _convolutional(self, held: BlackBox, practice: Practice, rng: Rng) -> Trained:
        def make() -> nn.Module:
            seen = learnable(held.public)
            with torch.no_grad():
                features = in_chunks(held.query, seen, 128)
            narrow = partial(Decoder, width=NARROW)
            return train_decoder(
                features, seen, training=self.clean, rng=rng.derive("clean"), make=narrow
            )[0]

        decoder = held.shared("narrow decoder", make)
        return trained_on(decoder, practice, training=self.training, rng=rng)

    def _mixing(self, practice: Practice, rng: Rng) -> Trained:
        asked, known = practice.asked, practice.known
        faces = eigenfaces(known.images, self.components)
        more = known.features, faces.project(known.images)
        lessons = Lessons.through(first_release, asked, faces.project(asked.images), more=more)
        stem = learn(lessons, {})[0]
        decoder = mixing_decoder(stem.trial, faces, rng=rng.derive("init"))
        label = f"a mixing decoder, {stem.label}"
        return fitted(label, decoder, practice, training=self.training, rng=rng)
