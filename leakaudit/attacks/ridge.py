"""blackbox-ridge and adaptive-ridge: dense closed-form maps from feature to picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.attacks.base import Attack, Effort, Guess, Queries, ReadyAttack
from leakaudit.attacks.learnt import Judge, Learnt, Lessons, learn
from leakaudit.attacks.pairs import ORDER, Pairs, released_pairs
from leakaudit.attacks.stand_in import Map
from leakaudit.core.checks import at_least
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, AdaptiveWhiteBox, BlackBox, ThreatModel
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.ridge import Ridge

ELEMENTS = 100_000_000
"""Feature elements that a dense fit holds at most, so that large layers get fewer pictures."""


@final
@dataclass(frozen=True)
class BlackBoxRidge(Attack):
    """A dense ridge regression from feature to picture, fitted on public pairs in closed form.

    Seconds, no learning rate, and no idea of what lies beside what: where positions are scrambled
    or one quiet element carries the person it beats convolutions. ``pairs`` public pictures are
    used. Source: Hoerl and Kennard 1970, "Ridge regression".
    """

    name: ClassVar[str] = "blackbox-ridge"
    holds: ClassVar[type[ThreatModel]] = BlackBox
    source: ClassVar[str] = "Hoerl and Kennard 1970"

    pairs: int = 2000

    def __post_init__(self) -> None:
        at_least(self.name, 8, pairs=self.pairs)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Queries the encoder once for each picture and fits the map."""
        assert isinstance(held, BlackBox)
        known = CleanPairs.of(held, self.pairs)
        fitted = known.ridge(held)
        effort = Effort(
            steps=0,
            passes=len(known.images),
            curve=(1.0, fitted.error),
            note="curve: leave-one-out error on public pictures, of the mean one and of the map",
        )
        return MapReady(fitted, held.public.shape[1:], effort)


@final
@dataclass(frozen=True)
class AdaptiveRidge(Attack):
    """Ridge from release to picture, learnt from ``queries`` public pictures sent through.

    The map is chosen by held-out public pictures, as his recogniser sees them: the static ridge as
    it is; that with a correction fitted on its residuals; a ridge from scratch; and a ridge fitted
    on ``pairs`` clean pictures as a stand-in for the defence releases them, with and without the
    spread that it takes away. Few queries teach how a defence moves features, not how to turn them
    into pictures. Source: adaptive adversary A1 of Crafter (NDSS 2024), in closed form; the
    stand-in is ours.
    """

    name: ClassVar[str] = "adaptive-ridge"
    holds: ClassVar[type[ThreatModel]] = AdaptiveBlackBox
    source: ClassVar[str] = "Crafter, NDSS 2024, A1"

    queries: int = 128
    pairs: int = 2000

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries, pairs=self.pairs)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence and fits the maps."""
        assert isinstance(held, AdaptiveBlackBox)
        asked, known = asked_and_known(held, self.queries, self.pairs)
        pictures, more = asked.images.flatten(1), (known.features, known.images.flatten(1))
        lessons = Lessons.through(first_release, asked, pictures, more=more)
        judge = Judge.of(held, asked)
        found = learn(lessons, {"the static ridge": known.ridge(held)})
        best = judge.best(found, lessons.released[asked.held_out])
        return MapReady(best.apply, held.public.shape[1:], effort_of(best, asked, known, judge))

    def queries_ahead(self) -> Queries:
        """One release a picture."""
        return Queries(self.queries)


@final
@dataclass(frozen=True, eq=False)
class CleanPairs:
    """Public pictures (M, 3, H, W) and their undefended features (M, ...).

    ``start`` is where they begin in the common order of the public pictures: queries are taken
    from its beginning, these from its end, and the first ``spared`` ones never.
    """

    images: Tensor
    features: Tensor
    start: int

    @staticmethod
    def of(
        held: BlackBox | AdaptiveWhiteBox, pairs: int, *, spared: int = 0, batch: int = 64
    ) -> CleanPairs:
        """``pairs`` of them, or fewer where there are fewer or features are large."""
        ask = held.encoder if isinstance(held, AdaptiveWhiteBox) else held.query
        if len(held.public) - spared < 8:
            raise UsageError(f"A ridge needs at least {8 + spared} public pictures")
        with torch.no_grad():
            count = min(pairs, max(8, ELEMENTS // ask(held.public[:1]).numel()))
            order = torch.randperm(len(held.public), generator=ORDER.torch())
            start = max(spared, len(order) - count)
            images = held.public[order[start:].to(held.public.device)]
            features = held.shared(
                f"clean features from {start}",
                lambda: in_chunks(ask, images, batch),
            )
        return CleanPairs(images, features, start)

    def ridge(self, held: ThreatModel) -> Ridge:
        """The static map from these features to these pictures."""
        return held.shared(
            f"ridge from {self.start}", lambda: Ridge.fit(self.features, self.images.flatten(1))
        )


def asked_and_known(
    held: AdaptiveBlackBox | AdaptiveWhiteBox, queries: int, pairs: int, *, releases: int = 1
) -> tuple[Pairs, CleanPairs]:
    """Public pictures sent through the defence, and clean ones; none of these is held out there."""
    asked = released_pairs(held, queries, releases=releases)
    return asked, CleanPairs.of(held, pairs, spared=len(asked.held_out))


def first_release(releases: Tensor) -> Tensor:
    """One look: the first of releases (K, N, ...)."""
    return releases[0]


def effort_of(best: Learnt, asked: Pairs, known: CleanPairs, judge: Judge) -> Effort:
    """What choosing a map to pictures in closed form took, and how good the chosen one is."""
    mean = asked.images[asked.fit].flatten(1).mean(0, keepdim=True)
    return Effort(
        steps=0,
        passes=len(known.images) + len(asked.images),
        curve=(judge.error(mean.expand(len(judge.images), -1)), best.error),
        note=f"{best.label}; curve: error on public pictures, of the mean one and of the map",
    )


@final
class MapReady(ReadyAttack):
    """A map from features, or from several releases of each, to rows of pixels."""

    def __init__(self, apply: Map, shape: torch.Size, effort: Effort) -> None:
        self._apply, self._shape, self._effort = apply, shape, effort

    @torch.no_grad()
    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Pictures (N, 3, H, W); a closed-form map has no loss of its own on a private feature."""
        rows = self._apply(features).clamp(0, 1)
        images = rows.view(len(rows), *self._shape)
        return Guess(images, None, self._effort)
