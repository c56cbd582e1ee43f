"""The audit as JUnit XML: a test case a gate, valid by the schema of Jenkins (junit-10.xsd)."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from leakaudit.core.by_layer import layer_of, parts
from leakaudit.core.types import Doubt, GateResult, Result
from leakaudit.report import depth, view
from leakaudit.report.findings import gate_name, weight
from leakaudit.report.inert import inert


def render_junit(result: Result) -> str:
    """JUnit XML: a breached gate is a failure, an undecided one an error.

    Gates that don't hold but don't count (``warn``, suppressed) are told as skipped. Without gates
    there is one case for the audit itself. Doubts stand in ``system-out``.
    """
    cases = [_case(gate, result) for gate in view.gates(result)] or [_ungated(result)]
    counts = {kind: str(sum(case.find(kind) is not None for case in cases)) for kind in _KINDS}
    total = {"tests": str(len(cases)), "failures": counts["failure"], "errors": counts["error"]}
    suite = ET.Element(
        "testsuite", {"name": "leakaudit", **total, "skipped": counts["skipped"],
                      "timestamp": inert(result.created)},
    )  # fmt: skip
    _properties(suite, result)
    suite.extend(cases)
    told = [inert(f"{result.verdict.status}: {result.verdict.reason}")]
    told += [_doubt(doubt, layer) for layer, doubt in depth.doubts(result)]
    ET.SubElement(suite, "system-out").text = "\n".join(told)
    root = ET.Element("testsuites", {"name": "leakaudit", **total})
    root.append(suite)
    ET.indent(root, " ")
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


_KINDS = ("failure", "error", "skipped")
_ELEMENTS = {
    "breached": "failure",
    "undecided": "error",
    "warning": "skipped",
    "suppressed": "skipped",
}


def _case(gate: GateResult, result: Result) -> ET.Element:
    case = ET.Element("testcase", {"classname": "leakaudit.gates", "name": gate_name(gate)})
    reason = inert(gate.reason)
    if gate.status != "pass":
        how = weight(gate)
        kind = f"gate-{gate.status}" if gate.counts else how
        ET.SubElement(case, _ELEMENTS[how], {"type": kind, "message": reason}).text = reason
    bearing = [_doubt(doubt, gate.layer) for doubt in depth.bearing(result, gate)]
    ET.SubElement(case, "system-out").text = "\n".join([reason, *bearing])
    return case


def _ungated(result: Result) -> ET.Element:
    name = "the audit finished; no gate was asked for"
    case = ET.Element("testcase", {"classname": "leakaudit", "name": name})
    ET.SubElement(case, "system-out").text = inert(result.verdict.reason)
    return case


def _properties(suite: ET.Element, result: Result) -> None:
    """What was audited, for those who read the file alone."""
    told = {
        "leakaudit": result.tool.get("version", ""),
        "verdict": result.verdict.status,
        "exit_code": str(result.verdict.exit_code),
        "encoder": str(result.subject.get("encoder", "")),
        "layer": _layers(result),
        "preset": str(result.plan.get("preset", "")),
        "seed": str(result.seed),
    }
    held = ET.SubElement(suite, "properties")
    for name, value in told.items():
        ET.SubElement(held, "property", {"name": name, "value": inert(value)})


def _layers(result: Result) -> str:
    """The layer, or all of them by comma."""
    if not result.layers:
        return str(result.subject.get("layer", ""))
    return ", ".join(layer_of(part) for part in parts(result))


def _doubt(doubt: Doubt, layer: str | None) -> str:
    kind = "serious doubt" if doubt.severity == "serious" else "note"
    kind += "" if layer is None else f" at {layer}"
    return inert(f"{kind} ({doubt.id}): {doubt.raised_if}. {doubt.what_to_do}")
