"""What a reader can do next: after the verdict, then what each doubt asks for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from leakaudit.core.by_layer import parts
from leakaudit.core.types import OPPOSITE, GateResult, Result
from leakaudit.report import tuning, view, words
from leakaudit.report.asked import ASKED, of_leakage

_KNOBS = {"none": "", "crafter": "beta", "crafter-z": "beta", "crafter-residual": "beta",
          "crafter-paper": "beta", "gaussian": "sigma"}  # fmt: skip
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
    if result.tuning:
        return _after_search(result)
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
    return Step(
        "Keep these gates where releases are built, so that a change of encoder, layer or "
        "defence is judged again.",
        f"leakaudit scan ... {_same_gates(result)} -o result.json -o report.html",
    )


def _after_search(result: Result) -> Step:
    status = result.verdict.status
    if status == "fail":
        return Step(
            "No setting that was tried keeps all targets. Ask for less, try another defence "
            "beside it, or split deeper, where features tell less of a face."
        )
    if status == "inconclusive":
        doubted = any(d.severity == "serious" for part in parts(result) for d in part.doubts)
        more = "Do first what the serious doubts below ask for." if doubted else ""
        told = f"The search decided nothing: {words.clean(result.tuning[0].reason)}. {more}"
        return Step(told.strip())
    return Step(tuning.caution(result), tuning.next_command(result))


def _same_gates(result: Result) -> str:
    """The options that ask for this result's gates, as a shell takes them."""
    typed = [words.clean(gate.expr) for gate in result.gates if not gate.file]
    asked = list(dict.fromkeys(typed))
    ruled = ["--policy FILE"] if len(asked) > MOST or len(typed) < len(result.gates) else []
    named = [f"--fail-on {shlex.quote(expr)}" for expr in asked] if len(asked) <= MOST else []
    return " ".join([*ruled, *named]) or '--fail-on "identification>0.1"'


def _after_breach(result: Result) -> Step:
    gate = next((g for g in view.gates(result) if g.status == "fail" and g.counts), None)
    if gate is None or not of_leakage(gate, result):
        return Step("A gate is breached. Its reason above says what was measured.")
    bare = gate.defence in (None, "none")
    if gate.attack == "utility":
        if bare:
            return Step(
                "The task does worse than was asked for without any defence: look at the head, at "
                "the attributes, and at the layer."
            )
        return Step(
            "The task loses more than was allowed. Take less of the defence (with crafter a "
            "smaller β), another one, or a layer at which the task needs less, and scan again."
        )
    command = _tune(gate)
    told = (
        "Undefended features tell too much: put a defence before they leave the device, or split "
        "deeper."
        if bare
        else "Strengthen the defence, and read its cost in the utility table."
    )
    found = " tune finds the least that keeps the limit, where one does." if command else ""
    return Step(f"A gate is breached. {told}{found}", command)


def _tune(gate: GateResult) -> str | None:
    """The search for a setting at which this gate would hold; None where it isn't known how."""
    asked = ASKED.search(gate.expr)
    name, _, rest = (gate.defence or "none").partition(":")
    if asked is None or gate.metric is None or (name != "none" and name not in _KNOBS):
        return None
    kept = [s for s in rest.split(",") if s and s.partition("=")[0].strip() != _KNOBS[name]]
    defence = "crafter" if name == "none" else name + (":" + ",".join(kept) if kept else "")
    path = f"{gate.attack}.{gate.metric}" if gate.attack else gate.metric
    target = f"{words.clean(path)}{OPPOSITE[asked[1]]}{asked[2]}"
    surely = "" if gate.expr.rstrip().endswith("@value") else " --surely"
    return (
        f"leakaudit tune ... --defence {shlex.quote(words.clean(defence))} "
        f"--target {shlex.quote(target)}{surely}"
    )
