"""What JUnit (Jenkins' junit-10.xsd) and SARIF 2.1.0 allow, as far as our output goes.

Neither schema ships with a package that could be a test's dependency, so the rules that bear on
what we write are told here; both name each key that is allowed, so a new one is a failure.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

_RESULT = {"type", "message"}
_TOTALS = {"tests", "failures", "errors"}
JUNIT = {  # element: needed attributes, allowed ones, allowed children
    "testsuites": (set(), {"name", "time", *_TOTALS}, {"testsuite"}),
    "testsuite": (
        {"name", *_TOTALS},
        {"name", *_TOTALS, "skipped", "timestamp", "hostname", "id", "package", "time", "group"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, {"name", "value"}, set()),
    "testcase": (
        {"name"},
        {"name", "time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": (set(), _RESULT, set()),
    "error": (set(), _RESULT, set()),
    "skipped": (set(), _RESULT, set()),
    "system-out": (set(), set(), set()),
}


def junit_problems(element: ET.Element) -> list[str]:
    """What the schema would object to in this element and below."""
    needed, allowed, children = JUNIT[element.tag]
    found = set(element.attrib)
    wrong = [f"<{element.tag}> lacks {name}" for name in needed - found]
    wrong += [f"<{element.tag}> may not have {name}" for name in found - allowed]
    for child in element:
        if child.tag not in children:
            wrong.append(f"<{element.tag}> may not hold <{child.tag}>")
        else:
            wrong += junit_problems(child)
    return wrong


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
SARIF = _object(
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
