"""adaptive-purifier: learn the way from releases back to clean features, then attack statically."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.attacks.averaging import seen_through, shortlist, static_maps, ways_for
from leakaudit.attacks.base import Attack, Guess, Queries, ReadyAttack, prepared
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.attacks.learnt import Aggregate, Judge, Learnt, Lessons
from leakaudit.attacks.pairs import Pairs
from leakaudit.attacks.ridge import (
    CleanPairs,
    MapReady,
    asked_and_known,
    effort_of,
    first_release,
)
from leakaudit.attacks.stand_in import Map
from leakaudit.attacks.way_back import ways_back
from leakaudit.core.checks import at_least
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, AdaptiveWhiteBox, ThreatModel


@final
@dataclass(frozen=True)
class AdaptivePurifier(Attack):
    """Maps the release back to a clean feature and hands that to the static decoder.

    The purifier is chosen by the public pictures held out: the release as it is; that with a ridge
    correction; a ridge from scratch; a 3x3 convolution, with and without a ridge after it; each
    element from the most correlated one; and a ridge on the releases of a stand-in for the defence.
    Where the static ridge makes a better picture than the decoder it is taken instead.
    Source: adaptive adversary A1 of Crafter (NDSS 2024) on features, "sensitive feature
    distillation"; the closed forms are ours.
    """

    name: ClassVar[str] = "adaptive-purifier"
    holds: ClassVar[type[ThreatModel]] = AdaptiveBlackBox
    source: ClassVar[str] = "Crafter, NDSS 2024, A1 on features"

    queries: int = 128
    pairs: int = 2000

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries, pairs=self.pairs)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence and fits the purifiers."""
        assert isinstance(held, AdaptiveBlackBox)
        asked, known = asked_and_known(held, self.queries, self.pairs)
        static = static_maps(held, known, rng)
        judge = Judge.of(held, asked)
        best = _best(asked, known, {"one release": first_release}, static, judge)
        effort = effort_of(best, asked, known, judge)
        return MapReady(lambda f: best.apply(f[None]), held.public.shape[1:], effort)

    def queries_ahead(self) -> Queries:
        """One release a picture."""
        return Queries(self.queries)


@final
@dataclass(frozen=True)
class AdaptiveAveragingPurifier(Attack):
    """Averages ``releases`` of each attacked picture, purifies, and decodes statically.

    Ways of averaging as in ``adaptive-averaging``, purifiers as in ``adaptive-purifier``; both are
    chosen by the public pictures held out. Source: adaptive adversaries A1 and A3 of Crafter (NDSS
    2024) together.
    """

    name: ClassVar[str] = "adaptive-averaging-purifier"
    holds: ClassVar[type[ThreatModel]] = AdaptiveBlackBox
    source: ClassVar[str] = "Crafter, NDSS 2024, A1 and A3"

    queries: int = 48
    releases: int = 8
    pairs: int = 2000

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries, pairs=self.pairs)
        at_least(self.name, 1, releases=self.releases)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence several times and fits the purifiers."""
        assert isinstance(held, AdaptiveBlackBox)
        asked, known = asked_and_known(held, self.queries, self.pairs, releases=self.releases)
        ways = ways_for(known.features)
        judge = Judge.of(held, asked)
        best = _best(asked, known, ways, static_maps(held, known, rng), judge)
        return MapReady(best.apply, held.public.shape[1:], effort_of(best, asked, known, judge))

    def looks(self) -> int:
        """So many releases of each attacked picture."""
        return self.releases

    def queries_ahead(self) -> Queries:
        """Each picture several times."""
        return Queries(self.queries, self.releases)


@final
@dataclass(frozen=True)
class AdaptivePurifierLatent(Attack):
    """Maps the release back to a clean feature and searches the prior for its face.

    The purifiers are those of ``adaptive-purifier``; the one with the least error in the feature is
    taken. Source: adaptive adversary A1 of Crafter (NDSS 2024) on features, before its Eq. 13.
    """

    name: ClassVar[str] = "adaptive-purifier-latent"
    holds: ClassVar[type[ThreatModel]] = AdaptiveWhiteBox
    source: ClassVar[str] = "Crafter, NDSS 2024, A1 on features, Eq. 13"

    queries: int = 128
    pairs: int = 2000

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries, pairs=self.pairs)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence, fits the purifiers, prepares the search."""
        assert isinstance(held, AdaptiveWhiteBox)
        asked, known = asked_and_known(held, self.queries, self.pairs)
        lessons = _to_features(first_release, asked, known)
        best = ways_back(lessons)[0]
        search = WhiteBoxLatent()
        ready = prepared(search, held, rng.derive(search.name))
        return _BeforeSearch(ready, best, known.features.shape[1:])

    def queries_ahead(self) -> Queries:
        """One release a picture."""
        return Queries(self.queries)

    def passes_ahead(self, faces: int) -> int:
        """Those of the search."""
        return WhiteBoxLatent().passes_ahead(faces)


@final
class _BeforeSearch(ReadyAttack):
    def __init__(self, search: ReadyAttack, purifier: Learnt, shape: torch.Size) -> None:
        self._search, self._purifier, self._shape = search, purifier, shape

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Faces of the prior; the loss is the distance to the purified feature."""
        with torch.no_grad():
            clean = self._purifier.apply(features).view(len(features), *self._shape)
        found = self._search.reconstruct(clean, rng)
        note = f"{self._purifier.label}; {found.effort.note}"
        return replace(found, effort=replace(found.effort, note=note))


def _to_features(view: Aggregate, asked: Pairs, known: CleanPairs) -> Lessons:
    more = known.features, known.features.flatten(1)
    return Lessons.through(view, asked, asked.clean.flatten(1), more=more)


def _best(
    asked: Pairs,
    known: CleanPairs,
    ways: Mapping[str, Aggregate],
    static: Mapping[str, Map],
    judge: Judge,
) -> Learnt:
    """The way of averaging, way back and static map that the judge likes best, for (K, N, ...)."""
    shape, rows = known.features.shape[1:], asked.clean.flatten(1)
    more = known.features, known.features.flatten(1)
    found = [
        seen_through(ways[label], label, _then(back, attack, name, shape))
        for label in shortlist(asked, rows, ways, more=more, static={})
        for back in ways_back(_to_features(ways[label], asked, known))
        for name, attack in static.items()
    ]
    return judge.best(found, asked.released[:, asked.held_out])


def _then(back: Learnt, attack: Map, name: str, shape: torch.Size) -> Learnt:
    """A way back, and a static map from features to pictures after it."""

    def chained(way: Map) -> Map:
        return lambda f: attack(way(f).view(len(f), *shape))

    told = f"{back.label}, {name}"
    trial, apply = chained(back.trial), chained(back.apply)
    return Learnt(told, back.error, trial, apply, static=back.static)
