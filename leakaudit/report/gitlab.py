"""The findings as a GitLab code quality report (the part of Code Climate's format it reads)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from leakaudit.core.types import Result
from leakaudit.report.findings import Finding, Weight, findings

SEVERITIES: Mapping[Weight, str] = MappingProxyType(
    {
        "breached": "blocker",
        "undecided": "critical",
        "doubt": "major",
        "warning": "minor",
        "suppressed": "info",
    }
)


def render_gitlab(result: Result) -> str:
    """A JSON array of findings; ``blocker`` is a breached gate, ``critical`` an undecided one."""
    rows: dict[str, dict[str, object]] = {}
    for finding in findings(result):  # GitLab wants each fingerprint once
        rows.setdefault(finding.fingerprint, _row(finding))
    return json.dumps(list(rows.values()), indent=1, ensure_ascii=True) + "\n"


def _row(finding: Finding) -> dict[str, object]:
    return {
        "description": f"{finding.name}: {finding.message}",
        "check_name": f"leakaudit-{finding.rule}",
        "fingerprint": finding.fingerprint,
        "severity": SEVERITIES[finding.weight],
        "location": {"path": finding.file, "lines": {"begin": finding.line}},
    }
