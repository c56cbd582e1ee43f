"""adaptive-averaging: many releases of one picture made into one, in the way that shows most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from leakaudit.attacks.base import Attack, Queries, ReadyAttack, prepared
from leakaudit.attacks.decoder import BlackBoxDecoder
from leakaudit.attacks.learnt import SCREENED, Aggregate, Judge, Learnt, Lessons, learn
from leakaudit.attacks.pairs import Pairs
from leakaudit.attacks.ridge import CleanPairs, MapReady, asked_and_known, effort_of
from leakaudit.attacks.stand_in import Map
from leakaudit.core.checks import at_least
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, BlackBox, ThreatModel

FINALISTS, CLOSE = 2, 1.2
"""Ways of averaging that are learnt from in full, after all were compared in small: so many, as far
as their errors lie within this factor of the best one's."""


@final
@dataclass(frozen=True)
class AdaptiveAveraging(Attack):
    """Looks at ``releases`` of each attacked picture; averages them, then inverts.

    Averaging is a family: mean, mean of magnitudes, median, union of non-zeros, each also after
    dividing out each release's norm. ``queries`` public pictures, released as often, show which one
    a map to the picture is learnt from best; the maps are those of ``adaptive-ridge``, and the
    static decoder is one more. Source: adaptive adversary A3 of Crafter (NDSS 2024); the family
    and the choice are ours.
    """

    name: ClassVar[str] = "adaptive-averaging"
    holds: ClassVar[type[ThreatModel]] = AdaptiveBlackBox
    source: ClassVar[str] = "Crafter, NDSS 2024, A3"

    queries: int = 48
    releases: int = 8
    pairs: int = 2000

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries, pairs=self.pairs)
        at_least(self.name, 1, releases=self.releases)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence several times, and fits the maps."""
        assert isinstance(held, AdaptiveBlackBox)
        asked, known = asked_and_known(held, self.queries, self.pairs, releases=self.releases)
        more, pictures = (known.features, known.images.flatten(1)), asked.images.flatten(1)
        static = static_maps(held, known, rng)
        ways = ways_for(known.features)
        judge = Judge.of(held, asked)
        found = [
            seen_through(ways[label], label, one)
            for label in shortlist(asked, pictures, ways, more=more, static=static)
            for one in learn(Lessons.through(ways[label], asked, pictures, more=more), static)
        ]
        best = judge.best(found, asked.released[:, asked.held_out])
        return MapReady(best.apply, held.public.shape[1:], effort_of(best, asked, known, judge))

    def looks(self) -> int:
        """So many releases of each attacked picture."""
        return self.releases

    def queries_ahead(self) -> Queries:
        """Each picture several times."""
        return Queries(self.queries, self.releases)


def seen_through(view: Aggregate, label: str, one: Learnt) -> Learnt:
    """The same map for releases (K, N, ...) that ``view`` makes one of."""
    return Learnt(
        f"{label}, {one.label}",
        one.error,
        lambda releases: one.trial(view(releases)),
        lambda releases: one.apply(view(releases)),
        static=one.static,
    )


def static_maps(held: BlackBox, known: CleanPairs, rng: Rng) -> dict[str, Map]:
    """What turns clean features into pictures as rows: the static ridge and the static decoder."""
    attack = BlackBoxDecoder()
    ready = prepared(attack, held, rng.derive(attack.name))

    def decode(features: Tensor) -> Tensor:
        images = ready.reconstruct(features, rng).images
        assert images is not None
        return images.flatten(1)

    return {"the static ridge": known.ridge(held), "the static decoder": decode}


def shortlist(
    asked: Pairs,
    targets: Tensor,
    ways: Mapping[str, Aggregate],
    *,
    more: tuple[Tensor, Tensor],
    static: Mapping[str, Map],
) -> list[str]:
    """The ways of averaging that are worth learning from in full, by what a small fit reaches."""
    if len(ways) <= FINALISTS:
        return list(ways)
    few = more[0][:SCREENED], more[1][:SCREENED]
    tried = {}
    for label, view in ways.items():
        lessons = Lessons.through(view, asked, targets, more=few)
        tried[label] = learn(lessons, static, thorough=False)[0].error
    ranked = sorted(tried, key=tried.__getitem__)[:FINALISTS]
    return [label for label in ranked if tried[label] <= CLOSE * tried[ranked[0]]]


def ways_for(clean: Tensor) -> dict[str, Aggregate]:
    """The family for an encoder with these clean features (M, ...), whose mean norm is given."""
    return ways_of_averaging(float(clean.flatten(1).norm(dim=1).mean()))


def ways_of_averaging(size: float) -> dict[str, Aggregate]:
    """The family; ``size`` is the norm that releases get where theirs is divided out."""
    plain: dict[str, Aggregate] = {
        "mean": lambda r: r.mean(0),
        "mean of magnitudes": lambda r: r.abs().mean(0),
        "median": _median,
        "union of non-zeros": _union,
    }
    normed: dict[str, Aggregate] = {
        f"{label} of releases of one norm": _after_norm(way, size) for label, way in plain.items()
    }
    return plain | normed


def _after_norm(way: Aggregate, size: float) -> Aggregate:
    return lambda r: way(_of_norm(r, size))


def _median(releases: Tensor) -> Tensor:
    ranked, count = releases.sort(0).values, len(releases)
    return 0.5 * (ranked[(count - 1) // 2] + ranked[count // 2])


def _union(releases: Tensor) -> Tensor:
    """The mean over the releases in which an element isn't zero."""
    return releases.sum(0) / (releases != 0).sum(0).clamp(min=1)


def _of_norm(releases: Tensor, size: float) -> Tensor:
    norms = releases.flatten(2).norm(dim=2).clamp(min=1e-12)
    return releases * (size / norms).view(*norms.shape, *[1] * (releases.dim() - 2))
