"""Gates: thresholds on rows, held against the unfavourable end of the interval."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.types import Doubt, GateResult, GateStatus, Score, Utility, Verdict

_GATE = re.compile(
    r"^\s*(?P<path>.+?)\s*(?P<op><=|>=|<|>)\s*(?P<number>[-+0-9.eE]+)(?P<value>@value)?\s*$"
)
_WORD = re.compile(r"^[A-Za-z0-9_-]+(:[A-Za-z0-9_-]+)?$")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}


@dataclass(frozen=True)
class Gate:
    """``[DEFENCE.][ATTACK.]METRIC OP NUMBER[@value]``: the run fails where this holds."""

    expr: str
    defence: str | None
    quoted: bool
    attack: str
    metric: str
    op: str
    threshold: float
    at_value: bool


def parse_gate(expr: str) -> Gate:
    """The gate that a user wrote; UsageError says what is wrong with it."""
    match = _GATE.match(expr)
    todo = 'Write [DEFENCE.][ATTACK.]METRIC OP NUMBER, for example "worst.identification>0.2"'
    if match is None:
        raise UsageError("This gate can't be read", where=f"--fail-on {expr!r}", todo=todo)
    threshold = _number(match["number"], expr)
    path, quoted = match["path"], None
    if path[0] in "\"'":
        end = path.find(path[0], 1)
        if end < 0 or path[end + 1 : end + 2] != ".":
            raise UsageError("An unfinished quotation", where=f"--fail-on {expr!r}", todo=todo)
        quoted, path = path[1:end], path[end + 2 :]
    words = path.split(".")
    room = 2 if quoted is not None else 3
    if len(words) > room or not all(_WORD.match(word) for word in words):
        raise UsageError("This gate can't be read", where=f"--fail-on {expr!r}", todo=todo)
    metric = words[-1]
    attack = words[-2] if len(words) > 1 else "worst"
    defence = quoted if quoted is not None else (words[0] if len(words) == 3 else None)
    return Gate(
        expr.strip(), defence, quoted is not None, attack, metric, match["op"], threshold,
        match["value"] is not None,
    )  # fmt: skip


def _number(text: str, expr: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):  # result.json holds no infinite number either
        raise UsageError(f"'{text}' is not a number", where=f"--fail-on {expr!r}")
    return number


@dataclass(frozen=True)
class _Row:
    defence: str
    attack: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str | None


def judge(
    exprs: Iterable[str],
    scores: Iterable[Score],
    utility: Iterable[Utility],
    doubts: tuple[Doubt, ...],
    labels: list[str],
) -> tuple[GateResult, ...]:
    """One result a gate and row that it names.

    ``labels`` are the defences of the run, ``none`` first; a gate that names no defence reads every
    defended row, or ``none`` when nothing is defended.
    """
    rows = [*_score_rows(scores), *_utility_rows(utility)]
    results: list[GateResult] = []
    for expr in exprs:
        results += _judged(parse_gate(expr), rows, labels, doubts)
    return tuple(results)


def _score_rows(scores: Iterable[Score]) -> list[_Row]:
    return [
        _Row(s.defence, s.attack, s.metric, s.value, s.low, s.high, s.n, s.note) for s in scores
    ]


def _utility_rows(utility: Iterable[Utility]) -> list[_Row]:
    rows = []
    for u in utility:
        rows.append(_Row(u.defence, "utility", u.metric, u.value, u.low, u.high, u.n, u.note))
        rows.append(
            _Row(
                u.defence, "utility", f"{u.metric}_drop", u.drop, u.drop_low, u.drop_high, u.n,
                u.note,
            )
        )  # fmt: skip
    return rows


def _judged(
    gate: Gate, rows: list[_Row], labels: list[str], doubts: tuple[Doubt, ...]
) -> list[GateResult]:
    wanted = _defences(gate, labels)
    if not wanted:
        return [_undecided(gate, _unmeasured("defence", gate.defence or "", labels))]
    results = []
    for label in wanted:
        found = [
            r for r in rows if (r.defence, r.attack, r.metric) == (label, gate.attack, gate.metric)
        ]
        results.append(_decided(gate, found[0], doubts) if found else _missing(gate, label, rows))
    return results


def _defences(gate: Gate, labels: list[str]) -> list[str]:
    """A full label in quotes, all rows of a name before ``:``, or every defended row."""
    if gate.defence is None:
        return [label for label in labels if label != "none"] or ["none"]
    if gate.quoted:
        return [label for label in labels if label == gate.defence]
    return [label for label in labels if label.partition(":")[0] == gate.defence]


def _decided(gate: Gate, row: _Row, doubts: tuple[Doubt, ...]) -> GateResult:
    if row.value is None or row.low is None or row.high is None:
        return _undecided(gate, row.note or "it wasn't measured", row)
    bound = row.high if gate.op in (">", ">=") else row.low
    bound = row.value if gate.at_value else bound
    breached = _OPERATORS[gate.op](bound, gate.threshold)
    name = f"{row.defence}.{row.attack}.{row.metric}"
    figure = f"{name} is {row.value:.3g} ({row.low:.3g} to {row.high:.3g})"
    if breached:
        return _result(gate, row, bound, "fail", f"{figure}, {gate.op} {gate.threshold:g}")
    grave = [d for d in doubts if _bears(d, row)]
    if grave:
        names = ", ".join(dict.fromkeys(doubt.id for doubt in grave))
        return _result(gate, row, bound, "inconclusive", f"{figure}, but in doubt: {names}")
    return _result(gate, row, bound, "pass", f"{figure}, within {gate.op} {gate.threshold:g}")


_ON_IDENTITY = ("no-power", "weak-oracle", "constant-feature", "overlap")


def _bears(doubt: Doubt, row: _Row) -> bool:
    """Whether a doubt can undo a pass of this row; doubts of naming say nothing of utility."""
    if doubt.severity != "serious" or not doubt.bears_on(row.defence, row.attack):
        return False
    return row.attack != "utility" or doubt.id not in _ON_IDENTITY


def _result(gate: Gate, row: _Row, bound: float, status: GateStatus, reason: str) -> GateResult:
    return GateResult(
        gate.expr, row.value, bound, gate.threshold, status, reason, row.defence, row.attack,
        row.metric,
    )  # fmt: skip


def _undecided(gate: Gate, why: str, row: _Row | None = None) -> GateResult:
    place = (None, None, None) if row is None else (row.defence, row.attack, row.metric)
    return GateResult(gate.expr, None, None, gate.threshold, "inconclusive", why, *place)


def _missing(gate: Gate, label: str, rows: list[_Row]) -> GateResult:
    here = [row for row in rows if row.defence == label]
    attacks = list(dict.fromkeys(row.attack for row in here))
    defences = {row.defence.partition(":")[0] for row in rows}
    if gate.attack not in attacks and gate.attack in defences:
        hint = f"'{gate.attack}' is a defence: write {gate.attack}.worst.{gate.metric}"
        return _undecided(gate, f"no attack of that name was measured; {hint}")
    if gate.attack not in attacks:
        return _undecided(gate, _unmeasured("attack", gate.attack, attacks))
    metrics = [row.metric for row in here if row.attack == gate.attack]
    return _undecided(gate, _unmeasured("metric", gate.metric, metrics))


def _unmeasured(kind: str, name: str, known: Iterable[str]) -> str:
    return f"{kind} '{name}' was not measured. {UnknownNameError(kind, name, known).todo}"


def conclude(gates: tuple[GateResult, ...], scores: Iterable[Score]) -> Verdict:
    """The one verdict: a breach outranks what is inconclusive, which outranks a pass."""
    failed = [gate for gate in gates if gate.status == "fail"]
    unclear = [gate for gate in gates if gate.status == "inconclusive"]
    if failed:
        return Verdict("fail", _many("breached", failed), 1)
    if unclear:
        return Verdict("inconclusive", _many("undecided", unclear), 3)
    if gates:
        return Verdict("pass", f"All {len(gates)} gates hold: {gates[0].reason}.", 0)
    return Verdict("ungated", "No gate was asked for. " + _summary(scores), 0)


def _many(word: str, gates: list[GateResult]) -> str:
    more = f" (and {len(gates) - 1} more)" if len(gates) > 1 else ""
    return f"Gate {word}: {gates[0].expr}: {gates[0].reason}{more}."


def _summary(scores: Iterable[Score]) -> str:
    rows = [s for s in scores if s.attack == "worst" and s.metric == "identification"]
    told = [f"{s.defence} {s.value:.0%}" for s in rows if s.value is not None]
    floor = next((s.floor for s in rows if s.floor is not None), None)
    blind = "" if floor is None else f"; a blind adversary would name {floor:.1%}"
    return f"People named from their features, worst case: {', '.join(told)}{blind}."
