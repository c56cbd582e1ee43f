"""What a gate asks for: less leakage, or whether the audit could tell anything."""

from __future__ import annotations

import re

from leakaudit.core.by_layer import parts
from leakaudit.core.study import HUMAN
from leakaudit.core.types import GateResult, Result, out_of_reach
from leakaudit.report import view

ASKED = re.compile(r"\s*(<=|>=|<|>)\s*([-+0-9.eE]+)\s*(?:@value)?\s*$")
"""How a gate's expression ends: operator and threshold."""


def of_leakage(gate: GateResult, result: Result) -> bool:
    """Whether less leakage, or more utility, is what this gate asks for.

    Others ask whether the audit could tell anything: of originals, controls, participants, or that
    a number that should be low is high.
    """
    attack, asked = gate.attack or "worst", ASKED.search(gate.expr)
    if attack == "utility":
        return True
    if attack in (view.CEILING, HUMAN) or attack.startswith("control-") or asked is None:
        return False
    grows = next((s.leak_grows for p in parts(result) for s in p.scores if s.metric == gate.metric),
                 None)  # fmt: skip
    return grows is not None and (asked[1] in (">", ">=")) is (grows == "up")


def on_privacy(gate: GateResult, result: Result) -> bool:
    """Whether this gate bounds what leaks, in a way that could fail: what "safe" may rest on."""
    if gate.attack == "utility" or not of_leakage(gate, result):
        return False
    asked = ASKED.search(gate.expr)
    return asked is not None and not out_of_reach(gate.metric or "", asked[1], gate.threshold)
