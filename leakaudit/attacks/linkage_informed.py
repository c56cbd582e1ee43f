"""linkage-classifier and linkage-gallery: naming people of whom other pictures are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.attacks.base import Attack, Effort, Guess, Queries, ReadyAttack
from leakaudit.attacks.learnt import Aggregate
from leakaudit.attacks.linkage import effort_of, learning_cost
from leakaudit.attacks.linkage_learning import SINGLE, Taught, embedded, study, teach_best_way
from leakaudit.attacks.linkage_naming import labelled, naming
from leakaudit.attacks.linkage_network import NetworkTraining
from leakaudit.attacks.ridge import CleanPairs
from leakaudit.core.checks import at_least
from leakaudit.core.cost import Cost
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import Informed, ThreatModel


@final
@dataclass(frozen=True)
class LinkageClassifier(Attack):
    """Scores of names, by a classifier on labelled features of the people's other pictures.

    He sends at most ``pictures`` of those through the defence, ``releases`` times each. Candidates
    are regularised discriminant analysis, the nearest mean after whitening by ``pairs`` public
    people, and ridge regression to names; pictures left out choose. Source: FaceLinkGen (arXiv
    2602.02914), form (a); Feature2ID of Crafter (NDSS 2024).
    """

    name: ClassVar[str] = "linkage-classifier"
    holds: ClassVar[type[ThreatModel]] = Informed
    source: ClassVar[str] = "FaceLinkGen, arXiv 2602.02914"

    pictures: int = 1000
    releases: int = 1
    pairs: int = 1000

    def __post_init__(self) -> None:
        at_least(self.name, 2, pictures=self.pictures)
        at_least(self.name, 1, releases=self.releases)
        at_least(self.name, 8, pairs=self.pairs)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends the known pictures through the defence and fits the classifiers."""
        assert isinstance(held, Informed)
        _check_known(held)
        rows = _evenly(held.labels, self.pictures)
        others = CleanPairs.of(held, self.pairs)
        with torch.no_grad():
            released = held.release(held.known[rows], self.releases)
            gallery = int(held.labels.max()) + 1
            known, place = labelled(released, held.labels[rows], others.features, gallery=gallery)
            namer, curve, note = naming(known)
        effort = Effort(
            steps=0,
            passes=len(others.images) + len(rows) * self.releases,
            curve=curve,
            note=f"{note}; curve: confusion among known people, candidate by candidate",
        )
        return _Naming(lambda f: namer(place(f)), effort)

    def queries_ahead(self) -> Queries:
        """Each known picture so often."""
        return Queries(self.pictures, self.releases)

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """Clean queries, and coordinates of the labelled features."""
        return Cost(encodes=min(self.pairs, public) + self.pictures, solves=(self.pictures,))


@final
@dataclass(frozen=True)
class LinkageGallery(Attack):
    """Scores of names, by matching ``adaptive-linkage``'s embedding against a known gallery.

    The gallery is each person's mean embedding over his known pictures; none of these is sent
    anywhere. Where nothing is defended the releases are clean features. Source: FaceLinkGen (arXiv
    2602.02914), form (b).
    """

    name: ClassVar[str] = "linkage-gallery"
    holds: ClassVar[type[ThreatModel]] = Informed
    source: ClassVar[str] = "FaceLinkGen, arXiv 2602.02914"
    needs: ClassVar[tuple[str, ...]] = ("recogniser",)

    queries: int = 128
    pairs: int = 2000
    network: NetworkTraining = field(default_factory=NetworkTraining)

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries)
        at_least(self.name, 20, pairs=self.pairs)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Learns the map as ``adaptive-linkage`` does and embeds the gallery."""
        assert isinstance(held, Informed)
        _check_known(held)
        people = embedded(held, held.known)
        asked, embeddings, known = study(held, rng, self.queries, self.pairs, self.network)
        taught, way = teach_best_way(SINGLE, asked, embeddings, known)
        count = int(held.labels.max()) + 1
        sums = torch.zeros(count, people.shape[1], device=people.device)
        means = fn.normalize(sums.index_add(0, held.labels.to(people.device), people), dim=1)
        effort = effort_of(taught, len(known.features) + len(asked.images))
        return _Naming(_matching(taught, way, means), effort)

    def queries_ahead(self) -> Queries:
        """One release a picture."""
        return Queries(self.queries)

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """As ``adaptive-linkage``."""
        return learning_cost(min(self.pairs, public), queries=self.queries)


@final
class _Naming(ReadyAttack):
    def __init__(self, name: Callable[[Tensor], Tensor], effort: Effort) -> None:
        self._name, self._effort = name, effort

    @torch.no_grad()
    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Scores (N, people) by index of the gallery; no picture."""
        return Guess(None, None, self._effort, scores=self._name(features).float())


def _matching(taught: Taught, way: Aggregate, means: Tensor) -> Callable[[Tensor], Tensor]:
    """Cosines with the people of the gallery; who isn't known stands below all (a cosine of -2)."""
    there = means.square().sum(1) > 0.5

    def name(features: Tensor) -> Tensor:
        cosines = taught.link(way(features[None])) @ means.T
        return torch.where(there, cosines, torch.full_like(cosines, -2))

    return name


def _check_known(held: Informed) -> None:
    if len(torch.unique(held.labels)) < 2:
        raise UsageError(
            "Naming people needs other pictures of at least two of them",
            todo="Enrol more pictures, or leave the attacks out that hold Informed",
        )


def _evenly(labels: Tensor, most: int) -> Tensor:
    """Rows of at most ``most`` pictures, a first of each person, then a second, and so on."""
    nth = torch.zeros_like(labels)
    for person in torch.unique(labels):
        own = labels == person
        nth[own] = torch.arange(int(own.sum()), device=labels.device)
    return nth.argsort(stable=True)[:most]
