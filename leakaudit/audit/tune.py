"""Tuning: the setting of a defence that meets a privacy target at the least utility drop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import final

from leakaudit.attacks.base import Attack
from leakaudit.audit import gates
from leakaudit.audit.gates import Gate, Row
from leakaudit.audit.knobs import Knob
from leakaudit.audit.plan import NamedDefence, Plan
from leakaudit.audit.run import Audit, Progress, guarded
from leakaudit.audit.scan import ScanOptions, result_of
from leakaudit.audit.store import RunStore
from leakaudit.core.errors import UsageError
from leakaudit.core.types import OPPOSITE, Figure, GateResult, Result, Tried, Tuning
from leakaudit.maths.threshold_search import Found, Measured, Search, find
from leakaudit.models.subject import Subject

DEFAULT_TARGET = "worst-static.identification_excess<=0.1"
_FAR = 1e9
"""What a row that wasn't measured counts as: far beyond every limit."""


@final
@dataclass(frozen=True)
class Target:
    """What shall hold of a tuned defence: ``[ATTACK.]METRIC<=NUMBER``.

    Held against the row's own value, or with ``surely`` against the unfavourable end of its
    interval. ``gate`` fails where it doesn't hold.
    """

    expr: str
    gate: Gate
    surely: bool = False

    @staticmethod
    def parse(expr: str, *, surely: bool = False) -> Target:
        """The target that a user wrote; UsageError says what is wrong with it."""
        where = f"--target {expr!r}"
        todo = 'Write [ATTACK.]METRIC OP NUMBER, for example "worst.identification<=0.1"'
        gate = gates.parse_gate(expr, where=where, what="target", todo=todo)
        if gate.defence is not None:
            raise UsageError(
                "A target names no defence: it is for those that are tuned", where=where
            )
        if gates.finds_good(gate) is False:
            todo = f"Write {gates.turned(gate.op)}: a target says what shall hold, not what fails"
            raise UsageError(
                f"This target asks for a {gate.metric} that is bad", where=where, todo=todo
            )
        if gate.at_value and surely:
            raise UsageError("@value is the opposite of --surely", where=where)
        return Target(expr.strip(), gate, surely)

    @property
    def path(self) -> str:
        """Attack and metric."""
        return f"{self.gate.attack}.{self.gate.metric}"

    @property
    def bounds_above(self) -> bool:
        """Whether the number shall stay below the limit."""
        return self.gate.op in ("<", "<=")

    def beyond(self, row: Row | None) -> Measured:
        """How far the row is beyond the limit, at or below 0 where it keeps it."""
        if row is None or row.value is None or row.low is None or row.high is None:
            return (_FAR, _FAR, _FAR)
        middle = row.high if self.bounds_above else row.low
        middle = middle if self.surely else row.value
        side = 1 if self.bounds_above else -1
        strict = 1e-9 if self.gate.op in ("<", ">") else 0.0
        ends = self.beyond_ends(row.low, row.high)
        return (side * (middle - self.gate.threshold) + strict, *ends)

    def beyond_ends(self, low: float, high: float) -> tuple[float, float]:
        """How far an interval's ends are beyond the limit, the better one first."""
        if self.bounds_above:
            return low - self.gate.threshold, high - self.gate.threshold
        return self.gate.threshold - high, self.gate.threshold - low

    def keeps(self, level: float | None) -> bool:
        """Whether this number keeps the limit; one that isn't known is no breach."""
        if level is None:
            return True
        excess = level - self.gate.threshold
        return (excess if self.bounds_above else -excess) <= 1e-9

    def level(self, beyond: float) -> float | None:
        """The row's number at such a distance from the limit."""
        if beyond >= _FAR:
            return None
        return self.gate.threshold + (beyond if self.bounds_above else -beyond)

    def gate_on(self, label: str) -> str:
        """The gate that is breached where this target doesn't hold of ``label``."""
        value = "" if self.surely else "@value"
        op = OPPOSITE[self.gate.op]
        return f'"{label}".{self.path}{op}{_exactly(self.gate.threshold)}{value}'


def _exactly(number: float) -> str:
    """A number in as few digits as say it exactly."""
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


@final
@dataclass(frozen=True)
class TuneOptions:
    """How far a search goes: ``evaluations`` settings a defence, to a factor ``precision``.

    ``values`` are measured in any case, for a trade-off curve that is wider than the search needs.
    """

    evaluations: int = 6
    precision: float = 1.3
    values: tuple[float, ...] = ()


def tune(
    subject: Subject, plan: Plan, knobs: Sequence[Knob], targets: Sequence[Target],
    store: RunStore, options: ScanOptions, how: TuneOptions, progress: Progress,
) -> Result:  # fmt: skip
    """A result with one row a setting that was tried, and ``tuning`` that says which one to take.

    ``plan`` has no defence but ``none``; of its attacks those are run that the targets read. The
    verdict is on the first knob's choice: fail where its targets can't be met, inconclusive where
    a doubt bears on them. The others are compared, and only warned of.
    """
    start = time.perf_counter()
    refuse_twins(knobs)
    attacks = needed(plan, targets)
    choosing = any(target.gate.attack == "chosen" for target in targets)
    audit = Audit(subject, replace(plan, attacks=attacks), store, progress, choosing=choosing)
    with guarded(audit):
        audit.measure(plan.defences[0])
        check_targets(gates.rows_of(audit.complete(), audit.utility), audit.plan, targets)
        searches = [_searched(audit, knob, targets, how) for knob in knobs]
        audit.plan = replace(audit.plan, defences=_in_order(plan.defences[0], knobs, searches))
        found = audit.findings((), compared=_choices(plan.defences[0], knobs, searches))
        plan = audit.plan
    result = result_of(found, subject, plan, options, seconds=time.perf_counter() - start)
    tuned = tuple(
        _told(knob, search, targets, result) for knob, search in zip(knobs, searches, strict=True)
    )
    return concluded(replace(result, tuning=tuned), targets)


def refuse_twins(knobs: Sequence[Knob]) -> None:
    """UsageError for two searches whose rows would have one name."""
    named = dict[str, str]()
    for knob in knobs:
        label = knob.at(knob.start).label
        if label in named:
            raise UsageError(
                f"These two would have rows of one name: {named[label]} and {knob.spec}",
                where="--defence", todo="Say one of them only, or name their files differently",
            )  # fmt: skip
        named[label] = knob.spec


def refuse_beyond(knobs: Sequence[Knob], values: Iterable[float]) -> None:
    """UsageError for a setting to measure that lies outside of what is searched."""
    for value in values:
        if not any(knob.least <= value <= knob.most for knob in knobs):
            spans = ", ".join(f"{knob.spec}: {knob.least:g} to {knob.most:g}" for knob in knobs)
            raise UsageError(
                f"{value:g} lies outside of what is searched ({spans})",
                where="--values", todo="Widen it by --between LEAST,MOST",
            )  # fmt: skip


def _in_order(
    bare: NamedDefence, knobs: Sequence[Knob], searches: Sequence[Found]
) -> tuple[NamedDefence, ...]:
    """``none``, then each defence's settings as they grow, however the search came by them."""
    tried = [
        knob.at(value) for knob, search in zip(knobs, searches, strict=True)
        for value in sorted(search.figures)
    ]  # fmt: skip
    return (bare, *tried)


def _choices(
    bare: NamedDefence, knobs: Sequence[Knob], searches: Sequence[Found]
) -> tuple[NamedDefence, ...]:
    """``none`` and each defence at its choice, or nearest to the target where there is none."""
    return (bare, *(k.at(_nearest(s)) for k, s in zip(knobs, searches, strict=True)))


def _nearest(search: Found) -> float:
    """The choice, or else the setting at which the first target read came nearest to its limit."""
    if search.chosen is not None:
        return search.chosen
    return min(search.figures, key=lambda value: (search.figures[value][0][0], -value))


def needed(plan: Plan, targets: Iterable[Target]) -> tuple[Attack, ...]:
    """The attacks whose rows the targets read: static ones only where no other is read."""
    adaptive = {attack.name for attack in plan.attacks if attack.holds.adaptive}
    read = {target.gate.attack for target in targets}
    if read & ({"worst", "worst-adaptive", "chosen"} | adaptive):
        return plan.attacks
    return tuple(attack for attack in plan.attacks if attack.name not in adaptive)


def check_targets(rows: Iterable[Row], plan: Plan, targets: Iterable[Target]) -> None:
    """UsageError for a target whose row no scan of this plan has, with the nearest name.

    ``rows`` are those of undefended features, measured or foreseen. Rows that only defended
    features have, as ``worst-adaptive``, are seen when they come.
    """
    known = list(rows)
    adaptive = {attack.name for attack in plan.attacks if attack.holds.adaptive}
    for target in targets:
        if target.gate.attack in adaptive | {"worst-adaptive"}:
            continue
        ((_, row),) = gates.named_rows(target.gate, known, ["none"])
        if isinstance(row, str):
            raise UsageError(f"This target can't be read: {row}", where=f"--target {target.expr!r}")


def _searched(audit: Audit, knob: Knob, targets: Sequence[Target], how: TuneOptions) -> Found:
    """The settings of one defence that were measured, and the one that is wanted."""
    private = [target for target in targets if not _costs(target)]
    read = private or list(targets)

    def measure(value: float) -> tuple[Measured, ...]:
        named = knob.at(value)
        audit.measure(named)
        rows = _rows(gates.rows_of(audit.complete(), audit.utility))
        return tuple(target.beyond(rows.get(_place(named.label, target))) for target in read)

    search = Search(
        start=knob.start, least=knob.least, most=knob.most, evaluations=how.evaluations,
        precision=how.precision, upwards=bool(private),
    )  # fmt: skip
    first = (float(f"{value:g}") for value in how.values if knob.least <= value <= knob.most)
    return find(measure, search, first=tuple(dict.fromkeys(first)))  # as labels tell them apart


def _costs(target: Target) -> bool:
    """Whether this target is on what a defence costs: it gets harder with more privacy."""
    return target.gate.attack == "utility"


_Place = tuple[str, str, str]


def _place(label: str, target: Target) -> _Place:
    return (label, target.gate.attack, target.gate.metric)


def _rows(rows: Iterable[Row]) -> dict[_Place, Row]:
    return {(row.defence, row.attack, row.metric): row for row in rows}


def _told(knob: Knob, search: Found, targets: Sequence[Target], result: Result) -> Tuning:
    """What the search came to, with every target's figure at every setting."""
    rows = _rows(gates.rows_of(result.scores, result.utility))
    private = [target for target in targets if not _costs(target)] or list(targets)
    tried = []
    for value in search.figures:
        label = knob.at(value).label
        figures = []
        for target in targets:
            row = rows.get(_place(label, target))
            fit = search.fitted[value][private.index(target)] if target in private else None
            figures.append(_figure(target, row, fit))
        tried.append(Tried(value, label, tuple(figures)))
    return concluded_search(knob, tuple(tried), search.chosen, targets)


def _figure(target: Target, row: Row | None, fit: float | None) -> Figure:
    values = (None, None, None) if row is None else (row.value, row.low, row.high)
    fitted = None if fit is None else target.level(fit)
    return Figure(target.expr, *values, fitted, target.beyond(row)[0] <= 1e-12)


def concluded_search(
    knob: Knob, tried: tuple[Tried, ...], chosen: float | None, targets: Sequence[Target]
) -> Tuning:
    """The search in words: met, missed, or met at a cost that another target forbids."""
    exprs = tuple(target.expr for target in targets)
    label = next((one.label for one in tried if one.value == chosen), None)
    low, high = _between(tried, targets)
    name = knob.name
    if chosen is None:
        best = _told_of(tried, targets)
        if _keeps_all(best):
            upwards = any(not _costs(target) for target in targets)  # more of it is stricter
            ends = [one.value for one in tried]
            stricter = best.value < max(ends) if upwards else best.value > min(ends)
            reason = _not_believed(name, best, targets, stricter=stricter)
            return Tuning(knob.spec, name, exprs, "undecided", reason, None, None, low, high, tried)
        said = "; ".join(_said(figure) for figure in best.figures)
        values = [one.value for one in tried]
        span = f"from {min(values):g} to {max(values):g} " if len(values) > 1 else ""
        reason = f"no {name} that was tried {span}meets it: {said} at {name}={best.value:g}"
        private = any(not _costs(target) for target in targets)
        end, nearest = (knob.most, max(values)) if private else (knob.least, min(values))
        if not 0.99 < nearest / end < 1.01:
            reason += f"; {end:g}, where the search would end, takes more --evaluations"
        return Tuning(knob.spec, name, exprs, "missed", reason, None, None, low, high, tried)
    at = next(one for one in tried if one.value == chosen)
    said = "; ".join(_said(figure) for figure in at.figures)
    broken = [figure for figure in at.figures if not figure.holds]
    if broken:
        reason = f"{name}={chosen:g} is the first that is private enough, but: {said}"
        return Tuning(knob.spec, name, exprs, "missed", reason, chosen, label, low, high, tried)
    return Tuning(
        knob.spec, name, exprs, "met", f"{name}={chosen:g}: {said}", chosen, label, low, high, tried
    )


def _not_believed(name: str, one: Tried, targets: Sequence[Target], *, stricter: bool) -> str:
    """Why a setting that keeps every limit by its own figures wasn't chosen.

    ``stricter`` where a stricter setting was measured.
    """
    fits = [figure for figure in one.figures if figure.fitted is not None]
    told = ", ".join(f"{figure.fitted:.3g} for {figure.target}" for figure in fits)
    said = "; ".join(_said(figure) for figure in one.figures)
    if all(
        target.keeps(figure.fitted) for target, figure in zip(targets, one.figures, strict=True)
    ):
        why = (
            "and a stricter one doesn't: either may be chance. More --evaluations or "
            "--attacked-people may tell"
            if stricter
            else "and of several looks the luckiest one is no proof. More --attacked-people or a "
            "wider --between may tell"
        )
        return f"{name}={one.value:g} alone meets it ({said}), {why}"
    return (
        f"{name}={one.value:g} meets it by its own figures ({said}), but settings that should be "
        f"stricter don't: the fit along all of them is {told}. More --evaluations or "
        "--attacked-people may tell"
    )


def _said(figure: Figure) -> str:
    path = figure.target
    if figure.value is None or figure.low is None or figure.high is None:
        return f"{path} wasn't measured"
    return f"{figure.value:.3g} ({figure.low:.3g} to {figure.high:.3g}) for {path}"


def _told_of(tried: Sequence[Tried], targets: Sequence[Target]) -> Tried:
    """The setting that is told of where none was chosen: one that kept every limit, if any did."""
    return _most_private([one for one in tried if _keeps_all(one)] or tried, targets)


def _keeps_all(one: Tried) -> bool:
    return all(figure.holds for figure in one.figures)


def _most_private(tried: Sequence[Tried], targets: Sequence[Target]) -> Tried:
    """Where the first target on privacy (on anything, where there is none) came nearest to it."""
    first = next((k for k, target in enumerate(targets) if not _costs(target)), 0)
    sign = 1 if targets[first].bounds_above else -1
    known = [one for one in tried if one.figures[first].value is not None]
    return min(
        known or tried, key=lambda one: (sign * (one.figures[first].value or 0.0), -one.value)
    )


def _between(
    tried: Sequence[Tried], targets: Sequence[Target]
) -> tuple[float | None, float | None]:
    """The greatest setting that surely fails and the least above it that surely holds."""
    fails, holds = [], []
    for one in tried:
        spans = [
            target.beyond_ends(figure.low, figure.high)
            for target, figure in zip(targets, one.figures, strict=True)
            if not _costs(target) and figure.low is not None and figure.high is not None
        ]
        if any(low > 0 for low, _ in spans):
            fails.append(one.value)
        elif spans and all(high <= 0 for _, high in spans):
            holds.append(one.value)
    low = max(fails, default=None)
    return low, min((value for value in holds if low is None or value > low), default=None)


def concluded(result: Result, targets: Sequence[Target]) -> Result:
    """The result with one gate a target on each choice, and the verdict on the first of them."""
    labels = list(result.plan["defences"])
    told: list[GateResult] = []
    for k, tuned in enumerate(result.tuning):
        label = tuned.label or _told_of(tuned.tried, targets).label
        exprs: list[str | gates.Rule] = [
            gates.Rule(target.gate_on(label), severity="warn" if k else "fail")
            for target in targets
        ]
        judged = gates.judge(exprs, result.scores, result.utility, result.doubts, labels)
        # A setting that holds but wasn't chosen isn't believed, so that its gates decide nothing.
        if tuned.label is None and all(gate.status == "pass" for gate in judged):
            judged = tuple(
                replace(gate, status="inconclusive", reason=tuned.reason) for gate in judged
            )
        told += judged
    status = tuple(
        replace(tuned, status="undecided")
        if tuned.status == "met" and _undecided(told, tuned)
        else tuned
        for tuned in result.tuning
    )
    verdict = gates.conclude(tuple(told), result.scores)
    return replace(result, gates=tuple(told), tuning=status, verdict=verdict)


def _undecided(told: Iterable[GateResult], tuned: Tuning) -> bool:
    return any(g.defence == tuned.label and g.status == "inconclusive" for g in told)
