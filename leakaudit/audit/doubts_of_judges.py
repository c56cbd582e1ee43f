"""Doubts about the judges: whether each knows clean faces and sees a leak, and if they agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from leakaudit.audit.floors import ORIGINAL, Table
from leakaudit.audit.worst import WORST
from leakaudit.core.types import Doubt, Score
from leakaudit.models.subject import Subject

WEAK_ORACLE, NOTABLE_ORACLE = 0.8, 0.9
APART = 0.25


@dataclass(frozen=True)
class _Judge:
    """One judge by the metric of his first guess; ``only`` are his metrics, empty for the main."""

    who: str
    metric: str
    only: tuple[str, ...] = ()


def raised(subject: Subject, table: Table) -> Iterator[Doubt]:
    """What is to be doubted of each judge, the main one first, and of the judges together."""
    judges = [_Judge("The oracle", "identification")]
    for judge in subject.judges:
        metrics = dict.fromkeys(m for _, _, m in table if m.endswith(f"-{judge.short}"))
        first = f"identification-{judge.short}"
        judges.append(_Judge(f"The judge {judge.short}", first, tuple(metrics)))
    for each in judges:
        yield from _no_power(table, each)
        yield from _weak(table, each)
    for each in judges[1:]:
        yield from _apart(table, each)


def _no_power(table: Table, judge: _Judge) -> Iterator[Doubt]:
    """The worst case on undefended features must be there, and stand clear of every control."""
    worst = table.get(("none", "worst", judge.metric))
    defended = [key for key in table if key[0] != "none" and key[1:] == ("worst", judge.metric)]
    if worst is None and defended:
        yield Doubt(
            "no-power",
            "serious",
            "the worst case on undefended features doesn't exceed the controls",
            "No attack that was run could attack undefended features, so nothing shows that these "
            "attacks would see a leak: adaptive ones need a defence.",
            "Add static attacks (--attacks blackbox-decoder,..., or those of a preset).",
            metrics=judge.only,
        )
    highs = [
        score.high
        for (defence, attack, metric), score in table.items()
        if defence == "none" and attack.startswith("control-") and metric == judge.metric
        if score.high is not None
    ]
    if worst is not None and worst.floor is not None:
        highs.append(worst.floor)  # as many blind guesses as there are attacks
    if worst is None or worst.low is None or not highs or worst.low > max(highs):
        return
    by = f" by {judge.who[0].lower()}{judge.who[1:]}" if judge.only else ""
    yield Doubt(
        "no-power",
        "serious",
        "the worst case on undefended features doesn't exceed the controls",
        f"The attacks name {worst.value:.0%} (from {worst.low:.0%}) of undefended faces{by}, a "
        f"control up to {max(highs):.0%}: this audit couldn't see a leak if there were one.",
        "Give more public images, a better prior or a stronger preset; if the feature is truly "
        "empty, say so by other means: this tool can't.",
        metrics=judge.only,
    )


def _weak(table: Table, judge: _Judge) -> Iterator[Doubt]:
    clean = table.get(("none", ORIGINAL, judge.metric))
    if clean is None or clean.value is None or clean.value >= NOTABLE_ORACLE:
        return
    yield Doubt(
        "weak-oracle",
        "serious" if clean.value < WEAK_ORACLE else "note",
        f"the oracle names fewer than {NOTABLE_ORACLE:.0%} of the originals "
        f"(serious below {WEAK_ORACLE:.0%})",
        f"{judge.who} names only {clean.value:.0%} of the attacked originals, so a "
        "reconstruction that it can't name may still be named by a better judge.",
        "Give more pictures of each person, or a stronger judge with --oracle.",
        metrics=judge.only,
    )


def _apart(table: Table, judge: _Judge) -> Iterator[Doubt]:
    """The row on which this judge and the main one differ most, where it is beyond chance."""
    pairs = [
        (main, table[defence, attack, judge.metric])
        for (defence, attack, metric), main in table.items()
        if metric == "identification" and _told(attack)
        if (defence, attack, judge.metric) in table
    ]
    gaps = [(gap, main, other) for main, other in pairs if (gap := _gap(main, other)) is not None]
    if not gaps:
        return
    _, main, other = max(gaps, key=lambda found: found[0])
    yield Doubt(
        "judges-apart",
        "note",
        f"two judges differ by more than {APART:.0%} on what an attack names, beyond the intervals",
        f"Of {main.attack} on {main.defence} the main oracle names {main.value:.0%}, "
        f"{judge.who[0].lower()}{judge.who[1:]} {other.value:.0%}, and of the originals "
        f"{_clean(table, 'identification')} and {_clean(table, judge.metric)}.",
        "Believe the one who names more: a person whom one good judge names is known.",
        rows=tuple(dict.fromkeys((m.defence, m.attack) for _, m, _ in gaps)),
    )


def _told(attack: str) -> bool:
    """Rows of one attack: worst cases of two judges may be over different attacks."""
    return attack not in (ORIGINAL, *WORST) and not attack.startswith("control-")


def _gap(main: Score, other: Score) -> float | None:
    """How far two rates lie apart, where that is strong and beyond both intervals."""
    ends = (main.value, main.low, main.high, other.value, other.low, other.high)
    if any(end is None for end in ends):
        return None
    a, a_low, a_high, b, b_low, b_high = (float(end) for end in ends if end is not None)
    apart = a_low > b_high or b_low > a_high
    return abs(a - b) if apart and abs(a - b) > APART else None


def _clean(table: Table, metric: str) -> str:
    score = table.get(("none", ORIGINAL, metric))
    return "an unknown share" if score is None or score.value is None else f"{score.value:.0%}"
