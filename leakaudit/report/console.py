"""The finished audit in a terminal or a pipe: tables, doubts and gates, the verdict last."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leakaudit.core.types import Comparison, Doubt, GateResult, Result, Tuning
from leakaudit.report import contrasts, depth, tuning, view, words
from leakaudit.report.where import where_to_split

_REASONS = 3  # of a doubt, told in full
_NARROW = 90
_LEAST_FOR_NONE = 72
_TINY = 56  # below, only what decides: names keep their room
_STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}


def print_result(result: Result, console: Console) -> None:
    """Print the result to ``console``, whose width, colour and ``NO_COLOR`` it respects.

    The last line is the verdict, unbroken whatever the width, so that ``tail -1`` reads it. Where
    several layers were scanned, one table by depth stands for what differs within each. Whoever
    stops listening (``| head``) changes nothing: the verdict stands, and so does its exit code.
    """
    try:
        _print_result(result, console)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit:  # rich's answer to it, which has turned the output off
        return


def _print_result(result: Result, console: Console) -> None:
    if result.layers:
        _print_by_depth(result, console)
        _print_judgement(result, console)
        return
    if not result.tuning:  # its tables tell the same, a line a setting
        console.print(_table(result, console), highlight=False)
    if contrasts.false_security(result):
        console.print()
        console.print(_gaps(result, console), highlight=False)
        console.print()
    for tuned in result.tuning:
        console.print(_settings(result, tuned, console), highlight=False)
        line = Text("tuned ", style="bold").append(words.clean(tuning.told(tuned)), "not bold")
        console.print(line, highlight=False)
    for line in () if result.tuning else _winner_lines(result):
        console.print(line, highlight=False)
    _print_judgement(result, console)


def _print_judgement(result: Result, console: Console) -> None:
    """Doubts, gates and the verdict."""
    doubts = (
        _doubt_line(doubt, layer, depth.reasons(result, doubt))
        for layer, doubt in depth.grouped_doubts(result)
    )
    # What differs in nothing is told once; labels of others may hold :key: and its like.
    for line in {line.markup: line for line in doubts}.values():
        console.print(line, highlight=False)
    for gate in view.gates(result):
        console.print(_gate_line(gate), highlight=False)
    console.print(verdict_line(result), soft_wrap=True, highlight=False)


def _print_by_depth(result: Result, console: Console) -> None:
    """A line for each layer and defence from shallow to deep, then where one may split."""
    narrow = console.width < _NARROW
    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold"
    )
    table.add_column("Layer", overflow="fold")
    for heading in ("Depth", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Defence", overflow="fold")
    for heading in ("Named\nat worst" if narrow else "Named at worst", "Floor", "AUC drop"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Gates")
    for row in depth.rows(result):
        size = words.ABSENT if row.megabytes is None else f"{row.megabytes:.2g}"
        place = [Text(words.clean(row.layer)), _ascii(words.number(row.depth, digits=2)),
                 _ascii(size)]  # fmt: skip
        status, told = depth.SAFETY[row.safety]
        for index, cell in enumerate(cell for cell in row.cells if cell is not None):
            table.add_row(
                *(place if index == 0 else [Text("")] * 3),
                Text(words.clean(cell.defence)),
                _spanned(
                    words.score_value(cell.worst), words.score_interval(cell.worst), narrow=narrow
                ),
                _ascii(words.percent(cell.floor)),
                _drop(cell, narrow=True),
                Text(told, style=_STYLES.get(status, "")) if index == 0 else Text(""),
            )
    console.print(table, highlight=False)
    answer = where_to_split(result)
    line = Text("where to split", style="bold")
    line.append(words.clean(f": {answer.short} {answer.full}"), style="not bold")
    console.print(line, highlight=False)


def verdict_line(result: Result) -> Text:
    """The one line that says how it ended and why: ``FAIL: ...``."""
    status = result.verdict.status
    line = Text(words.VERDICTS[status].upper(), style=_STYLES.get(status, "bold"))
    line.append(f": {words.clean(result.verdict.reason)}", style="default not bold")
    return line


def _blank(console: Console, *headings: str) -> Table:
    """A table of defences by numbers, drawn with lines on a terminal only."""
    table = Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        title=None,
        header_style="bold",
    )
    table.add_column("Defence", overflow="fold", min_width=10)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _gaps(result: Result, console: Console) -> Table:
    """What static attacks alone would have missed, and what a defence takes off at worst."""
    narrow = console.width < _NARROW
    head = ["Named by\nstatic", "Named by\nadaptive", "Adaptive minus\nstatic, points"]
    tiny = console.width < _TINY
    head = ["Adaptive minus\nstatic, points"] if tiny else head
    wide = console.width >= _LEAST_FOR_NONE
    table = _blank(console, *head, *(["Minus none,\npoints"] if wide else []))
    for row in contrasts.false_security(result):
        named = [] if tiny else [row.static, row.adaptive]
        cells = [_ascii(words.score_value(score)) for score in named]
        cells.append(_gap(row.gap, narrow=narrow))
        if wide:
            cells.append(_gap(contrasts.against_none(result, row.defence), narrow=narrow))
        table.add_row(Text(words.clean(row.defence)), *cells)
    return table


def _settings(result: Result, tuned: Tuning, console: Console) -> Table:
    """The settings that were tried, with the targets' figures and the AUC lost."""
    shape = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(box=shape, pad_edge=False, header_style="bold")
    table.add_column(Text(words.clean(tuned.knob)), justify="right")
    for target in tuned.targets:
        table.add_column(Text(words.clean(target)), justify="right", overflow="fold")
    shows_drop = tuning.shows_drop(tuned)
    if shows_drop:
        table.add_column("AUC drop", justify="right")
    table.add_column("")
    for line in tuning.lines(result, tuned):
        cells = [Text(tuning.shown(figure)) for figure in line.tried.figures]
        cells += [_ascii(tuning.dropped(line))] if shows_drop else []
        table.add_row(f"{line.tried.value:g}", *cells, line.mark)
    return table


def _gap(row: Comparison | None, *, narrow: bool) -> Text:
    if row is None:
        return _ascii(words.ABSENT)
    return _spanned(contrasts.difference(row), contrasts.span(row), narrow=narrow)


def _winner_lines(result: Result) -> Iterator[Text]:
    """Which attacks named most behind each defence, and how the one chosen guess fared."""
    chosen = {row.defence: row for row in contrasts.compared(result, "chosen")}
    for defence in dict.fromkeys(win.defence for win in result.wins):
        told = [
            f"{win.attack} {win.named}" + (f" ({win.only} by no other)" if win.only else "")
            for win in contrasts.foremost(result, defence)
        ]
        said = f", {defence}: {', '.join(told) or 'nobody'}"
        row = chosen.get(defence)
        if row is not None:
            said += f"; chosen minus {row.other}: {contrasts.difference(row)} points"
            said += f" [{contrasts.span(row).replace(' to', ',')}]"
        line = Text("named most", style="bold")
        line.append(words.clean(said), style="not bold")
        yield line


def _table(result: Result, console: Console) -> Table:
    """Defences by worst identification, floor, ceiling and AUC drop.

    Narrow screens get the interval under the number and do without that of the drop.
    """
    narrow = console.width < _NARROW
    worst = "Named\nat worst" if narrow else "Named at worst"
    tiny = console.width < _TINY
    table = _blank(console, worst, "Floor", *(() if tiny else ("Ceiling", "AUC drop")))
    for row in view.headlines(result):
        cells = [
            _spanned(words.score_value(row.worst), words.score_interval(row.worst), narrow=narrow),
            _ascii(words.percent(row.floor)),
        ]
        if not tiny:
            cells += [_ascii(words.percent(row.ceiling)), _drop(row, narrow=narrow)]
        table.add_row(Text(words.clean(row.defence)), *cells)
    return table


def _spanned(value: str, interval: str, *, narrow: bool) -> Text:
    """A number with its interval beside or under it."""
    text = _ascii(value)
    if interval:
        text.append(f"{chr(10) if narrow else ' '}[{interval.replace(' to', ',')}]")
    return text


def _drop(row: view.Headline | depth.Cell, *, narrow: bool) -> Text:
    """The AUC drop; that of ``none`` against itself has no interval."""
    if row.auc is None:
        return _ascii(words.ABSENT)
    span = words.area_span(row.auc.drop_low, row.auc.drop_high)
    shown = "" if narrow or row.defence == "none" else span
    return _spanned(words.area(row.auc.drop), shown, narrow=narrow)


def _ascii(value: str) -> Text:
    """Our own signs in ASCII, for terminals and logs that know no more."""
    return Text("-" if value == words.ABSENT else value)


def _doubt_line(doubt: Doubt, layer: str | None, reasons: Sequence[str]) -> Text:
    serious = doubt.severity == "serious"
    line = Text("DOUBT" if serious else "note", style="bold yellow" if serious else "bold")
    at = "" if layer is None else f"at {layer}, "
    more = [] if len(reasons) <= _REASONS else [f"And {len(reasons) - _REASONS} more like that."]
    why = " ".join((*reasons[:_REASONS], *more))
    why = f": {why}" if serious else ""  # what was seen, with its figures
    line.append(words.clean(f": {at}{doubt.raised_if} ({doubt.id}){why}"), style="not bold")
    return line


def _gate_line(gate: GateResult) -> Text:
    line = Text("gate ", style="bold")
    style = "bold" if view.is_loose(gate) else _STYLES[gate.status]
    line.append(words.gate_told(gate).lower(), style=style)
    at = "" if gate.layer is None else f"at {gate.layer}, "
    line.append(f": {words.clean(gate.expr)} - {words.clean(at + gate.reason)}", style="not bold")
    return line
