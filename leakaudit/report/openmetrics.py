"""The result as OpenMetrics text, for a metrics report or a push gateway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from leakaudit.core.by_layer import layer_of, parts
from leakaudit.core.types import GateResult, Result
from leakaudit.report import view
from leakaudit.report.inert import inert

Sample = tuple[dict[str, str], float]


def render_openmetrics(result: Result) -> str:
    """Families of samples, each named with type and meaning, up to ``# EOF``.

    What wasn't measured has no sample. Exit code and status of the verdict are among them. Where
    several layers were scanned, each sample says of which it is.
    """
    status = ("pass", "fail", "inconclusive", "ungated")
    families: tuple[tuple[str, str, str, Iterable[Sample]], ...] = (
        ("leakaudit_run", "info", "What was audited.",
         [(_about(part), 1) for part in parts(result)]),
        ("leakaudit_exit_code", "gauge", "Exit code of the verdict.",
         [({}, result.verdict.exit_code)]),
        ("leakaudit_verdict", "gauge", "1 for the status that the audit ended with.",
         [({"status": name}, result.verdict.status == name) for name in status]),
        ("leakaudit_gate", "gauge", "1 for the status that a gate ended with.", _gates(result)),
        ("leakaudit_doubts", "gauge", "Doubts by severity.",
         [({**_layer(result, part), "severity": kind},
           sum(d.severity == kind for d in part.doubts))
          for part in parts(result) for kind in ("serious", "note")]),
        ("leakaudit_score", "gauge", "Privacy scores and the ends of their intervals.",
         _scores(result)),
        ("leakaudit_utility", "gauge", "Utility kept, and its drop against none.",
         _utility(result)),
    )  # fmt: skip
    lines = [line for family in families for line in _family(*family)]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of one family; a series stands once, whatever the result repeats."""
    yield f"# TYPE {name} {kind}"
    yield f"# HELP {name} {meaning}"
    sample = f"{name}_info" if kind == "info" else name
    series = {_labels(labels): value for labels, value in samples}
    for labels, value in series.items():
        yield f"{sample}{labels} {float(value)!r}"


def _labels(labels: dict[str, str]) -> str:
    told = (f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return "{" + ",".join(told) + "}" if labels else ""


def _escaped(value: str) -> str:
    return inert(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _layer(result: Result, part: Result) -> dict[str, str]:
    """The label of the layer, where there are several."""
    return {"layer": layer_of(part)} if result.layers else {}


def _about(result: Result) -> dict[str, str]:
    return {
        "version": str(result.tool.get("version", "")),
        "encoder": str(result.subject.get("encoder", "")),
        "layer": str(result.subject.get("layer", "")),
        "preset": str(result.plan.get("preset", "")),
        "seed": str(result.seed),
        "created": result.created,
    }


def _gates(result: Result) -> Iterator[Sample]:
    for gate in view.gates(result):
        yield {**_place(gate), "status": gate.status}, 1


def _place(gate: GateResult) -> dict[str, str]:
    return {
        "id": gate.id or "",
        "expr": gate.expr,
        "defence": gate.defence or "",
        "severity": gate.severity,
        "suppressed": "yes" if gate.is_suppressed else "no",
        **({} if gate.layer is None else {"layer": gate.layer}),
    }


def _scores(result: Result) -> Iterator[Sample]:
    for part, row in ((one, row) for one in parts(result) for row in one.scores):
        named = {"defence": row.defence, "attack": row.attack, "metric": row.metric}
        place = {**_layer(result, part), **named}
        for bound, value in (("value", row.value), ("low", row.low), ("high", row.high)):
            if value is not None:
                yield {**place, "bound": bound}, value


def _utility(result: Result) -> Iterator[Sample]:
    for part, row in ((one, row) for one in parts(result) for row in one.utility):
        place = {**_layer(result, part), "defence": row.defence, "metric": row.metric}
        kept = (("value", row.value), ("low", row.low), ("high", row.high))
        drop = (("drop", row.drop), ("drop_low", row.drop_low), ("drop_high", row.drop_high))
        for bound, value in (*kept, *drop):
            if value is not None:
                yield {**place, "bound": bound}, value
