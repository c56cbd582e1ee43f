"""Rows against rows on the same faces: false security, defences, the choice, and who won where."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from leakaudit.audit.gates import ABOVE
from leakaudit.audit.plan import Plan
from leakaudit.audit.worst import groups, members
from leakaudit.core.rng import Rng
from leakaudit.core.types import Comparison, ComparisonKind, Score, Win
from leakaudit.maths.intervals import (
    Interval,
    bonferroni,
    paired_rate_difference,
    rate_interval,
)
from leakaudit.models.subject import Subject

NAMED = "identification"


def wins(
    scores: Iterable[Score], choices: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[Win, ...]:
    """How many faces each attack of a worst case names, and how many no other attack of it does.

    ``choices`` gives for a defence the attack that was believed, face by face.
    """
    rows = [score for score in scores if score.metric == NAMED]
    found = []
    for defence in dict.fromkeys(score.defence for score in rows):
        hits = _hits_of(rows, defence)
        together = torch.stack(list(hits.values())).sum(0) if hits else torch.zeros(0)
        taken = Counter(choices[defence]) if choices and defence in choices else None
        found += [
            Win(
                defence, attack, int(own.sum()), int((own & (together == 1)).sum()),
                None if taken is None else taken[attack],
            )
            for attack, own in hits.items()
        ]  # fmt: skip
    return tuple(found)


def comparisons(
    scores: Iterable[Score], subject: Subject, plan: Plan, rng: Rng
) -> tuple[Comparison, ...]:
    """False security of each defence, each pair of defences, and the choice against the best.

    ``scores`` are complete, with worst rows and floors. Intervals are paired over the faces. They
    hold together (Bonferroni) for all defences in false security, for all pairs of defences, and
    for all attacks behind a defence that its choice is held against; ``note`` says so.
    """
    rows = tuple(score for score in scores if score.metric == NAMED)
    labels = [named.label for named in plan.defences]
    pairs = _Pairs(rows, subject.faces.people, rng)
    return (
        *false_security(rows, subject.faces.people, rng, labels),
        *_between_defences(pairs, labels),
        *_of_choices(pairs, labels),
    )


def false_security(
    scores: Iterable[Score], people: Tensor, rng: Rng, labels: Iterable[str]
) -> tuple[Comparison, ...]:
    """What attacks that studied a defence name more than those that ignored it, by defence.

    Both as identification and as excess over each row's own floor, as the two adversaries may have
    different numbers of guesses. ``labels`` are the defences to tell.
    """
    rows = tuple(score for score in scores if score.metric == NAMED)
    pairs = _Pairs(rows, people, rng)
    told = [label for label in labels if "worst-adaptive" in groups(rows, label)]
    found = []
    for label in told:
        sets = groups(rows, label)
        if "worst-static" not in sets:
            continue
        note = _guesses(*(len(sets[row]) for row in ("worst-adaptive", "worst-static")))
        found += pairs.both(
            "false-security", (label, "worst-adaptive"), (label, "worst-static"), "worst-static",
            among=len(told), note=note,
        )  # fmt: skip
    return tuple(found)


def _between_defences(pairs: _Pairs, labels: list[str]) -> list[Comparison]:
    """Each defence's worst case minus that of ``none``, then of the defences before it."""
    told = [label for label in labels if pairs.hits(label, "worst") is not None]
    both = [(one, other) for other, one in combinations(told, 2)]
    found = []
    for one, other in both:
        sizes = [len(groups(pairs.rows, label)["worst"]) for label in (one, other)]
        found += pairs.both(
            "defence", (one, "worst"), (other, "worst"), other, among=len(both),
            note=_guesses(*sizes), excess=sizes[0] != sizes[1],
        )  # fmt: skip
    return found


def _of_choices(pairs: _Pairs, labels: list[str]) -> list[Comparison]:
    """The one chosen guess a face minus the attack that turned out best, by defence."""
    found = []
    for label in labels:
        hits = _hits_of(pairs.rows, label)
        if not hits or pairs.hits(label, "chosen") is None:
            continue
        best = max(hits, key=lambda name: float(hits[name].sum()))
        among = f"'{best}' is the best of {len(hits)} in hindsight" if len(hits) > 1 else None
        found += pairs.both(
            "chosen", (label, "chosen"), (label, best), best, among=len(hits), note=among,
            excess=False,
        )  # fmt: skip
    return found


class _Pairs:
    """Rows of identification that can be held against each other, face by face."""

    def __init__(self, rows: tuple[Score, ...], people: Tensor, rng: Rng) -> None:
        self.rows, self.people, self.rng = rows, people.cpu(), rng
        self._table = {(score.defence, score.attack): score for score in rows}

    def hits(self, defence: str, attack: str) -> Tensor | None:
        """Whether each face was named in this row, (N,), or ``None`` where it wasn't measured."""
        score = self._table.get((defence, attack))
        return None if score is None or score.per_face is None else _named(score)

    def both(
        self,
        kind: ComparisonKind,
        row: tuple[str, str],
        against: tuple[str, str],
        other: str,
        *,
        among: int,
        note: str | None,
        excess: bool = True,
    ) -> list[Comparison]:
        """``row`` minus ``against`` in identification, and in excess where that differs."""
        first, second = self.hits(*row), self.hits(*against)
        if first is None or second is None:
            return []
        confidence = bonferroni(among)
        stream = self.rng.derive("compare", *row, *against)
        gap = paired_rate_difference(
            first, second, self.people, stream.torch(), confidence=confidence
        )
        said = [part for part in (note, _caution(among, confidence)) if part]
        made = Comparison(
            kind, row[0], other, row[1], NAMED, gap.value, gap.low, gap.high, gap.n,
            "; ".join(said) or None,
        )  # fmt: skip
        floors = (self._table[row].floor, self._table[against].floor)
        if not excess or floors[0] is None or floors[1] is None or max(floors[0], floors[1]) >= 1:
            return [made]
        base = rate_interval(
            second, self.people, stream.derive("base").torch(), confidence=confidence
        )
        value, low, high = _above_floors(gap, base, floors[0], floors[1])
        return [made, replace(made, metric=ABOVE, difference=value, low=low, high=high)]


def _above_floors(
    gap: Interval, base: Interval, floor: float, other: float
) -> tuple[float, float, float]:
    """The gap of two excesses with its ends, from that of the rates and the second rate.

    With rates p, q and floors f, g, ``(p-f)/(1-f) - (q-g)/(1-g)`` is
    ``s (p-q) + t (q-1)`` for ``s = 1/(1-f)``, ``t = s - 1/(1-g)``. Half widths are joined as if
    independent (Zou and Donner, Statistics in Medicine 2008); floors are taken as known.
    """
    s = 1 / (1 - floor)
    t = s - 1 / (1 - other)
    value = s * gap.value + t * (base.value - 1)
    ends = sorted((t * (base.low - base.value), t * (base.high - base.value)))
    below = math.hypot(s * (gap.value - gap.low), ends[0])
    above = math.hypot(s * (gap.high - gap.value), ends[1])
    return value, value - below, value + above


def _hits_of(rows: Iterable[Score], defence: str) -> dict[str, Tensor]:
    """Whether each face was named, by attack of this defence's worst case."""
    counted = members(rows, defence)
    return {
        score.attack: _named(score)
        for score in rows
        if score.defence == defence and score.attack in counted and score.per_face is not None
    }


def _named(score: Score) -> Tensor:
    return torch.tensor(score.per_face) > 0.5


def _guesses(here: int, there: int) -> str | None:
    """What to say where two rows have different numbers of guesses a face."""
    if here == there:
        return None
    return f"{here} guesses a face against {there}: identification_excess allows for that"


def _caution(among: int, confidence: float) -> str | None:
    if among < 2:
        return None
    return f"one of {among} comparisons: interval at {confidence:.2%} (Bonferroni)"
