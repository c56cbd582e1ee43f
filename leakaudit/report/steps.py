"""What a reader can do next: after the verdict, then what each doubt asks for."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from leakaudit.core.by_layer import parts
from leakaudit.core.types import GateResult, Result
from leakaudit.report import tuning, view, words

_ASKED = re.compile(r"\s*(<=|>=|<|>)\s*([-+0-9.eE]+)\s*(?:@value)?\s*$")
_HELD = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
MOST = 3
"""So many gates a suggested command repeats; a policy holds more in less space."""


@dataclass(frozen=True)
class Step:
    """Something to do next, with the command for it where there is one."""

    text: str
    command: str | None = None


def next_steps(result: Result) -> tuple[Step, ...]:
    """What the verdict asks for, a defence where none was tried, and what doubts ask for."""
    steps = [_after(result)]
    if all(name == "none" for name in view.defences(result)) and result.verdict.status != "fail":
        steps.append(
            Step(
                "Only undefended features were attacked. Put a defence beside them.",
                "leakaudit scan ... --defence crafter:beta=2",
            )
        )
    asked = dict.fromkeys(d.what_to_do for part in parts(result) for d in view.doubts(part))
    return (*steps, *(Step(text) for text in asked))


def _after(result: Result) -> Step:
    status = result.verdict.status
    if status == "fail":
        return _after_breach(result)
    if status == "inconclusive":
        return Step(
            "The gates could not be decided. Do first what the serious doubts below ask for, then "
            "scan again with the same gates."
        )
    if status == "ungated":
        return Step(
            "No gate decided here. Decide how many faces may be named at most, and let the scan "
            "judge it; the exit code follows.",
            'leakaudit scan ... --fail-on "identification>0.1"',
        )
    if result.tuning:
        return Step(tuning.caution(result), tuning.next_command(result))
    return Step(
        "Keep these gates where releases are built, so that a change of encoder, layer or "
        "defence is judged again.",
        f"leakaudit scan ... {_same_gates(result)} -o result.json -o report.html",
    )


def _same_gates(result: Result) -> str:
    """The options that ask for this result's gates, as a shell takes them."""
    if any(gate.file for gate in result.gates):
        return "--policy FILE"
    asked = list(dict.fromkeys(words.clean(gate.expr) for gate in result.gates))
    if not 0 < len(asked) <= MOST:
        return "--policy FILE" if asked else '--fail-on "identification>0.1"'
    return " ".join(f"--fail-on {shlex.quote(expr)}" for expr in asked)


def _after_breach(result: Result) -> Step:
    if result.tuning:
        return Step(
            "No setting that was tried keeps all targets. Ask for less, try another defence "
            "beside it, or split deeper, where features tell less of a face."
        )
    gate = next(g for g in view.gates(result) if g.status == "fail" and g.counts)
    if gate.attack == "utility":
        return Step(
            "The task loses more than was allowed. Take less of the defence (with crafter a "
            "smaller β), another one, or a layer at which the task needs less, and scan again."
        )
    return Step(
        "A gate is breached. "
        + (
            "Undefended features tell too much: put a defence before they leave the device, or "
            "split deeper. "
            if gate.defence in (None, "none")
            else "Strengthen the defence, and read its cost in the utility table. "
        )
        + "tune finds the least that keeps the limit, where one does.",
        _tune(gate),
    )


def _tune(gate: GateResult) -> str:
    """The search for a setting at which this gate would hold."""
    asked = _ASKED.search(gate.expr)
    name = (gate.defence or "none").partition(":")[0]
    defence = "crafter" if name == "none" else name
    named = "" if "." in defence else f" --defence {shlex.quote(words.clean(defence))}"
    if asked is None or gate.metric is None:
        return f"leakaudit tune ...{named}"
    path = f"{gate.attack}.{gate.metric}" if gate.attack else gate.metric
    target = f"{words.clean(path)}{_HELD[asked[1]]}{asked[2]}"
    return f"leakaudit tune ...{named} --target {shlex.quote(target)}"
