"""A finished result under gates and a policy: the same judgement after a scan and ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import combinations
from pathlib import Path

from leakaudit.audit.by_layer import by_name, joined
from leakaudit.audit.comparable import obstacles, same_faces, worsening
from leakaudit.audit.gates import (
    Row,
    Rule,
    conclude,
    grave_doubts,
    judge,
    named_rows,
    parse_gate,
    rows_of,
)
from leakaudit.audit.policy import Hush, Limit, Policy
from leakaudit.core.by_layer import layer_of, parts
from leakaudit.core.study import HUMAN
from leakaudit.core.types import GateResult, GateStatus, Result, Score, Suppression


def judged(
    result: Result,
    exprs: Sequence[str],
    policy: Policy,
    baselines: Mapping[Path, Result],
    today: date,
) -> Result:
    """``result`` with its gates and verdict made anew by ``exprs`` and the policy.

    ``baselines`` holds the results of all files that the policy's limits name. Every layer is
    judged, against the baselines' same layer; the verdict is over all of them.
    """
    several = parts(result)
    return joined([_part(one, result, exprs, policy, baselines, today) for one in several])


def _part(
    result: Result, whole: Result, exprs: Sequence[str], policy: Policy,
    baselines: Mapping[Path, Result], today: date,
) -> Result:  # fmt: skip
    """One layer of ``whole`` with gates and verdict of its own."""
    labels = list(result.plan.get("defences", {"none": {}}))
    asked: list[str | Rule] = [*exprs, *policy.gates]
    gates = list(judge(asked, result.scores, result.utility, result.doubts, labels))
    for limit in policy.limits:
        bases = [baselines[path] for path in limit.results]
        why = _refusal(whole, result, limit, bases)
        name = layer_of(result)
        same = [] if why else [by_name(base)[name] for base in bases]
        gates += _limited(result, limit, same, labels, why)
    told = tuple(_weighed(gate, policy.hushes, today) for gate in gates)
    return replace(result, gates=told, verdict=conclude(told, result.scores, doubts=result.doubts))


def _weighed(gate: GateResult, hushes: Sequence[Hush], today: date) -> GateResult:
    """The gate with its suppression, and with whatever takes weight from it said in its reason."""
    said = ["a warning only"] if gate.severity == "warn" else []
    known = [h for h in hushes if h.id == gate.id and h.defence in (None, gate.defence)]
    known.sort(key=lambda hush: hush.defence is None)  # one for this defence goes first
    found = None
    if known:
        hush = known[0]
        active = today <= hush.expires
        found = Suppression(hush.reason, hush.owner, hush.expires.isoformat(), active)
        until = "suppressed until" if active else "no longer suppressed: expired on"
        said.append(f"{until} {found.expires} by {hush.owner} ({hush.reason})")
    return replace(gate, suppressed=found, reason="; ".join([gate.reason, *said]))


def _limited(
    result: Result, limit: Limit, bases: Sequence[Result], labels: list[str], why: str
) -> list[GateResult]:
    """One result for each row that the limit names; undecided where there is a ``why``."""
    gate = parse_gate(f"{limit.rule.expr}>0")
    rows = rows_of(result.scores, result.utility)
    results = []
    for label, row in named_rows(gate, rows, labels):
        place = (None, None, None) if label is None else (label, gate.attack, gate.metric)
        if why or isinstance(row, str):
            results.append(_outcome(limit, "inconclusive", why or str(row), place))
        else:
            results.append(_against(result, limit, row, bases))
    return results


def _refusal(whole: Result, part: Result, limit: Limit, bases: Sequence[Result]) -> str:
    """Why a baseline can't be held against this layer, or nothing."""
    for path, base in zip(limit.results, bases, strict=True):
        found = obstacles(whole, base, same_weights=False, layer=layer_of(part))
        if found:
            return f"not comparable with the baseline {path.name}: {'; '.join(found)}"
    if limit.spread is None:
        for (a, one), (b, other) in combinations(zip(limit.results, bases, strict=True), 2):
            if _measured(one) == _measured(other):
                return f"the baselines {a.name} and {b.name} are one run, which tells no spread"
    return ""


def _measured(result: Result) -> list[Score]:
    """The rows that the audit itself measured, without what people said of its pictures."""
    return [score for score in result.scores if score.attack != HUMAN]


def _against(result: Result, limit: Limit, row: Row, bases: Sequence[Result]) -> GateResult:
    """The row against the same one in every baseline."""
    place = (row.defence, row.attack, row.metric)
    there = [
        [other for other in rows_of(base.scores, base.utility)
         if (other.defence, other.attack, other.metric) == place][:1]
        for base in bases
    ]  # fmt: skip
    name = ".".join(place)
    if not all(there):
        return _outcome(limit, "inconclusive", f"{name} is not in the baseline", place)
    base = [found[0] for found in there]
    least = min(other.n for other in (row, *base))
    if least < limit.rule.min_n:
        few = f"{name} is from {least} where at least {limit.rule.min_n} are asked for"
        return _outcome(limit, "inconclusive", few, place)
    paired = all(same_faces(result, other) for other in bases)
    change = worsening(row, base, spread=limit.spread, paired=paired)
    if change is None:
        why = "the metric has no bad direction" if row.worse == "neither" else "not measured"
        return _outcome(limit, "inconclusive", f"{name}: {why}, here or in the baseline", place)
    by, low, high = change
    mean = sum(other.value or 0.0 for other in base) / len(base)
    said = (
        f"{name} is {row.value:.3g}, the baseline {mean:.3g}: worse by {by:+.3g} "
        f"({low:+.3g} to {high:+.3g})"
    )
    allowed = f" and {limit.allow:g}" if limit.allow else ""
    if low > limit.allow:
        return _outcome(limit, "fail", f"{said}: beyond the noise{allowed}", place, by, low)
    grave = grave_doubts(row, result.doubts)
    if grave:
        return _outcome(limit, "inconclusive", f"{said}, but in doubt: {grave}", place, by, low)
    return _outcome(limit, "pass", f"{said}: within the noise{allowed}", place, by, low)


def _outcome(
    limit: Limit,
    status: GateStatus,
    reason: str,
    place: tuple[str | None, str | None, str | None],
    value: float | None = None,
    bound: float | None = None,
) -> GateResult:
    rule = limit.rule
    names = ", ".join(path.name for path in limit.results)
    by = f" by more than {limit.allow:g}" if limit.allow else ""
    return GateResult(
        f"{rule.expr} worse than in {names}{by}", value, bound, limit.allow, status, reason, *place,
        id=rule.id, severity=rule.severity, file=rule.file, line=rule.line,
    )  # fmt: skip
