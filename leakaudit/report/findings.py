"""What machines are told to act upon: gates that don't hold, and serious doubts, in one order."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

from leakaudit.core.types import Doubt, GateResult, Result
from leakaudit.report import depth, view
from leakaudit.report.inert import inert

Weight = Literal["breached", "undecided", "doubt", "warning", "suppressed"]

COMMAND_FILE = "leakaudit-command"
"""Stands for the command line where no policy file asked for a gate: readers want a file."""


@dataclass(frozen=True)
class Finding:
    """One thing to act upon; its strings are inert.

    ``weight`` is ``breached`` or ``undecided`` for gates that count, ``warning`` or ``suppressed``
    for those that don't. ``fingerprint`` (64 hex digits) stays the same from run to run.
    """

    rule: str
    weight: Weight
    name: str
    message: str
    file: str
    line: int
    fingerprint: str
    gate: GateResult | None = None
    doubt: Doubt | None = None


def findings(result: Result) -> tuple[Finding, ...]:
    """All gates that don't hold, failed first, then the serious doubts."""
    gates = [_of_gate(gate) for gate in view.gates(result) if gate.status != "pass"]
    doubts = [
        _of_doubt(doubt, layer)
        for layer, doubt in depth.doubts(result)
        if doubt.severity == "serious"
    ]
    return (*gates, *doubts)


def gate_name(gate: GateResult) -> str:
    """The gate as asked for and the row it read, inert."""
    asked = gate.expr if gate.id is None else f"{gate.id}: {gate.expr}"
    row = ", ".join(part for part in (gate.layer, gate.defence) if part is not None)
    return inert(f"{asked} [{row}]" if row else asked)


def weight(gate: GateResult) -> Weight:
    """How much a gate that doesn't hold weighs."""
    if gate.is_suppressed:
        return "suppressed"
    if not gate.counts:
        return "warning"
    return "breached" if gate.status == "fail" else "undecided"


def _of_gate(gate: GateResult) -> Finding:
    rule = "gate-breached" if gate.status == "fail" else "gate-undecided"
    at = () if gate.layer is None else (gate.layer,)
    place = (gate.id or gate.expr, gate.defence, gate.attack, gate.metric, *at)
    return Finding(
        rule, weight(gate), gate_name(gate), inert(gate.reason), inert(gate.file or COMMAND_FILE),
        gate.line or 1, _fingerprint(rule, *place), gate=gate,
    )  # fmt: skip


def _of_doubt(doubt: Doubt, layer: str | None) -> Finding:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", doubt.id).strip("-") or "unnamed"
    rule = f"doubt-{name}"
    at = () if layer is None else (layer,)
    # Of several rows of one doubt it depends on a run's luck which are there.
    named = [dict.fromkeys(row[k] for row in doubt.rows if row[k] != "*") for k in (0, 1)]
    behind = [name for names in named if len(names) == 1 for name in names]
    place = ", ".join((*at, *behind))
    return Finding(
        rule, "doubt", inert(f"{doubt.id} [{place}]" if place else doubt.id),
        inert(f"{doubt.raised_if}. {doubt.what_to_do}"), COMMAND_FILE, 1,
        _fingerprint(rule, doubt.raised_if, *at, *behind), doubt=doubt,
    )  # fmt: skip


def _fingerprint(*parts: str | None) -> str:
    text = "\0".join(part or "" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
