"""Closed-form maps learnt from few releases, and the choice among them by public pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from leakaudit.attacks.pairs import Pairs
from leakaudit.attacks.stand_in import Map, StandIn, stand_ins
from leakaudit.core.rng import Rng
from leakaudit.core.threats import ThreatModel
from leakaudit.maths.ridge import Ridge
from leakaudit.maths.spread import Spread

Aggregate = Callable[[Tensor], Tensor]
"""Releases (K, N, ...) of N pictures to one feature each, (N, ...)."""
SCREENED = 400
"""Clean pictures on which the stand-ins are compared before the best one gets all."""
WEIGHTS = (1.0, 10.0)
"""How much the observed offsets count: as if they were all there are, or a sample of many."""
DRAWS = Rng(0, ("attacks", "stand-in"))
"""Made-up releases are drawn alike for all; they are the adversary's own."""


@final
@dataclass(frozen=True, eq=False)
class Lessons:
    """What there is to learn from: few releases, and many clean features.

    ``released`` (Q, ...), ``clean`` (Q, ...) and ``targets`` (Q, k) are of the queried public
    pictures; rows ``fit`` are learnt from, rows ``held_out`` judge. ``more_clean`` (M, ...) and
    ``more_targets`` (M, k) are of further public pictures, none of them held out.
    """

    released: Tensor
    clean: Tensor
    targets: Tensor
    fit: Tensor
    held_out: Tensor
    more_clean: Tensor
    more_targets: Tensor

    @staticmethod
    def through(
        view: Aggregate, asked: Pairs, targets: Tensor, *, more: tuple[Tensor, Tensor]
    ) -> Lessons:
        """What ``asked`` teaches when releases are seen through ``view``, and clean ones too.

        ``more`` are further clean features, and targets.
        """
        clean, more_clean = view(asked.clean[None]), view(more[0][None])
        released = view(asked.released)
        return Lessons(released, clean, targets, asked.fit, asked.held_out, more_clean, more[1])


@final
@dataclass(frozen=True, eq=False)
class Learnt:
    """A map from releases (N, ...) to rows (N, k), and its mean squared error on held-out rows.

    ``trial`` is the map that was judged; ``apply`` may have learnt from the held-out rows since.
    A ``static`` one is that of an adversary who never asked the defence.
    """

    label: str
    error: float
    trial: Map
    apply: Map
    static: bool = False


def learn(lessons: Lessons, static: Mapping[str, Map], *, thorough: bool = True) -> list[Learnt]:
    """All maps, the one with the least error on held-out public pictures first.

    They are: the ``static`` ones as they are; the best of them with a ridge correction fitted on
    its residuals; a ridge from scratch; and a ridge fitted on the releases of a stand-in for the
    defence (``leakaudit.attacks.stand_in``), which few queries suffice for. Without
    ``thorough`` the stand-in is the plainest one in small: enough to compare ways of averaging.
    """
    same = lessons.released.shape[1:] == lessons.more_clean.shape[1:]
    known = static if same else {}  # a release of another shape is nothing that they could take
    found = [
        replace(judged(lessons, label, _as_it_is(apply)), static=True)
        for label, apply in known.items()
    ]
    best = min(found, key=lambda one: one.error, default=None)
    if best is not None:
        found.append(judged(lessons, f"{best.label} with a correction", _corrected(lessons, best)))
    found.append(judged(lessons, "ridge from scratch", _from_scratch(lessons)))
    found += _simulated(lessons, thorough=thorough)
    return sorted(found, key=lambda one: one.error)


def judged(lessons: Lessons, label: str, fit: Callable[[Tensor], Map]) -> Learnt:
    """Fits on the rows to fit, judges by the held-out ones, then fits on all of them."""
    trial, rest = fit(lessons.fit), lessons.held_out
    made = trial(lessons.released[rest])
    error = float((made - lessons.targets[rest]).square().mean())
    everything = torch.cat([lessons.fit, rest])
    return Learnt(label, error, trial, fit(everything))


def _as_it_is(apply: Map) -> Callable[[Tensor], Map]:
    return lambda rows: apply


def _corrected(lessons: Lessons, first: Learnt) -> Callable[[Tensor], Map]:
    def fit(rows: Tensor) -> Map:
        seen = lessons.released[rows]
        rest = Ridge.fit(seen, lessons.targets[rows] - first.apply(seen))
        return lambda f: first.apply(f) + rest(f)

    return fit


def _from_scratch(lessons: Lessons) -> Callable[[Tensor], Map]:
    return lambda rows: Ridge.fit(lessons.released[rows], lessons.targets[rows])


def _simulated(lessons: Lessons, *, thorough: bool) -> list[Learnt]:
    """Ridges on simulated releases: stand-ins compared in small, the best one in full."""
    rows = lessons.fit
    known = stand_ins(lessons.clean[rows], lessons.released[rows], thorough=thorough)
    weights = WEIGHTS if thorough else WEIGHTS[:1]
    small = [
        (_on_releases_of(one, lessons, weight, SCREENED), one, weight)
        for one in known
        for weight in weights
    ]
    if not small:
        return []
    best, chosen, weight = min(small, key=lambda tried: tried[0].error)
    if not thorough:
        return [best]
    full = _on_releases_of(chosen, lessons, weight, len(lessons.more_clean))
    return [full, _spread(full, chosen, lessons)]


def _on_releases_of(defence: StandIn, lessons: Lessons, weight: float, count: int) -> Learnt:
    judges = lessons.released[lessons.held_out], lessons.targets[lessons.held_out]
    fitted = Ridge.fit_shifted(
        defence.expected(lessons.more_clean[:count]),
        lessons.more_targets[:count],
        offsets=defence.offsets,
        judges=judges,
        weight=weight,
    )
    error = float(fitted.left_out.mean())
    return Learnt(f"ridge on a stand-in, {defence.label}", error, fitted, fitted)


def _spread(first: Learnt, defence: StandIn, lessons: Lessons) -> Learnt:
    """The same map, its predictions spread as the targets are."""
    released = defence.draw(lessons.more_clean[:SCREENED], DRAWS)
    spread = Spread.fit(first.apply(released), lessons.more_targets[:SCREENED])

    def apply(features: Tensor) -> Tensor:
        return spread(first.apply(features))

    gap = apply(lessons.released[lessons.held_out]) - lessons.targets[lessons.held_out]
    return Learnt(f"{first.label}, spread again", float(gap.square().mean()), apply, apply)


@final
@dataclass(frozen=True, eq=False)
class Judge:
    """How far pictures of held-out public people are from the true ones, ``images`` (H, 3, H, W).

    With a recogniser it is 1 less the mean cosine in the recogniser's space about the mean of the
    true: blurred pictures have small squared errors and look like nobody. Without one it is the
    mean squared error.
    """

    images: Tensor
    recogniser: Map | None

    @staticmethod
    def of(held: ThreatModel, asked: Pairs) -> Judge:
        """By the pictures that nothing is fitted on, and the adversary's recogniser."""
        return Judge(asked.images[asked.held_out], held.recogniser)

    @cached_property
    def _true(self) -> Tensor:
        """The true pictures as the recogniser sees them; they are looked at by every candidate."""
        assert self.recogniser is not None
        return self.recogniser(self.images)

    def error(self, rows: Tensor) -> float:
        """The error of pictures as rows (H, d)."""
        return float(self.errors(rows).mean())

    def errors(self, rows: Tensor) -> Tensor:
        """The error of each picture (H,)."""
        made = rows.clamp(0, 1).view_as(self.images)
        if self.recogniser is None:
            return (made - self.images).square().flatten(1).mean(1)
        seen, centre = self.recogniser(made), self._true.mean(0)
        return 1 - torch.cosine_similarity(seen - centre, self._true - centre, dim=1)

    def best(self, candidates: list[Learnt], released: Tensor) -> Learnt:
        """The candidate with the least error on held-out releases, told with that error.

        A static one is left only for one that is better beyond the standard error of the paired
        difference: few held-out people judge, and chance must not make an adversary weaker.
        """
        errors = [self.errors(one.trial(released)) for one in candidates]
        means = [float(each.mean()) for each in errors]
        least = min(range(len(means)), key=means.__getitem__)
        static = [k for k, one in enumerate(candidates) if one.static]
        if static:
            stay = min(static, key=means.__getitem__)
            gain = errors[stay] - errors[least]
            unsure = float(gain.std(correction=0)) / max(1, len(gain) - 1) ** 0.5
            least = stay if float(gain.mean()) <= unsure else least
        return replace(candidates[least], error=means[least])
