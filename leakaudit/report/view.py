"""What stands where in a report: rows of a ``Result`` picked and put in order, never computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from leakaudit.core.by_layer import parts
from leakaudit.core.study import HUMAN
from leakaudit.core.types import Doubt, GateResult, LeakGrows, Result, Score, Utility
from leakaudit.report.json import is_png

WORST = ("worst-static", "worst-adaptive", "worst", "chosen")
CEILING = "original"

_WORST_FIRST = ("worst", "worst-adaptive", "worst-static")

_GATE_ORDER = {"fail": 0, "inconclusive": 1, "pass": 4}
_LOOSE = 2  # places that a gate without weight stands further down


@dataclass(frozen=True)
class Headline:
    """One defence in one line: how many faces are named at worst, and what utility that cost."""

    defence: str
    worst: Score | None
    floor: float | None
    ceiling: float | None
    auc: Utility | None


def defences(result: Result) -> tuple[str, ...]:
    """All defences in order of appearance, ``none`` first as the pipeline writes it."""
    scored = [score.defence for score in result.scores]
    return _unique((*scored, *(row.defence for row in result.utility)))


def metrics(result: Result) -> tuple[str, ...]:
    """All privacy metrics in order of appearance, but those of the human study."""
    return _unique(score.metric for score in result.scores if score.attack != HUMAN)


def attacks(result: Result) -> tuple[str, ...]:
    """All rows of attacks, controls and worst cases in order of appearance, without people."""
    return _unique(score.attack for score in result.scores if score.attack != HUMAN)


def headline(result: Result, defence: str) -> Headline:
    """The worst identification of this defence with floor, ceiling and AUC drop beside it."""
    rows = [result.score(defence, attack, "identification") for attack in _WORST_FIRST]
    worst = next((row for row in rows if row is not None), None) or _highest(result, defence)
    original = result.score(defence, CEILING, "identification")
    ceiling = worst.ceiling if worst is not None else None
    if ceiling is None and original is not None:
        ceiling = original.value
    return Headline(
        defence=defence,
        worst=worst,
        floor=worst.floor if worst is not None else None,
        ceiling=ceiling,
        auc=utility(result, defence, "auc"),
    )


def headlines(result: Result) -> tuple[Headline, ...]:
    """A headline for each defence that was attacked or judged for utility."""
    return tuple(headline(result, defence) for defence in defences(result))


def utility(result: Result, defence: str, metric: str) -> Utility | None:
    """The utility row of this defence, or ``None`` where it wasn't measured."""
    for row in result.utility:
        if (row.defence, row.metric) == (defence, metric):
            return row
    return None


def utility_metrics(result: Result) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Utility metrics of the whole task, and those of one attribute (``auc:smile``)."""
    names = _unique(row.metric for row in result.utility)
    return (
        tuple(name for name in names if ":" not in name),
        tuple(name for name in names if ":" in name),
    )


def gates(result: Result) -> tuple[GateResult, ...]:
    """All gates: failed first, then undecided, then those that don't count, then passed."""
    return tuple(sorted(result.gates, key=_gate_rank))


def is_loose(gate: GateResult) -> bool:
    """Whether a gate doesn't hold and yet has no weight: suppressed, or a warning only."""
    return gate.status != "pass" and not gate.counts


def _gate_rank(gate: GateResult) -> int:
    return _GATE_ORDER[gate.status] + (_LOOSE if is_loose(gate) else 0)


def doubts(result: Result) -> tuple[Doubt, ...]:
    """All doubts, serious ones first."""
    return tuple(sorted(result.doubts, key=lambda doubt: doubt.severity != "serious"))


def unmeasured(result: Result) -> tuple[tuple[str, str], ...]:
    """Metrics that have no value anywhere, each with the reason that was noted most often."""
    silent = []
    for metric in metrics(result):
        rows = [score for score in result.scores if score.metric == metric]
        if all(score.value is None for score in rows):
            notes = Counter(score.note for score in rows if score.note).most_common(1)
            silent.append((metric, notes[0][0] if notes else "no reason was noted"))
    return tuple(silent)


def other_metrics(result: Result) -> tuple[str, ...]:
    """Measured metrics but identification, which has a table of its own."""
    silent = {metric for metric, _ in unmeasured(result)}
    return tuple(m for m in metrics(result) if m != "identification" and m not in silent)


def leak_grows(result: Result, metric: str) -> LeakGrows:
    """In which direction this metric is bad for the person, as its scores say."""
    return next((s.leak_grows for s in result.scores if s.metric == metric), "neither")


def tails(result: Result) -> tuple[Score, ...]:
    """For each defence the feature similarities face by face, of one attack.

    The row is the attacker's own choice where there is one, then a worst case, then the strongest
    attack; controls and originals never stand for an attack.
    """
    rows = []
    for defence in defences(result):
        found = [
            score
            for score in result.scores
            if score.defence == defence
            and score.metric == "feature_similarity"
            and score.per_face
            and score.attack != CEILING
            and not score.attack.startswith("control-")
        ]
        if found:
            rows.append(min(found, key=_tail_rank))
    return tuple(rows)


def measured(result: Result) -> frozenset[str]:
    """The attacks and controls of which some figure is known, at any layer and behind any defence.

    Others were asked for and never ran: there was nothing to average, say.
    """
    scores = (score for part in parts(result) for score in part.scores)
    return frozenset(score.attack for score in scores if score.value is not None)


def withheld(result: Result) -> bool:
    """Whether some picture of the gallery is not shown."""
    return any(
        picture.png is None or not is_png(picture.png)
        for row in result.gallery
        for picture in row.pictures
    )


def _tail_rank(score: Score) -> tuple[int, float]:
    order = ("worst", "worst-adaptive", "worst-static", "chosen")
    rank = order.index(score.attack) if score.attack in order else len(order)
    return rank, -(score.value if score.value is not None else -2.0)


def _highest(result: Result, defence: str) -> Score | None:
    """The strongest single attack, for a result without worst-case rows."""
    rows = [
        score
        for score in result.scores
        if (score.defence, score.metric) == (defence, "identification")
        and score.value is not None
        and score.attack != CEILING
        and not score.attack.startswith("control-")
    ]
    return max(rows, key=lambda score: score.value or 0.0, default=None)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
