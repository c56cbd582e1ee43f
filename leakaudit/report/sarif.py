"""The findings as SARIF 2.1.0, with the fields that GitHub's code scanning reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from leakaudit.core.types import Result
from leakaudit.report import mapping
from leakaudit.report.findings import Finding, Weight, findings
from leakaudit.report.inert import inert

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS: Mapping[Weight, str] = MappingProxyType(
    {
        "breached": "error",
        "undecided": "warning",
        "doubt": "warning",
        "warning": "note",
        "suppressed": "note",
    }
)
_GATE_RULES = MappingProxyType(
    {
        "gate-breached": (
            "A privacy gate is breached",
            "The unfavourable end of the measured interval lies beyond the threshold: more of the "
            "people can be recognised from their features, or more utility is lost, than was "
            "allowed. Strengthen the defence, split the network later, or decide on another "
            "threshold; then scan again.",
            "error",
        ),
        "gate-undecided": (
            "A privacy gate can't be decided",
            "The row wasn't measured, has too few samples, or a serious doubt bears on it. Do "
            "what the reason and the doubts ask for, then scan again.",
            "warning",
        ),
    }
)


def render_sarif(result: Result) -> str:
    """SARIF 2.1.0 text: breached and undecided gates and serious doubts as results.

    Level ``error`` is a breached gate that counts. The exit code stands in the invocation.
    """
    found = findings(result)
    rules = {name: _gate_rule(name) for name in _GATE_RULES}
    for finding in found:
        if finding.doubt is not None:
            rules.setdefault(finding.rule, _doubt_rule(finding))
    order = list(rules)
    run = {
        "tool": {
            "driver": {
                "name": "leakaudit",
                "version": inert(result.tool.get("version", "")),
                "rules": list(rules.values()),
            }
        },
        "automationDetails": {"id": "leakaudit/"},
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": result.verdict.exit_code,
                "exitCodeDescription": inert(
                    f"{result.verdict.status}: {result.verdict.reason}"
                ),
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [_row(finding, order.index(finding.rule)) for finding in found],
    }  # fmt: skip
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def _gate_rule(name: str) -> dict[str, Any]:
    title, text, level = _GATE_RULES[name]
    return _rule(name, title, text, level)


def _doubt_rule(finding: Finding) -> dict[str, Any]:
    doubt = finding.doubt
    assert doubt is not None
    title = f"Serious doubt: {inert(doubt.raised_if)}"
    text = inert(f"{doubt.why} {doubt.what_to_do}")
    return _rule(finding.rule, title, text, "warning")


def _rule(name: str, title: str, text: str, level: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": "".join(word.capitalize() for word in re.split(r"[-_]+", name)),
        "shortDescription": {"text": _message(title)[:1024]},
        "fullDescription": {"text": _message(text)[:1024]},
        "help": {"text": _message(text)},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["privacy", "biometrics"], "precision": "high"},
    }


def _row(finding: Finding, index: int) -> dict[str, Any]:
    line = finding.line
    region = {"startLine": line, "startColumn": 1, "endLine": line, "endColumn": 2}
    where = {"artifactLocation": {"uri": _uri(finding.file)}, "region": region}
    row: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": LEVELS[finding.weight],
        "message": {"text": _message(f"{finding.name}: {finding.message}")},
        "locations": [{"physicalLocation": where}],
        "partialFingerprints": {
            "leakaudit/v1": finding.fingerprint,
            "primaryLocationLineHash": f"{finding.fingerprint[:16]}:1",
        },
    }
    gate = finding.gate
    known = gate.suppressed if gate is not None else None
    entries = mapping.tags(gate.metric, gate.attack) if gate is not None else []
    if entries:
        row["properties"] = {"tags": entries}
    if known is not None:
        why = inert(f"{known.reason} (owner {known.owner}, until {known.expires})")
        row["suppressions"] = [
            {
                "kind": "external",
                "status": "accepted" if known.active else "rejected",
                "justification": why,
            }
        ]
    return row


def _message(text: str) -> str:
    """Literal text: SARIF would make links of ``[a](b)`` and placeholders of ``{0}``."""
    escaped = re.sub(r"([\\\[\]])", r"\\\1", text)
    return escaped.replace("{", "{{").replace("}", "}}")


def _uri(path: str) -> str:
    """A relative reference, whatever the file is called."""
    return quote(path.replace("\\", "/").lstrip("/"), safe="/") or "-"
