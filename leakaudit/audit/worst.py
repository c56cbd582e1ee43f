"""Worst cases over attacks and the adversary's own choice, both taken face by face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from leakaudit.audit.floors import (
    ORIGINAL,
    Floors,
    Table,
    beside,
    excess,
    relative,
)
from leakaudit.audit.gates import adapts
from leakaudit.audit.plan import Plan
from leakaudit.core.rng import Rng
from leakaudit.core.types import Score, is_rate
from leakaudit.maths.intervals import bootstrap_mean, rate_interval
from leakaudit.models.subject import Subject

WORST = ("worst", "worst-static", "worst-adaptive", "chosen")


def complete(
    scores: Sequence[Score],
    choices: Mapping[str, tuple[str, ...]],
    subject: Subject,
    plan: Plan,
    rng: Rng,
    floors: Floors | None = None,
    joined: Mapping[str, Sequence[Score]] = MappingProxyType({}),
) -> tuple[Score, ...]:
    """All scores with floor, ceiling and excess, and the rows ``worst-*`` and ``chosen`` added.

    ``choices`` gives for a defence the attack that the adversary believes, face by face; without
    it there is no ``chosen`` row. ``joined`` are scores of the one guess that the adversary makes
    of them all: they stand in the ``chosen`` rows where they have a value, while pictures there are
    those of the chosen attacks. The sets are of those attacks that were run on each defence.
    """
    floors = floors or Floors(subject, rng)
    table: Table = {(s.defence, s.attack, s.metric): s for s in scores}
    result, sizes = list(scores), {}
    shares = tuple(dict.fromkeys(s.metric for s in scores if is_rate(s.metric)))
    for named in plan.defences:
        for row, names in groups(scores, named.label).items():
            for metric in shares:
                sizes[named.label, row, metric] = _guesses(table, named.label, names, metric)
            result += _worst_rows(table, named.label, row, names, subject, rng)
        if named.label in choices:
            own = {s.metric: s for s in joined.get(named.label, ()) if s.value is not None}
            rows = _chosen_rows(table, named.label, choices[named.label], subject, rng)
            result += [*own.values(), *(row for row in rows if row.metric not in own)]
    result = [beside(score, table, floors, sizes) for score in result]
    rates = [s for s in result if s.metric == "identification" and s.attack != ORIGINAL]
    table = {(s.defence, s.attack, s.metric): s for s in result}
    closeness = [relative(s, table) for s in result if s.metric == "epsilon_pii"]
    above = [excess(score) for score in rates]
    return (*result, *above, *(score for score in closeness if score is not None))


def members(scores: Iterable[Score], defence: str) -> dict[str, bool]:
    """The attacks that count in this defence's worst case, each with whether it's adaptive.

    Those that were run on it, in order; see `adapts`.
    """
    kinds = {score.attack: adapts(score) for score in scores if score.defence == defence}
    return {name: adaptive for name, adaptive in kinds.items() if adaptive is not None}


def groups(scores: Iterable[Score], defence: str) -> dict[str, tuple[str, ...]]:
    """The attacks behind each worst-case row of this defence; rows without any are left out."""
    kinds = members(scores, defence)
    static = tuple(name for name, adaptive in kinds.items() if not adaptive)
    adaptive = tuple(name for name, adaptive in kinds.items() if adaptive)
    sets = {"worst-static": static, "worst-adaptive": adaptive, "worst": static + adaptive}
    return {row: names for row, names in sets.items() if names}


def _guesses(table: Table, defence: str, names: tuple[str, ...], metric: str) -> int:
    """How many of these attacks have this rate at all: the guesses the adversary has a face."""
    rows = [table.get((defence, name, metric)) for name in names]
    return sum(row is not None and row.value is not None for row in rows)


def _worst_rows(
    table: Table, defence: str, row: str, names: tuple[str, ...], subject: Subject, rng: Rng
) -> list[Score]:
    """One row a metric; attacks that lack it, as those without a picture do, are passed over."""
    made = []
    for metric in dict.fromkeys(key[2] for key in table):
        parts = [table[key] for name in names if (key := (defence, name, metric)) in table]
        known = [score for score in parts if score.value is not None]
        faces = [score.per_face for score in known if score.per_face is not None]
        if known and faces:
            each = torch.tensor(faces)
            worst = each.amin(0) if known[0].leak_grows == "down" else each.amax(0)
            made.append(_row(known[0], row, worst, subject, rng))
        elif known:
            made.append(replace(max(known, key=_badness), attack=row, threat=row))
        elif parts:
            made.append(replace(parts[0], attack=row, threat=row))
    return made


def _badness(score: Score) -> float:
    assert score.value is not None
    return -score.value if score.leak_grows == "down" else score.value


def _row(like: Score, row: str, faces: Tensor, subject: Subject, rng: Rng) -> Score:
    people = subject.faces.people
    generator = rng.derive("worst", like.defence, row, like.metric).torch()
    interval = (
        rate_interval(faces > 0.5, people, generator)
        if is_rate(like.metric)
        else bootstrap_mean(faces, people, generator)
    )
    return replace(
        like,
        attack=row,
        threat=row,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        per_face=tuple(round(float(v), 6) for v in faces),
    )


def _chosen_rows(
    table: Table, defence: str, choice: tuple[str, ...], subject: Subject, rng: Rng
) -> list[Score]:
    """One guess a face: that of the attack which the adversary believes there."""
    made = []
    for metric in dict.fromkeys(key[2] for key in table):
        parts = {name: table.get((defence, name, metric)) for name in dict.fromkeys(choice)}
        faces = [_at(parts[name], face) for face, name in enumerate(choice)]
        like = next((part for part in parts.values() if part is not None and part.per_face), None)
        known = [face for face, value in enumerate(faces) if value is not None]
        if like is None or not known:
            continue
        values = torch.tensor([value for value in faces if value is not None])
        if len(known) == len(faces):
            made.append(_row(like, "chosen", values, subject, rng))
        else:
            made.append(_partly(like, values, torch.tensor(known), subject, rng))
    return made


def _at(score: Score | None, face: int) -> float | None:
    return None if score is None or score.per_face is None else score.per_face[face]


def _partly(like: Score, values: Tensor, known: Tensor, subject: Subject, rng: Rng) -> Score:
    """A chosen row over some faces only: the others' guesses carry no picture."""
    generator = rng.derive("worst", like.defence, "chosen", like.metric).torch()
    interval = bootstrap_mean(values, subject.faces.people[known], generator)
    return replace(
        like,
        attack="chosen",
        threat="chosen",
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=len(values),
        per_face=None,
        note=f"over {len(values)} of {like.n} faces: the other guesses carry no such measure",
    )
