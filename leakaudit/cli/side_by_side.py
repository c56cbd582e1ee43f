"""Two comparable results as one table: both numbers of a row, and by how much it got worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leakaudit.audit.comparable import same_faces, worsening
from leakaudit.audit.gates import Row, rows_of
from leakaudit.core.by_layer import by_depth, layer_of, parts
from leakaudit.core.types import Result
from leakaudit.report import words

_JOINT = ("worst-static", "worst-adaptive", "chosen")


@dataclass(frozen=True)
class Pair:
    """One row of both results; ``by`` is how much the second is worse, with its interval."""

    one: Row
    other: Row
    by: tuple[float, float, float] | None

    @property
    def shown(self) -> str:
        """``worse`` or ``better`` where the interval of the difference leaves 0 out."""
        if self.by is None:
            return ""
        return "worse" if self.by[1] > 0 else "better" if self.by[2] < 0 else ""


def pairs(one: Result, other: Result) -> tuple[Pair, ...]:
    """Rows that both have: all of ``worst`` and the utility, and who is named in the joint ones."""
    there = {(r.defence, r.attack, r.metric): r for r in rows_of(other.scores, other.utility)}
    rows = rows_of(one.scores, one.utility)
    order = list(dict.fromkeys(row.defence for row in rows))
    paired = same_faces(one, other)
    return tuple(_pairs(sorted(rows, key=lambda row: order.index(row.defence)), there, paired))


def _pairs(rows: list[Row], there: dict[tuple[str, str, str], Row], paired: bool) -> Iterator[Pair]:
    for row in rows:
        twin = there.get((row.defence, row.attack, row.metric))
        named = row.attack in _JOINT and row.metric == "identification"
        wanted = named or row.attack == "worst" or (row.attack, row.metric) == ("utility", "auc")
        if wanted and twin is not None and (row.value is not None or twin.value is not None):
            yield Pair(row, twin, worsening(twin, [row], paired=paired))


def print_comparison(one: Result, other: Result, console: Console) -> None:
    """Print both results' rows side by side, layer by layer; the last line counts differences."""
    for name, result in (("A", one), ("B", other)):
        version = result.tool.get("version", "")
        told = f"{name}: {result.created}, seed {result.seed}, leakaudit {version}"
        console.print(Text(words.clean(told)), soft_wrap=True, highlight=False)
    found: list[Pair] = []
    there = {layer_of(part): part for part in parts(other)}
    for part in by_depth(one):
        twin = there[layer_of(part)]
        if one.layers:
            told = f"At layer {layer_of(part)}"
            console.print(Text(words.clean(told), style="bold"), highlight=False)
        found += _print_part(part, twin, console)
    differing = sum(bool(pair.shown) for pair in found)
    console.print(
        f"{differing} of {len(found)} rows differ by more than their intervals: shares of the same "
        "faces are paired, all else is taken as of independent runs.",
        soft_wrap=True,
        highlight=False,
    )


def _print_part(one: Result, other: Result, console: Console) -> tuple[Pair, ...]:
    """Print the rows of one layer of both."""
    found = pairs(one, other)
    console.print(_table(found, console), highlight=False)
    for label, name in (*_alone(one, other, "A"), *_alone(other, one, "B")):
        console.print(Text(words.clean(f"only in {name}: {label}")), highlight=False)
    return found


def _alone(one: Result, other: Result, name: str) -> list[tuple[str, str]]:
    known = {score.defence for score in other.scores}
    labels = dict.fromkeys(score.defence for score in one.scores)
    return [(label, name) for label in labels if label not in known]


def _table(found: tuple[Pair, ...], console: Console) -> Table:
    shape = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(box=shape, pad_edge=False, header_style="bold")
    table.add_column("Defence", overflow="fold")
    table.add_column("Row", overflow="fold")
    for heading in ("A", "B", "B worse by"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for pair in found:
        table.add_row(
            Text(words.clean(pair.one.defence)),
            Text(words.clean(f"{pair.one.attack}.{pair.one.metric}")),
            *(_cell(row.value) for row in (pair.one, pair.other)),
            _change(pair),
            pair.shown,
        )
    return table


def _cell(value: float | None) -> str:
    return "-" if value is None else words.number(value)


def _change(pair: Pair) -> str:
    if pair.by is None:
        return "-"
    by, low, high = (end + 0.0 for end in pair.by)  # adding zero turns -0.0 into 0.0
    return f"{by:+.3g} [{low:+.3g}, {high:+.3g}]"
