"""Gates: thresholds on rows, held against the unfavourable end of the interval."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.threats import THREATS, Informed, NoFeature
from leakaudit.core.types import (
    SHARES,
    Doubt,
    GateResult,
    GateSeverity,
    GateStatus,
    LeakGrows,
    Score,
    Utility,
    Verdict,
    is_rate,
    out_of_reach,
)

_GATE = re.compile(
    r"^\s*(?P<path>.+?)\s*(?P<op><=|>=|<|>)\s*(?P<number>[-+0-9.eE]+)(?P<value>@value)?\s*$"
)
UNMEASURED = "was not measured"
NOTABLE_CEILING = 0.9  # above it, what the judge misses of originals is let pass
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


@dataclass(frozen=True)
class Rule:
    """A gate as a policy asks for it: its expression, how much it weighs, and where it stands.

    A row of fewer than ``min_n`` faces can't decide it.
    """

    expr: str
    id: str | None = None
    severity: GateSeverity = "fail"
    min_n: int = 0
    file: str | None = None
    line: int | None = None


GATE_TODO = 'Write [DEFENCE.][ATTACK.]METRIC OP NUMBER, for example "worst.identification>0.2"'


def parse_gate(
    expr: str, *, where: str | None = None, what: str = "gate", todo: str = GATE_TODO
) -> Gate:
    """The gate (or ``what`` it is) that a user wrote; UsageError for one that can't be read."""
    where = where or f"--fail-on {expr!r}"
    match = _GATE.match(expr)
    if match is None and _GATE.match(expr.replace("%", "")):
        raise UsageError(
            f"This {what} is in per cent", where=where, todo="Write a share: 0.2 for 20 %"
        )
    if match is None:
        raise UsageError(f"This {what} can't be read", where=where, todo=todo)
    threshold = _number(match["number"], where)
    path, quoted = match["path"], None
    if path[0] in "\"'":
        end = path.find(path[0], 1)
        if end < 0 or path[end + 1 : end + 2] != ".":
            raise UsageError("An unfinished quotation", where=where, todo=todo)
        quoted, path = path[1:end], path[end + 2 :]
    words = path.split(".")
    room = 2 if quoted is not None else 3
    if len(words) > room or not all(_WORD.match(word) for word in words):
        raise UsageError(f"This {what} can't be read", where=where, todo=todo)
    metric = words[-1]
    _refuse_beyond(metric, threshold, where)
    attack = words[-2] if len(words) > 1 else "worst"
    defence = quoted if quoted is not None else (words[0] if len(words) == 3 else None)
    return Gate(
        expr.strip(), defence, quoted is not None, attack, metric, match["op"], threshold,
        match["value"] is not None,
    )  # fmt: skip


def _refuse_beyond(metric: str, threshold: float, where: str) -> None:
    """A share well beyond 1 was meant in per cent: such a gate could never fail."""
    if metric.startswith(SHARES) and abs(threshold) > 2:
        raise UsageError(
            f"{metric} is a share: it is never beyond 1", where=where,
            todo=f"Write {threshold / 100:g} for {threshold:g} %",
        )  # fmt: skip


_LEAK_GROWS = ("identification", "verification", "feature_similarity", "ssim", "psnr", "epsilon_")


def worse_of(gate: Gate) -> LeakGrows | None:
    """The direction in which the metric gets worse, as far as its name tells."""
    if gate.attack == "utility":
        return "up" if gate.metric.endswith("_drop") else "down"
    if gate.metric.startswith("lpips"):
        return "down"
    return "up" if gate.metric.startswith(_LEAK_GROWS) else None


def turned(op: str) -> str:
    """The operator that points the other way."""
    return op.translate(str.maketrans("<>", "><"))


def finds_good(gate: Gate) -> bool | None:
    """Whether it holds where the metric is good; ``None`` where the name doesn't tell."""
    worse = worse_of(gate)
    return None if worse is None else (gate.op[0] == "<") == (worse == "up")


def remark(gate: Gate) -> str | None:
    """Why this gate may not be what its writer means: it can't fail, or fails where all is well."""
    above = gate.op in (">", ">=")
    if end := out_of_reach(gate.metric, gate.op, gate.threshold):
        return f"can't fail: {gate.metric} is never {end}"
    # Of undefended features, originals and controls such a gate checks the audit.
    about = gate.defence != "none" and gate.attack != "original"
    if about and not gate.attack.startswith("control-") and finds_good(gate):
        side, other = "high" if above else "low", turned(gate.op)
        return f"fails where {gate.metric} is {side}, which is good: did you mean {other}?"
    return None


_LARGEST = 1e100


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) <= _LARGEST:  # result.json holds no larger number either
        what = "is not a number" if not math.isfinite(number) else "is larger than any metric"
        raise UsageError(f"'{text}' {what}", where=where)
    return number


@dataclass(frozen=True)
class Row:
    """One number that a gate may read; ``worse`` is the direction in which it gets worse.

    ``ceiling`` is what the originals give, where that bounds what an attack may. ``adaptive`` tells
    whether an attack is, where it counts in the worst case; ``by`` names the attack whose numbers
    these are, where they are not the row's own. ``faces`` says of a rate who was named or matched,
    face by face, where that is known.
    """

    defence: str
    attack: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str | None
    worse: LeakGrows
    ceiling: float | None = None
    adaptive: bool | None = None
    by: str | None = None
    faces: tuple[float, ...] | None = None


def judge(
    asked: Iterable[str | Rule],
    scores: Iterable[Score],
    utility: Iterable[Utility],
    doubts: tuple[Doubt, ...],
    labels: list[str],
) -> tuple[GateResult, ...]:
    """One result a gate and row that it names.

    ``labels`` are the defences of the run, ``none`` first; a gate that names no defence reads every
    defended row, or ``none`` when nothing is defended.
    """
    rows = rows_of(scores, utility)
    results: list[GateResult] = []
    for gate in asked:
        rule = Rule(gate) if isinstance(gate, str) else gate
        results += _judged(rule, rows, labels, doubts)
    return tuple(results)


def rows_of(scores: Iterable[Score], utility: Iterable[Utility]) -> list[Row]:
    """All rows that a gate may read: scores, then utility with its drops.

    What a worst case names above its floor is never less than what one of its attacks does by
    itself: the floor takes all guesses as independent, and those of attacks on one feature aren't,
    so that more attacks, which find nothing, would let more leakage pass.
    """
    rows = [*_score_rows(scores), *_utility_rows(utility)]
    alone = [row for row in rows if row.metric == ABOVE and row.adaptive is not None]
    return [_no_less(row, alone) if row.metric == ABOVE else row for row in rows]


ABOVE = "identification_excess"
_OF_KIND = {"worst": (False, True), "worst-static": (False,), "worst-adaptive": (True,)}


def _no_less(row: Row, alone: Sequence[Row]) -> Row:
    """The worst case with the largest numbers of its own and its attacks'."""
    kinds = _OF_KIND.get(row.attack, ())
    own = [row, *(r for r in alone if r.defence == row.defence and r.adaptive in kinds)]
    known = [
        (r.value, r.low, r.high, r.attack)
        for r in own
        if r.value is not None and r.low is not None and r.high is not None
    ]
    if row.value is None or not known:
        return row
    values, lows, highs, names = zip(*known, strict=True)
    most = max(values), max(lows), max(highs)
    if most == (row.value, row.low, row.high):
        return row
    value, low, high = most
    by = names[highs.index(high)]
    return replace(row, value=value, low=low, high=high, by=None if by == row.attack else by)


def _score_rows(scores: Iterable[Score]) -> list[Row]:
    """A number that isn't finite (of a metric of one's own) counts as unmeasured, as in a file."""
    return [
        Row(
            s.defence,
            s.attack,
            s.metric,
            s.value,
            s.low,
            s.high,
            s.n,
            s.note,
            s.leak_grows,
            s.ceiling if s.metric.startswith("verification") else None,
            adapts(s),
            faces=s.per_face if is_rate(s.metric) else None,
        )
        for s in map(_measured, scores)
    ]


def adapts(score: Score) -> bool | None:
    """Whether an attack that counts in a worst case adapts; ``None`` for any other row.

    Controls, originals, and adversaries who are ``Informed`` stand apart. A threat model that isn't
    known here counts, as static.
    """
    kind = THREATS.get(score.threat)
    apart = score.attack in (*_OF_KIND, "chosen", "original") or score.attack.startswith("control-")
    if apart or kind in (NoFeature, Informed):
        return None
    return kind is not None and kind.adaptive


def _measured(score: Score) -> Score:
    if all(x is None or math.isfinite(x) for x in (score.value, score.low, score.high)):
        return score
    return replace(score, value=None, low=None, high=None, note="it isn't a finite number")


def _utility_rows(utility: Iterable[Utility]) -> list[Row]:
    rows = []
    for u in utility:
        rows.append(
            Row(u.defence, "utility", u.metric, u.value, u.low, u.high, u.n, u.note, "down")
        )
        rows.append(
            Row(
                u.defence, "utility", f"{u.metric}_drop", u.drop, u.drop_low, u.drop_high, u.n,
                u.note, "up",
            )
        )  # fmt: skip
    return rows


def _judged(
    rule: Rule, rows: list[Row], labels: list[str], doubts: tuple[Doubt, ...]
) -> list[GateResult]:
    gate = parse_gate(rule.expr)
    results = []
    for label, row in named_rows(gate, rows, labels):
        if isinstance(row, str):
            place = (None, None, None) if label is None else (label, gate.attack, gate.metric)
            results.append(_undecided(gate, row, place))
        else:
            results.append(_decided(gate, row, doubts, rule.min_n))
    odd = remark(gate)
    return [
        replace(
            r, id=rule.id, severity=rule.severity, file=rule.file, line=rule.line,
            reason=f"{r.reason}; this gate {odd}" if odd and r.status == "pass" else r.reason,
        )
        for r in results
    ]  # fmt: skip


def named_rows(
    gate: Gate, rows: list[Row], labels: list[str]
) -> list[tuple[str | None, Row | str]]:
    """Each defence that the gate names with the row to read, or with why there is none.

    A single pair without a defence says that none of that name was run.
    """
    wanted = _defences(gate, labels)
    if not wanted:
        return [(None, _unmeasured("defence", gate.defence or "", labels))]
    place = {(row.defence, row.attack, row.metric): row for row in reversed(rows)}
    return [
        (label, place.get((label, gate.attack, gate.metric)) or _missing(gate, label, rows))
        for label in wanted
    ]


def _defences(gate: Gate, labels: list[str]) -> list[str]:
    """A full label in quotes, all rows of a name before ``:``, or every defended row."""
    if gate.defence is None:
        return [label for label in labels if label != "none"] or ["none"]
    if gate.quoted:
        return [label for label in labels if label == gate.defence]
    return [label for label in labels if label.partition(":")[0] == gate.defence]


def _decided(gate: Gate, row: Row, doubts: tuple[Doubt, ...], min_n: int) -> GateResult:
    if row.value is None or row.low is None or row.high is None:
        return _undecided(gate, row.note or "it wasn't measured", _place(row))
    bound = row.high if gate.op in (">", ">=") else row.low
    bound = row.value if gate.at_value else bound
    breached = _OPERATORS[gate.op](bound, gate.threshold)
    name = f"{row.defence}.{row.attack}.{row.metric}"
    figure = f"{name} is {row.value:.3g} ({row.low:.3g} to {row.high:.3g})"
    figure += "" if row.by is None else f", as much as {row.by} names by itself"
    end = "" if gate.at_value else "the upper end " if bound == row.high else "the lower end "
    if row.n < min_n:
        few = f"{figure}, from {row.n} where at least {min_n} are asked for"
        return _result(gate, row, bound, "inconclusive", few)
    if breached:
        return _result(gate, row, bound, "fail", f"{figure}, {end}{gate.op} {gate.threshold:g}")
    if _beyond_ceiling(gate, row, bound):
        blind = f"the judge takes only {row.ceiling:.3g} of the originals for who they are"
        return _result(gate, row, bound, "inconclusive", f"{figure}, but {blind}")
    grave = grave_doubts(row, doubts)
    if grave:
        return _result(gate, row, bound, "inconclusive", f"{figure}, but in doubt: {grave}")
    return _result(gate, row, bound, "pass", f"{figure}, {end}not {gate.op} {gate.threshold:g}")


def _beyond_ceiling(gate: Gate, row: Row, bound: float) -> bool:
    """Whether a gate holds only as the judge misses originals too: of those it knows, it doesn't.

    Identification has the doubt ``weak-oracle`` for that.
    """
    if row.ceiling is None or row.ceiling >= NOTABLE_CEILING or gate.op not in (">", ">="):
        return False
    return row.ceiling <= 0 or _OPERATORS[gate.op](bound / row.ceiling, gate.threshold)


def grave_doubts(row: Row, doubts: tuple[Doubt, ...]) -> str:
    """The names of the doubts that can undo a pass of this row, or nothing."""
    return ", ".join(dict.fromkeys(doubt.id for doubt in doubts if _bears(doubt, row)))


_ON_IDENTITY = ("no-power", "weak-oracle", "constant-feature", "overlap")


def _bears(doubt: Doubt, row: Row) -> bool:
    """Whether a doubt can undo a pass of this row; doubts of naming say nothing of utility."""
    if doubt.severity != "serious" or not doubt.bears_on(row.defence, row.attack):
        return False
    if doubt.metrics and row.metric not in doubt.metrics:
        return False
    return row.attack != "utility" or doubt.id not in _ON_IDENTITY


def _result(gate: Gate, row: Row, bound: float, status: GateStatus, reason: str) -> GateResult:
    return GateResult(
        gate.expr, row.value, bound, gate.threshold, status, reason, row.defence, row.attack,
        row.metric,
    )  # fmt: skip


def _undecided(
    gate: Gate, why: str, place: tuple[str | None, str | None, str | None]
) -> GateResult:
    return GateResult(gate.expr, None, None, gate.threshold, "inconclusive", why, *place)


def _place(row: Row) -> tuple[str, str, str]:
    return (row.defence, row.attack, row.metric)


def _missing(gate: Gate, label: str, rows: list[Row]) -> str:
    """Why the row of this defence isn't there, with the nearest name."""
    here = [row for row in rows if row.defence == label]
    attacks = list(dict.fromkeys(row.attack for row in here))
    defences = {row.defence.partition(":")[0] for row in rows}
    if gate.attack not in attacks and gate.attack in defences:
        hint = f"'{gate.attack}' is a defence: write {gate.attack}.worst.{gate.metric}"
        return f"attack '{gate.attack}' {UNMEASURED}. {hint}"
    if gate.attack not in attacks:
        return _unmeasured("attack", gate.attack, attacks)
    metrics = [row.metric for row in here if row.attack == gate.attack]
    return _unmeasured("metric", gate.metric, metrics)


def _unmeasured(kind: str, name: str, known: Iterable[str]) -> str:
    return f"{kind} '{name}' {UNMEASURED}. {UnknownNameError(kind, name, known).todo}"


def conclude(
    gates: tuple[GateResult, ...],
    scores: Iterable[Score],
    layers: Mapping[str, Iterable[Score]] | None = None,
    doubts: Iterable[Doubt] = (),
) -> Verdict:
    """The one verdict: a breach outranks what is inconclusive, which outranks a pass.

    Gates of severity ``warn`` and suppressed ones don't count, but are said. ``layers`` gives the
    scores by layer where several were scanned; where no gate was asked for, serious ``doubts``
    stand beside the numbers.
    """
    counting = [gate for gate in gates if gate.counts]
    failed = [gate for gate in counting if gate.status == "fail"]
    unclear = [gate for gate in counting if gate.status == "inconclusive"]
    aside = _aside(gates)
    if failed:
        return Verdict("fail", _many("breached", failed) + aside, 1)
    if unclear:
        return Verdict("inconclusive", _many("undecided", unclear) + aside, 3)
    if counting:
        many = f"All {len(counting)} gates hold" if len(counting) > 1 else "The gate holds"
        told = f"{many}: {_at(counting[0])}{counting[0].reason.rstrip('.')}."
        return Verdict("pass", told + aside, 0)
    asked = "No gate that counts was asked for. " if gates else "No gate was asked for. "
    told = _summary(scores) if layers is None else _summary_by_layer(layers)
    serious = dict.fromkeys(doubt.id for doubt in doubts if doubt.severity == "serious")
    grave = f" In serious doubt: {', '.join(serious)}." if serious else ""
    return Verdict("ungated", asked + told + grave + aside, 0)


def _aside(gates: Sequence[GateResult]) -> str:
    """What doesn't count though it doesn't hold."""
    loose = [gate for gate in gates if gate.status != "pass" and not gate.counts]
    hushed = sum(gate.is_suppressed for gate in loose)
    told = []
    if hushed:
        told.append(f"{hushed} suppressed")
    if len(loose) > hushed:
        told.append(f"{len(loose) - hushed} only warned of")
    return f" Not counted: {', '.join(told)}." if told else ""


def _many(word: str, gates: list[GateResult]) -> str:
    more = f" (and {len(gates) - 1} more)" if len(gates) > 1 else ""
    reason = gates[0].reason.rstrip(".")
    return f"Gate {word}: {gates[0].expr}: {_at(gates[0])}{reason}{more}."


def _at(gate: GateResult) -> str:
    """The layer that a reason speaks of, where there are several."""
    return "" if gate.layer is None else f"at {gate.layer}, "


def _summary(scores: Iterable[Score]) -> str:
    rows = _worst_rows(scores)
    # Attacks differ from defence to defence, and so do their floors.
    floors = sorted(s.floor for s in rows if s.floor is not None)
    ends = dict.fromkeys(_share(floor) for floor in (floors[0], floors[-1])) if floors else ()
    blind = f"; a blind adversary would name {' to '.join(ends)}" if ends else ""
    return f"People named from their features, worst case: {_shares(rows)}{blind}."


def _summary_by_layer(layers: Mapping[str, Iterable[Score]]) -> str:
    told = [f"at {name}, {_shares(_worst_rows(scores))}" for name, scores in layers.items()]
    return f"People named from their features, worst case: {'; '.join(told)}."


def _worst_rows(scores: Iterable[Score]) -> list[Score]:
    return [s for s in scores if s.attack == "worst" and s.metric == "identification"]


def _shares(rows: Iterable[Score]) -> str:
    return ", ".join(f"{s.defence} {_share(s.value)}" for s in rows if s.value is not None)


def _share(value: float) -> str:
    """In per cent; none and all are said of exactly none and all."""
    if 0 < value < 0.001 or 0.999 < value < 1:
        return "under 0.1%" if value < 0.5 else "over 99.9%"
    return f"{value:.1%}" if value not in (0, 1) else f"{value:.0%}"
