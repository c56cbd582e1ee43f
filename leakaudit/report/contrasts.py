"""What a report says of rows held against rows: false security, who won where, differences."""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.core.types import Comparison, ComparisonKind, Result, Score, Win
from leakaudit.report import words


@dataclass(frozen=True)
class FalseSecurity:
    """One defence before attacks that ignore it and before those that studied it."""

    defence: str
    static: Score | None
    adaptive: Score | None
    gap: Comparison
    excess: Comparison | None


@dataclass(frozen=True)
class Winner:
    """One attack and how it fared behind each defence, ``None`` where it wasn't run."""

    attack: str
    wins: tuple[Win | None, ...]


def false_security(result: Result) -> tuple[FalseSecurity, ...]:
    """One line for each defence that both kinds of attacks were run on."""
    gaps = compared(result, "false-security")
    return tuple(
        FalseSecurity(
            defence=gap.defence,
            static=result.score(gap.defence, gap.other, gap.metric),
            adaptive=result.score(gap.defence, gap.attack, gap.metric),
            gap=gap,
            excess=_excess(gaps, gap.defence),
        )
        for gap in gaps
        if gap.metric == "identification"
    )


def compared(result: Result, kind: ComparisonKind) -> tuple[Comparison, ...]:
    """All comparisons of this kind in order of appearance."""
    return tuple(row for row in result.comparisons if row.kind == kind)


def against_none(result: Result, defence: str) -> Comparison | None:
    """What this defence takes off the worst case of undefended features."""
    for row in compared(result, "defence"):
        if (row.defence, row.other, row.metric) == (defence, "none", "identification"):
            return row
    return None


def winners(result: Result, defences: tuple[str, ...]) -> tuple[Winner, ...]:
    """All attacks that count in a worst case, in order, with their wins by defence."""
    table = {(win.defence, win.attack): win for win in result.wins}
    attacks = dict.fromkeys(win.attack for win in result.wins)
    return tuple(
        Winner(attack, tuple(table.get((defence, attack)) for defence in defences))
        for attack in attacks
    )


def deciding(result: Result, defences: tuple[str, ...]) -> tuple[Winner, ...]:
    """Those winners that name a face which no other attack names, or that were chosen."""
    return tuple(
        winner
        for winner in winners(result, defences)
        if any(win is not None and (win.only or win.chosen) for win in winner.wins)
    )


def foremost(result: Result, defence: str, *, most: int = 3) -> tuple[Win, ...]:
    """The few attacks that name most faces behind this defence."""
    own = [win for win in result.wins if win.defence == defence and win.named]
    return tuple(sorted(own, key=lambda win: (-win.named, -win.only))[:most])


def told(row: Comparison) -> str:
    """What is compared: ``crafter, worst minus none, worst``."""
    if row.kind == "defence":
        return f"{row.defence} minus {row.other}, both {row.attack}"
    return f"{row.attack} minus {row.other}, behind {row.defence}"


def meaning(row: FalseSecurity) -> str:
    """What the intervals of a false-security row say, in plain words.

    More attacks are more guesses a face, which name more by chance alone. So what the faces say
    counts as shown only where the excess above each side's own floor says it too. Floors take
    guesses for independent, which those of related attacks aren't: a gap that only the floors
    explain is told as open, not as none.
    """
    gap, excess = row.gap, row.excess
    if gap.low is None or gap.high is None:
        return "The gap could not be measured."
    low, high = gap.low, gap.high
    if excess is not None and excess.low is not None and excess.high is not None:
        low, high = excess.low, excess.high
    if gap.low > 0 and low > 0:
        return (
            "False security: some faces that look hidden are named once an attack has studied "
            "the defence."
        )
    if gap.low > 0:
        return (
            "Perhaps false security: attacks that studied the defence name more faces, but above "
            "their floors that can't be told from their further guesses."
        )
    if gap.high < 0 and high < 0:
        return "Attacks that studied the defence name fewer: see the doubts."
    if gap.high < 0 or low > 0:
        return (
            "Perhaps false security: the faces alone don't show it, but attacks that studied the "
            "defence had fewer guesses, and more of them may name more."
        )
    return "No false security seen: the gap is within what the choice of faces explains."


def difference(row: Comparison) -> str:
    """The difference in points of a hundred, or in the metric's own unit."""
    if row.difference is None:
        return words.ABSENT
    return words.points(row.difference) if _share(row) else words.number(row.difference)


def span(row: Comparison) -> str:
    """The interval of a difference, ``15.0 to 40.2``, or nothing where there is none."""
    if row.low is None or row.high is None:
        return ""
    if _share(row):
        return f"{words.points(row.low)} to {words.points(row.high)}"
    return words.interval(row.low, row.high)


def difference_with_span(row: Comparison) -> str:
    """Both in one cell, ``+27.5 (+15.0 to +40.2)``."""
    between = span(row)
    return difference(row) + (f" ({between})" if between else "")


def _share(row: Comparison) -> bool:
    return words.is_share(row.metric, "")


def _excess(rows: tuple[Comparison, ...], defence: str) -> Comparison | None:
    found = [row for row in rows if (row.defence, row.metric[-6:]) == (defence, "excess")]
    return found[0] if found else None
