"""Worst cases over attacks, taken face by face, with the floors and ceilings beside them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from leakaudit.attacks.base import Guess
from leakaudit.audit.plan import Plan
from leakaudit.core.rng import Rng
from leakaudit.core.types import Score
from leakaudit.maths.emd import relative_epsilon
from leakaudit.maths.intervals import bootstrap_mean, rate_interval
from leakaudit.models.subject import Subject

RATES = ("identification", "identification_top5")
DRAWS = 512


def complete(
    scores: list[Score],
    guesses: dict[tuple[str, str], Guess],
    subject: Subject,
    plan: Plan,
    rng: Rng,
) -> tuple[Score, ...]:
    """All scores with floor, ceiling and excess, and the rows ``worst-*`` and ``chosen`` added."""
    static = [attack.name for attack in plan.attacks if not attack.holds.adaptive]
    adaptive = [attack.name for attack in plan.attacks if attack.holds.adaptive]
    groups = {"worst-static": static, "worst-adaptive": adaptive, "worst": static + adaptive}
    floors = _Floors(subject, rng)
    table = {(s.defence, s.attack, s.metric): s for s in scores}
    result = list(scores)
    for named in plan.defences:
        for row, members in groups.items():
            if members:
                result += _worst_rows(table, named.label, row, members, subject, rng)
        result += _chosen_rows(table, guesses, named.label, static + adaptive, subject, rng)
    sizes = {row: len(members) for row, members in groups.items()}
    result = [_beside(score, table, floors, sizes) for score in result]
    rates = [s for s in result if s.metric == "identification" and s.attack != "original"]
    table = {(s.defence, s.attack, s.metric): s for s in result}
    relative = [_relative(s, table) for s in result if s.metric == "epsilon_pii"]
    excess = [_excess(score) for score in rates]
    return (*result, *excess, *(score for score in relative if score is not None))


def _worst_rows(
    table: dict[tuple[str, str, str], Score],
    defence: str,
    row: str,
    members: list[str],
    subject: Subject,
    rng: Rng,
) -> list[Score]:
    made = []
    for metric in dict.fromkeys(key[2] for key in table):
        parts = [table[defence, name, metric] for name in members]
        known = [score for score in parts if score.value is not None]
        if not known:
            made.append(replace(parts[0], attack=row, threat=row))
        elif known[0].per_face is None:
            made.append(replace(max(known, key=_badness), attack=row, threat=row))
        else:
            faces = torch.tensor([score.per_face for score in known])
            worst = faces.amin(0) if known[0].leak_grows == "down" else faces.amax(0)
            made.append(_row(known[0], row, worst, subject, rng))
    return made


def _badness(score: Score) -> float:
    assert score.value is not None
    return -score.value if score.leak_grows == "down" else score.value


def _row(like: Score, row: str, faces: Tensor, subject: Subject, rng: Rng) -> Score:
    people = subject.faces.people
    generator = rng.derive("worst", like.defence, row, like.metric).torch()
    interval = (
        rate_interval(faces > 0.5, people, generator)
        if like.metric in RATES
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
    table: dict[tuple[str, str, str], Score],
    guesses: dict[tuple[str, str], Guess],
    defence: str,
    members: list[str],
    subject: Subject,
    rng: Rng,
) -> list[Score]:
    """One guess a face: of the attack whose re-encoded picture fits the released feature best."""
    losses = [guesses[defence, name].loss for name in members]
    known = [loss for loss in losses if loss is not None]
    if len(known) != len(members):
        return []
    pick = torch.stack(known).argmin(0)
    made = []
    for metric in dict.fromkeys(key[2] for key in table):
        parts = [table[defence, name, metric] for name in members]
        if any(score.per_face is None for score in parts):
            continue
        faces = torch.tensor([score.per_face for score in parts])
        made.append(_row(parts[0], "chosen", faces.gather(0, pick.unsqueeze(0))[0], subject, rng))
    return made


class _Floors:
    """How often independent faces of the prior name each attacked person."""

    def __init__(self, subject: Subject, rng: Rng) -> None:
        self._rates: dict[str, Tensor] = {}
        if subject.prior is None:
            return
        images = subject.prior.sample(DRAWS, rng.derive("floor"))
        scores = subject.oracle.scores(images)
        people = subject.faces.people
        for metric, top in zip(RATES, (1, 5), strict=True):
            best = scores.topk(min(top, scores.shape[1]), dim=1).indices
            hits = torch.zeros(scores.shape[1]).index_add_(
                0, best.flatten(), torch.ones(best.numel())
            )
            self._rates[metric] = (hits / DRAWS)[people]

    def of(self, metric: str, guesses: int) -> float | None:
        """The share of people named by at least one of so many independent prior faces."""
        if metric not in self._rates:
            return None
        return float((1 - (1 - self._rates[metric]) ** guesses).mean())


def _beside(
    score: Score, table: dict[tuple[str, str, str], Score], floors: _Floors, sizes: dict[str, int]
) -> Score:
    """The score with its floor (same number of blind guesses), ceiling and excess."""
    if score.attack == "original":
        return score
    original = table.get(("none", "original", score.metric))
    floor: float | None
    if score.metric in RATES:
        floor = floors.of(score.metric, sizes.get(score.attack, 1))
    else:
        blind = table.get((score.defence, "control-prior", score.metric))
        floor = None if blind is None else blind.value
    ceiling = None if original is None else original.value
    excess = None
    if score.metric in RATES and floor is not None and score.value is not None and floor < 1:
        excess = (score.value - floor) / (1 - floor)
    return replace(score, floor=floor, ceiling=ceiling, excess=excess)


def _relative(score: Score, table: dict[tuple[str, str, str], Score]) -> Score | None:
    """``epsilon_rel``: 0 where the prior itself lies, 1 where the undefended reconstructions do.

    ``None`` for controls, originals, and where undefended ones are no farther from
    the prior than the intervals tell apart.
    """
    floor = table.get(("none", "control-prior", "epsilon_pii"))
    ceiling = table.get(("none", score.attack, "epsilon_pii"))
    if score.attack.startswith("control-") or score.attack == "original":
        return None
    if floor is None or ceiling is None or floor.value is None or ceiling.value is None:
        return None
    ends = [(s.low, s.high) for s in (floor, ceiling)]
    unsure = sum((high - low) / 2 for low, high in ends if low is not None and high is not None)
    if ceiling.value - floor.value <= unsure:
        return None
    near, far = floor.value, ceiling.value

    def share(value: float | None) -> float | None:
        return None if value is None else relative_epsilon(value, near, far)

    return replace(
        score,
        metric="epsilon_rel",
        value=share(score.value),
        low=share(score.low),
        high=share(score.high),
        unit="share of the way from the prior to undefended reconstructions",
        floor=0.0,
        ceiling=1.0,
        excess=None,
        per_face=None,
    )


def _excess(score: Score) -> Score:
    """``identification_excess``: (value - floor) / (1 - floor), the interval carried along."""
    floor = score.floor

    def above(value: float | None) -> float | None:
        if value is None or floor is None or floor >= 1:
            return None
        return (value - floor) / (1 - floor)

    return replace(
        score,
        metric="identification_excess",
        value=above(score.value),
        low=above(score.low),
        high=above(score.high),
        unit="share of faces above the floor",
        floor=0.0 if floor is not None else None,
        ceiling=above(score.ceiling),
        excess=None,
        per_face=None,
        note=None if floor is not None else "unavailable: no floor without a prior",
    )
