"""The finished audit in a terminal or a pipe: one table, doubts and gates, the verdict last."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leakaudit.core.types import Doubt, GateResult, Result
from leakaudit.report import view, words

_NARROW = 90
_STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}


def print_result(result: Result, console: Console) -> None:
    """Print the result to ``console``, whose width, colour and ``NO_COLOR`` it respects.

    The last line is the verdict, unbroken whatever the width, so that ``tail -1`` reads it.
    """
    console.print(_table(result, console), highlight=False)
    for doubt in view.doubts(result):
        console.print(_doubt_line(doubt), highlight=False)
    for gate in view.gates(result):
        console.print(_gate_line(gate), highlight=False)
    console.print(verdict_line(result), soft_wrap=True, highlight=False)


def verdict_line(result: Result) -> Text:
    """The one line that says how it ended and why: ``FAIL: ...``."""
    status = result.verdict.status
    line = Text(words.VERDICTS[status].upper(), style=_STYLES.get(status, "bold"))
    line.append(f": {words.clean(result.verdict.reason)}", style="default not bold")
    return line


def _table(result: Result, console: Console) -> Table:
    """Defences by worst identification, floor, ceiling and AUC drop.

    Narrow screens get the interval under the number and do without that of the drop.
    """
    narrow = console.width < _NARROW
    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        title=None,
        header_style="bold",
    )
    table.add_column("Defence", overflow="fold")
    for heading in (
        "Named\nat worst" if narrow else "Named at worst",
        "Floor",
        "Ceiling",
        "AUC drop",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in view.headlines(result):
        table.add_row(
            Text(words.clean(row.defence)),
            _spanned(words.score_value(row.worst), words.score_interval(row.worst), narrow=narrow),
            _ascii(words.percent(row.floor)),
            _ascii(words.percent(row.ceiling)),
            _drop(row, narrow=narrow),
        )
    return table


def _spanned(value: str, interval: str, *, narrow: bool) -> Text:
    """A number with its interval beside or under it."""
    text = _ascii(value)
    if interval:
        text.append(f"{chr(10) if narrow else ' '}[{interval.replace(' to', ',')}]")
    return text


def _drop(row: view.Headline, *, narrow: bool) -> Text:
    """The AUC drop; that of ``none`` against itself has no interval."""
    if row.auc is None:
        return _ascii(words.ABSENT)
    span = words.interval(row.auc.drop_low, row.auc.drop_high)
    shown = "" if narrow or row.defence == "none" else span
    return _spanned(words.number(row.auc.drop), shown, narrow=narrow)


def _ascii(value: str) -> Text:
    """Our own signs in ASCII, for terminals and logs that know no more."""
    return Text("-" if value == words.ABSENT else value)


def _doubt_line(doubt: Doubt) -> Text:
    serious = doubt.severity == "serious"
    line = Text("DOUBT" if serious else "note", style="bold yellow" if serious else "bold")
    line.append(f": {words.clean(doubt.raised_if)} ({words.clean(doubt.id)})", style="not bold")
    return line


def _gate_line(gate: GateResult) -> Text:
    line = Text("gate ", style="bold")
    line.append(words.VERDICTS[gate.status].lower(), style=_STYLES[gate.status])
    line.append(f": {words.clean(gate.expr)} - {words.clean(gate.reason)}", style="not bold")
    return line
