"""What JUnit and SARIF 2.1.0 allow: their official schemas, and what GitHub asks for on top.

The schemas lie in ``schemas/`` with where they are from. The rules below name each key that
GitHub's code scanning reads, and its limits: a new key is a failure though SARIF would allow it.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import xmlschema

SCHEMAS = Path(__file__).parent / "schemas"


@functools.cache
def _junit() -> xmlschema.XMLSchema10:
    return xmlschema.XMLSchema10(SCHEMAS / "junit-10.xsd")


@functools.cache
def _sarif() -> jsonschema.protocols.Validator:
    schema = json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def junit_problems(text: str) -> list[str]:
    """What Jenkins' schema objects to in this XML text."""
    return [f"{error.path}: {error.reason}" for error in _junit().iter_errors(text)]


def sarif_problems(log: Any) -> list[str]:
    """What the schema of OASIS, and then GitHub, object to in this log."""
    found = [*_sarif().iter_errors(log), *jsonschema.Draft202012Validator(GITHUB).iter_errors(log)]
    return [f"{error.json_path}: {error.message}" for error in found]


def _object(needed: str, **properties: object) -> dict:
    return {
        "type": "object", "required": needed.split(), "additionalProperties": False,
        "properties": properties,
    }  # fmt: skip


_TEXT = {"type": "string", "minLength": 1}
_NUMBER = {"type": "integer", "minimum": 1}
_LEVEL = {"enum": ["none", "note", "warning", "error"]}
_MESSAGE = _object("text", text=_TEXT, markdown=_TEXT)
_RULE = _object(
    "id shortDescription fullDescription help defaultConfiguration",  # GitHub shows all of them
    id={"type": "string", "pattern": "^[A-Za-z0-9_-]{1,255}$"},
    name={"type": "string", "maxLength": 255},
    shortDescription=_object("text", text={**_TEXT, "maxLength": 1024}),
    fullDescription=_object("text", text={**_TEXT, "maxLength": 1024}),
    help=_MESSAGE,
    helpUri={"type": "string", "format": "uri"},
    defaultConfiguration=_object("level", level=_LEVEL),
    properties={"type": "object", "properties": {
        "tags": {"type": "array", "uniqueItems": True, "maxItems": 20, "items": _TEXT},
        "precision": {"enum": ["very-high", "high", "medium", "low"]}}},
)  # fmt: skip
_PLACE = _object(
    "artifactLocation region",
    artifactLocation=_object("uri", uri={"type": "string", "pattern": "^[A-Za-z0-9_.~%/-]+$"}),
    region=_object(
        "startLine", startLine=_NUMBER, startColumn=_NUMBER, endLine=_NUMBER, endColumn=_NUMBER
    ),
)
_ROW = _object(
    "ruleId ruleIndex level message locations partialFingerprints",
    ruleId=_TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=_LEVEL,
    message=_MESSAGE,
    locations={"type": "array", "minItems": 1, "maxItems": 10,
               "items": _object("physicalLocation", physicalLocation=_PLACE)},
    partialFingerprints={"type": "object", "additionalProperties": _TEXT,
                         "required": ["primaryLocationLineHash"]},
    properties=_object("tags", tags={"type": "array", "uniqueItems": True, "items": _TEXT}),
    suppressions={"type": "array", "items": _object(
        "kind", kind={"enum": ["inSource", "external"]}, justification=_TEXT,
        status={"enum": ["accepted", "underReview", "rejected"]})},
)  # fmt: skip
GITHUB = _object(
    "version runs $schema",
    **{"$schema": {"type": "string", "format": "uri"}},
    version={"const": "2.1.0"},
    runs={"type": "array", "minItems": 1, "maxItems": 20, "items": _object(
        "tool results",
        tool=_object("driver", driver=_object(
            "name version rules", name={"const": "leakaudit"}, version={"type": "string"},
            rules={"type": "array", "items": _RULE, "uniqueItems": True})),
        automationDetails=_object("id", id=_TEXT),
        invocations={"type": "array", "items": _object(
            "executionSuccessful", executionSuccessful={"type": "boolean"},
            exitCode={"type": "integer"}, exitCodeDescription={"type": "string"})},
        columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
        results={"type": "array", "items": _ROW, "maxItems": 25000},
    )},
)  # fmt: skip
