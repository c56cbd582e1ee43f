"""The compact summary as Markdown (for a pull request or a job page), every string made inert."""

from __future__ import annotations

import re
from collections.abc import Iterable

from leakaudit.core.by_layer import layer_of
from leakaudit.core.counted import counted
from leakaudit.core.types import Result, Tuning, Win
from leakaudit.report import contrasts, depth, mapping, tuning, view, words
from leakaudit.report.where import where_to_split

_MARKS = re.compile(r"([\\`*_{}\[\]#|~!$])")
_LEADING = re.compile(r"^(\d*)([-+=.)])")  # would begin a list or a heading
_EMOJI = re.compile(r":(?=[A-Za-z0-9_+-]+:)")  # :key: would become a picture
_SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "ungated": "📏"}
_LOOSE = "🔕"  # doesn't hold, and doesn't count


def render_markdown(result: Result) -> str:
    """Verdict, gates, worst cases, false security and doubts as GitHub-flavoured Markdown."""
    status = result.verdict.status
    blocks = [
        f"## {_SIGNS[status]} leakaudit: {words.VERDICTS[status]}",
        f"{text(result.verdict.reason)}",
        _gates(result),
        *(_tuned(result, tuned) for tuned in result.tuning),
        tuning.caution(result),
        _by_depth(result),
        _worst(result),
        _false_security(result),
        _winners(result),
        _differences(result),
        _study(result),
        _doubts(result),
        _catalogues(result),
        f"Seed {result.seed}, device {code(result.device)}, {text(result.created)}. "
        f"Command: {code(result.command)}",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def text(value: str) -> str:
    """``value`` as running text that Markdown reads literally: no markup, links or mentions."""
    plain = _EMOJI.sub(":\u2060", words.clean(value).strip())
    escaped = _MARKS.sub(r"\\\1", plain)
    escaped = _LEADING.sub(r"\1\\\2", escaped)
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = escaped.replace("://", "\\://").replace("www.", "www\\.")
    # A mention is made after Markdown, from the plain text: only another character stops it.
    return escaped.replace("@", "\\@\u2060")


def code(value: str) -> str:
    """``value`` as a code span, whatever back-ticks and bars are in it."""
    shown = words.clean(value).strip() or " "
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * (longest + 1)
    gap = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{gap}{shown}{gap}{fence}"


def _cell_code(value: str) -> str:
    """A code span in a table, where a bar must be escaped (elsewhere that backslash would show)."""
    return code(value).replace("|", "\\|")


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, right: int) -> str:
    """A table whose last ``right`` columns are set flush right."""
    names = list(head)
    rule = ["---"] * (len(names) - right) + ["---:"] * right
    return "\n".join("| " + " | ".join(row) + " |" for row in (names, rule, *rows))


def _gates(result: Result) -> str:
    if not result.gates:
        return 'No gate was asked for; ask with `--fail-on "identification>0.1"`.'
    at = bool(result.layers)
    rows = [
        (
            f"{_LOOSE if view.is_loose(gate) else _SIGNS[gate.status]} {words.gate_told(gate)}",
            *([_cell_code(gate.layer or words.ABSENT)] if at else []),
            _cell_code(gate.expr),
            text(gate.reason),
            words.number(gate.value),
            words.number(gate.bound),
        )
        for gate in view.gates(result)
    ]
    head = ("Gate", *(["Layer"] if at else []), "Fails if", "Why", "Measured", "Judged by")
    return table(head, rows, right=2)


def _by_depth(result: Result) -> str:
    """Where one may split, in words and as a table of layers by defences."""
    layers = depth.rows(result)
    if not layers:
        return ""
    columns = depth.defences(result)
    rows = [
        (
            _cell_code(row.layer),
            words.number(row.depth, digits=2),
            "×".join(map(str, row.shape)) or words.ABSENT,
            words.ABSENT if row.megabytes is None else f"{row.megabytes:.3g}",
            *(_depth_cell(cell) for cell in row.cells),
            text(depth.utility_told(row)) or words.ABSENT,
            depth.SAFETY[row.safety][1],
        )
        for row in layers
    ]
    head = ("Layer", "Depth", "Shape", "MB a face", *(_cell_code(name) for name in columns),
            "Utility", "Gates")  # fmt: skip
    answer = where_to_split(result)
    return "\n\n".join((
        "### Where may I split?",
        f"**{text(answer.short)}** {text(answer.full)}",
        "Faces named at worst, by layer and defence:",
        table(head, rows, right=0),
        f"What follows is of the layer {code(layer_of(result))}, the first that was asked for.",
    ))  # fmt: skip


def _depth_cell(cell: depth.Cell | None) -> str:
    if cell is None:
        return words.ABSENT
    span = words.score_interval(cell.worst)
    told = words.score_value(cell.worst) + (f" ({span})" if span else "")
    told += f" at {_cell_code(cell.chosen)}" if cell.chosen else ""
    told += "" if cell.floor is None else f", floor {words.percent(cell.floor)}"
    return told + ("" if cell.best is None else f"; {text(cell.best.attack)}")


def _tuned(result: Result, tuned: Tuning) -> str:
    """What the search for a setting came to, and the settings that it tried."""
    cost = ("AUC drop",) if tuning.shows_drop(tuned) else ()
    head = (tuned.knob, *(text(target) for target in tuned.targets), *cost, "")
    rows = [
        (
            f"{line.tried.value:g}",
            *(text(tuning.shown(figure)) for figure in line.tried.figures),
            *(text(tuning.dropped(line)) for _ in cost),
            line.mark,
        )
        for line in tuning.lines(result, tuned)
    ]
    tried = table((text(head[0]), *head[1:]), rows, right=len(head) - 1)
    return f"{text(tuning.told(tuned))}.\n\n{tried}"


def _worst(result: Result) -> str:
    rows = []
    for row in view.headlines(result):
        drop = row.auc.drop if row.auc is not None else None
        span = words.score_interval(row.worst)
        rows.append(
            (
                _cell_code(row.defence),
                words.score_value(row.worst) + (f" ({span})" if span else ""),
                words.percent(row.floor),
                words.percent(row.ceiling),
                words.area(drop),
            )
        )
    if not rows:
        return ""
    head = ("Defence", "Named at worst", "Floor", "Ceiling", "AUC drop")
    return table(head, rows, right=4)


def _false_security(result: Result) -> str:
    rows = [
        (
            _cell_code(row.defence),
            text(contrasts.meaning(row)),
            words.score_value(row.static),
            words.score_value(row.adaptive),
            contrasts.difference_with_span(row.gap),
            words.ABSENT if row.excess is None else contrasts.difference_with_span(row.excess),
        )
        for row in contrasts.false_security(result)
    ]
    if not rows:
        return ""
    head = ("Defence", "False security?", "Ignoring it", "Having studied it", "Gap, points",
            "Above the floors")  # fmt: skip
    return table(head, rows, right=4)


def _winners(result: Result) -> str:
    """Attacks that name a face which no other names, or that were chosen somewhere."""
    defences = view.defences(result)
    rows = [
        (_cell_code(row.attack), *(_win(win) for win in row.wins))
        for row in contrasts.deciding(result, defences)
    ]
    if not rows:
        return ""
    head = ("Faces named (by no other attack; chosen)", *(_cell_code(d) for d in defences))
    shown = table(head, rows, right=len(defences))
    others = len(contrasts.winners(result, defences)) - len(rows)
    told = f"{counted(others, 'more attack')} named no face alone and had no guess chosen."
    return f"{shown}\n\n{told}" if others else shown


def _win(win: Win | None) -> str:
    if win is None:
        return words.ABSENT
    chosen = "" if win.chosen is None else f"; {win.chosen}"
    return f"{win.named} ({win.only}{chosen})"


def _differences(result: Result) -> str:
    """Defences against each other and the choice against the best attack, in points."""
    rows = [
        (
            text(contrasts.told(row)),
            contrasts.difference(row),
            contrasts.span(row),
        )
        for row in (*contrasts.compared(result, "defence"), *contrasts.compared(result, "chosen"))
        if row.metric == "identification"
    ]
    if not rows:
        return ""
    return table(("Same faces", "Difference, points", "Interval"), rows, right=2)


def _study(result: Result) -> str:
    """What people recognised, and whether the study can tell."""
    study = result.study
    if study is None:
        return ""
    rows = [
        (
            _cell_code(row.defence),
            words.estimate(row.macro_f1),
            words.estimate(row.accuracy),
            words.count(row.answers),
        )
        for row in study.rows
    ]
    head = ("Recognised by people", "Macro-F1", "Right answers", "Answers")
    told = f"Human study, {study.participants} participants: {text(study.reason)}"
    return f"{told}\n\n{table(head, rows, right=3)}" if rows else told


def _catalogues(result: Result) -> str:
    """One line on the entries of public catalogues that the findings bear on."""
    named = [row.reference for row in mapping.bearings(result) if row.metrics]
    told = "; ".join(f"{text(entry.source)}, {text(entry.title)}" for entry in named)
    return f"Findings bear on: {told}. None shows compliance." if told else ""


def _doubts(result: Result) -> str:
    names = {"serious": "**Serious doubt**", "note": "Note"}
    return "\n".join(
        f"- {names[doubt.severity]}{'' if layer is None else f' at {code(layer)}'}: "
        f"{text(doubt.raised_if)}. {text(doubt.what_to_do)}"
        for layer, doubt in depth.grouped_doubts(result)
    )
