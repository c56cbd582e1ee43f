"""adaptive-decoder: the static decoder, trained on with what the defence releases."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from leakaudit.attacks.base import (
    Attack,
    Effort,
    Guess,
    Queries,
    ReadyAttack,
    last_change,
    prepared,
    settled,
)
from leakaudit.attacks.decoder import BlackBoxDecoder, DecoderTrained
from leakaudit.attacks.practice import Practice
from leakaudit.attacks.stand_in import Map, are_maps, can_rearrange, filtered, rearranged
from leakaudit.core.checks import at_least
from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, BlackBox, ThreatModel
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.ridge import Ridge
from leakaudit.models.decoder import (
    DecoderTraining,
    fit_decoder,
    moments,
    new_decoder,
    picture_loss,
)

DENSE = 1000
"""Clean pictures on which the dense map back to the clean feature is fitted."""


@final
@dataclass(frozen=True)
class AdaptiveDecoder(Attack):
    """Continues the trained decoder on pairs ``(F*(x), x)`` of ``queries`` public pictures.

    It starts where the held-out public pictures are seen best: from the decoder as it is, or behind
    a map back to the clean feature in closed form (moments matched, a 3x3 convolution, elements
    rearranged, a ridge correction, a dense ridge). Few pairs overfit, so a quarter of each batch is
    real, and a stand-in for the defence releases the rest from ``pairs`` clean pictures. The best
    of the looks at held-out pictures is kept, the start among them.
    Source: Crafter (NDSS 2024), adaptive adversary A1, which trains for 70 more epochs on real
    pairs; starts and stand-in are ours.
    """

    name: ClassVar[str] = "adaptive-decoder"
    holds: ClassVar[type[ThreatModel]] = AdaptiveBlackBox
    source: ClassVar[str] = "Crafter, NDSS 2024, A1"

    queries: int = 128
    repeats: int = 1
    pairs: int = 2000
    static: DecoderTraining = field(default_factory=DecoderTraining)
    training: DecoderTraining = field(
        default_factory=lambda: DecoderTraining(steps=80, batch=24, rate=1e-3, patience=4)
    )

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries, pairs=self.pairs)
        at_least(self.name, 1, repeats=self.repeats, patience=self.training.patience)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence and trains on."""
        assert isinstance(held, AdaptiveBlackBox)
        asked = Practice.of(held, queries=self.queries, repeats=self.repeats, pairs=self.pairs)
        decoder = _static_decoder(held, self.static, rng.derive("static"))
        best = trained_on(decoder, asked, training=self.training, rng=rng.derive("trained on"))
        return DecoderReady(best, passes=len(held.public) + self.queries)

    def queries_ahead(self) -> Queries:
        """Each picture ``repeats`` times."""
        return Queries(self.queries, self.repeats)

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """The static decoder, a few regressions, and half-sized steps of training on."""
        steps = self.static.steps + self.training.steps * self.training.batch / self.static.batch
        count = min(DENSE, public)
        return Cost(encodes=public + self.queries, decoder_steps=steps, solves=(count, count))


@final
@dataclass(frozen=True, eq=False)
class Trained:
    """A decoder of releases, the judge's ``error`` of it, and held-out losses along the way."""

    label: str
    decoder: nn.Module
    error: float
    curve: tuple[float, ...]
    steps: int
    stopped: bool


@final
class Behind(nn.Module):
    """A decoder behind a fixed map from releases (N, ...) to features of this shape."""

    def __init__(self, back: Map, shape: torch.Size, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

        @torch.no_grad()
        def apply(features: Tensor) -> Tensor:
            return back(features).view(-1, *shape)

        self._back = apply  # a closure, so that a copy to be trained shares the map

    def forward(self, features: Tensor) -> Tensor:
        """Pictures (N, 3, H, W)."""
        pictures: Tensor = self.decoder(self._back(features))
        return pictures


def _static_decoder(held: BlackBox, training: DecoderTraining, rng: Rng) -> nn.Module:
    """The decoder of the static attack, trained once for all who ask for it."""
    attack = BlackBoxDecoder(training=training)
    ready = prepared(attack, held, rng)
    assert isinstance(ready, DecoderTrained)
    return ready.decoder


def trained_on(
    decoder: nn.Module, practice: Practice, *, training: DecoderTraining, rng: Rng
) -> Trained:
    """A decoder of clean features, trained on with releases from its best start.

    The judge decides between that start and what became of it.
    """
    shape = practice.clean.shape[1:]
    starts = {label: Behind(back, shape, decoder) for label, back in _ways_back(practice)}
    if not starts:  # releases have another shape, and nothing tells how they follow from features
        size = practice.images.shape[-1]
        fresh = new_decoder(practice.released, size=size, rng=rng.derive("init"))
        return fitted("a decoder from scratch", fresh, practice, training=training, rng=rng)
    errors = {label: practice.error(start) for label, start in starts.items()}
    label = min(errors, key=errors.__getitem__)
    return fitted(label, starts[label], practice, training=training, rng=rng)


def fitted(
    label: str, start: nn.Module, practice: Practice, *, training: DecoderTraining, rng: Rng
) -> Trained:
    """The decoder ``start``, or it trained on with releases if the judge likes that better."""
    later = copy.deepcopy(start)
    draw = practice.batches(training.batch, rng.derive("batches"))
    seen, true = practice.held_released, practice.held_images
    log = fit_decoder(later, draw, seen, true, training=training)
    mean = practice.images.mean(0).expand_as(true)
    losses = [float(picture_loss(mean, true, training).mean()), *log.held_out]
    before, after = practice.error(start), practice.error(later)
    chosen, error = (later, after) if after <= before else (start, before)
    told = f"{label}, {'trained on' if after <= before else 'not trained on'}"
    curve = tuple(min(losses[: k + 1]) for k in range(len(losses)))
    return Trained(told, chosen, error, curve, len(log.curve), len(log.curve) < training.steps)


def _ways_back(practice: Practice) -> Iterator[tuple[str, Map]]:
    """Maps from releases (N, ...) to clean features, each fitted on the pairs to fit."""
    released, clean, known = practice.released, practice.clean, practice.known.features
    if released.shape == clean.shape:
        yield "the release as it is", lambda f: f
        yield "moments matched", _moments_matched(released, known)
        correction = Ridge.fit(released, (clean - released).flatten(1))
        yield "a correction", lambda f: f.flatten(1) + correction(f)
    if are_maps(released, clean):
        yield "filtered back", filtered(released, clean)
    if can_rearrange(released, clean):
        yield "rearranged back", rearranged(released, clean)
    if practice.stand_in is not None:
        dense = Ridge.fit_shifted(
            practice.stand_in.expected(known[:DENSE]),
            known[:DENSE].flatten(1),
            offsets=practice.stand_in.offsets,
            judges=(practice.held_released, practice.held_clean.flatten(1)),
        )
        yield f"a ridge on a stand-in, {practice.stand_in.label}", dense


def _moments_matched(released: Tensor, clean: Tensor) -> Map:
    (mean, deviation), (clean_mean, clean_deviation) = moments(released), moments(clean)
    return lambda f: (f - mean) / deviation * clean_deviation + clean_mean


@final
class DecoderReady(ReadyAttack):
    """A trained decoder of releases."""

    def __init__(self, trained: Trained, *, passes: int, batch: int = 64) -> None:
        self._decoder, self._batch = trained.decoder.eval().requires_grad_(False), batch
        self._effort = Effort(
            steps=trained.steps,
            passes=passes,
            curve=trained.curve,
            last_change=last_change(trained.curve),
            converged=trained.stopped or settled(trained.curve),
            note=f"{trained.label}; curve: least loss so far on held-out public pictures, of the "
            "mean picture first",
        )

    @torch.no_grad()
    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Pictures (N, 3, H, W); a decoder has no loss of its own on a private feature."""
        images = in_chunks(self._decoder, features, self._batch)
        return Guess(images, None, self._effort)
