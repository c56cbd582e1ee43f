"""linkage: name the person from the feature itself; no picture is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.attacks.averaging import ways_for
from leakaudit.attacks.base import (
    Attack,
    Effort,
    Guess,
    Queries,
    ReadyAttack,
    last_change,
    settled,
)
from leakaudit.attacks.linkage_learning import SINGLE, Known, Taught, study, teach_best_way
from leakaudit.attacks.linkage_network import NetworkTraining
from leakaudit.attacks.ridge import CleanPairs
from leakaudit.attacks.stand_in import Map
from leakaudit.core.checks import at_least
from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, BlackBox, ThreatModel


@final
@dataclass(frozen=True)
class Linkage(Attack):
    """Embeddings from features, by a map learnt on ``pairs`` public people; no picture is made.

    Candidates are ridges on the elements, on pooled maps and on a bag of channel statistics, and a
    small network; the one is chosen whose answers stand nearest to the right pictures among all
    public ones, by public people held out. Source: FaceLinkGen (arXiv 2602.02914); Feature2ID
    of Crafter (NDSS 2024) without any private person.
    """

    name: ClassVar[str] = "linkage"
    holds: ClassVar[type[ThreatModel]] = BlackBox
    source: ClassVar[str] = "FaceLinkGen, arXiv 2602.02914"
    needs: ClassVar[tuple[str, ...]] = ("recogniser",)

    pairs: int = 2000
    network: NetworkTraining = field(default_factory=NetworkTraining)

    def __post_init__(self) -> None:
        at_least(self.name, 20, pairs=self.pairs)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Queries the encoder and the recogniser once for each picture, and fits the maps."""
        assert isinstance(held, BlackBox)
        pairs = CleanPairs.of(held, self.pairs)
        known = Known.of(held, pairs, rng, self.network)
        return LinkReady(known.static.link, effort_of(known.static, len(pairs.images)))

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """A query a picture, and four regressions."""
        return learning_cost(min(self.pairs, public))


@final
@dataclass(frozen=True)
class AdaptiveLinkage(Attack):
    """``linkage`` learnt on what the defence releases of ``queries`` public pictures.

    The static map is a candidate, as it is, centred on releases and with a ridge correction; beside
    it stand ridges from scratch, and one fitted on ``pairs`` clean pictures as a stand-in for the
    defence releases them; all look at the release or at its magnitudes. A third of the queried
    pictures chooses, by the measure of ``linkage``. Source: FaceLinkGen (arXiv 2602.02914)
    as adaptive adversary A1 of Crafter (NDSS 2024).
    """

    name: ClassVar[str] = "adaptive-linkage"
    holds: ClassVar[type[ThreatModel]] = AdaptiveBlackBox
    source: ClassVar[str] = "FaceLinkGen, arXiv 2602.02914, as A1 of Crafter"
    needs: ClassVar[tuple[str, ...]] = ("recogniser",)

    queries: int = 128
    pairs: int = 2000
    network: NetworkTraining = field(default_factory=NetworkTraining)

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries)
        at_least(self.name, 20, pairs=self.pairs)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence and fits the maps."""
        assert isinstance(held, AdaptiveBlackBox)
        asked, embeddings, known = study(held, rng, self.queries, self.pairs, self.network)
        taught, way = teach_best_way(SINGLE, asked, embeddings, known)
        effort = effort_of(taught, len(known.features) + len(asked.images))
        return LinkReady(lambda features: taught.link(way(features[None])), effort)

    def queries_ahead(self) -> Queries:
        """One release a picture."""
        return Queries(self.queries)

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """Queries, and the regressions of ``linkage`` and of a stand-in."""
        return learning_cost(min(self.pairs, public), queries=self.queries)


@final
@dataclass(frozen=True)
class AdaptiveAveragingLinkage(Attack):
    """``adaptive-linkage`` on ``releases`` of each attacked picture made into one.

    Ways of averaging as in ``adaptive-averaging``: mean, magnitudes, median, union of non-zeros,
    each also after dividing out each release's norm; a small fit to each chooses one. A person can
    be named from averaged releases that show no picture. Source: FaceLinkGen (arXiv 2602.02914) as
    adaptive adversary A3 of Crafter (NDSS 2024).
    """

    name: ClassVar[str] = "adaptive-averaging-linkage"
    holds: ClassVar[type[ThreatModel]] = AdaptiveBlackBox
    source: ClassVar[str] = "FaceLinkGen, arXiv 2602.02914, as A3 of Crafter"
    needs: ClassVar[tuple[str, ...]] = ("recogniser",)

    queries: int = 48
    releases: int = 8
    pairs: int = 2000
    network: NetworkTraining = field(default_factory=NetworkTraining)

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries)
        at_least(self.name, 1, releases=self.releases)
        at_least(self.name, 20, pairs=self.pairs)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence several times and fits the maps."""
        assert isinstance(held, AdaptiveBlackBox)
        asked, embeddings, known = study(
            held, rng, self.queries, self.pairs, self.network, releases=self.releases
        )
        ways = ways_for(known.features)
        taught, way = teach_best_way(ways, asked, embeddings, known)
        effort = effort_of(taught, len(known.features) + len(asked.images))
        return LinkReady(lambda releases: taught.link(way(releases)), effort)

    def looks(self) -> int:
        """So many releases of each attacked picture."""
        return self.releases

    def queries_ahead(self) -> Queries:
        """Each picture several times."""
        return Queries(self.queries, self.releases)

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """Queries, and the regressions of ``linkage`` and of a stand-in."""
        return learning_cost(min(self.pairs, public), queries=self.queries)


@final
class LinkReady(ReadyAttack):
    """A learnt map from what is seen of faces to unit embeddings."""

    def __init__(self, embed: Map, effort: Effort) -> None:
        self._embed, self._effort = embed, effort

    @torch.no_grad()
    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Unit embeddings (N, d); a learnt map has no loss of its own on a private feature."""
        return Guess(None, None, self._effort, embeddings=self._embed(features))


def effort_of(taught: Taught, passes: int) -> Effort:
    """What learning took, and how the confusion fell; a chosen network must have settled."""
    return Effort(
        steps=0,
        passes=passes,
        curve=taught.curve,
        last_change=last_change(taught.checks),
        converged=settled(taught.checks) if taught.checks else True,
        note=f"{taught.link.label}; curve: confusion among public people, map by map",
    )


def learning_cost(pairs: int, *, queries: int = 0) -> Cost:
    """Clean queries, the regressions of the static map, and with ``queries`` that of a stand-in."""
    more = (pairs + queries,) if queries else ()
    return Cost(encodes=pairs + queries, solves=(pairs,) * 4 + more)
