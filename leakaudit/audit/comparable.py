"""Whether two results may be held against each other, and the difference of two of their rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leakaudit.audit.by_layer import by_name
from leakaudit.audit.gates import Row
from leakaudit.core.types import Result
from leakaudit.maths.rates import Interval, tango

_DATA = (
    "images", "people", "gallery", "gallery_people", "public_images", "people_seed", "oracle",
    "faces_sha256", "public_sha256", "head", "head_sha256", "pairs_sha256", "judges",
    "oracle_weights_sha256",
)  # fmt: skip
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)  # 97.5 %, 1 to 10 degrees
_NORMAL = 1.96
_ROUNDING = 1e-4


def obstacles(
    one: Result, other: Result, *, same_weights: bool, layer: str | None = None
) -> tuple[str, ...]:
    """What differs so that the results can't be compared, each with both values; empty if they can.

    ``same_weights`` also asks for the same encoder; a baseline may be that of an earlier one. Both
    must hold the same layers; ``layer`` asks for that one of them only.
    """
    if not (one.layers or other.layers):
        return tuple(_obstacles(one, other, same_weights=same_weights))
    a, b = by_name(one), by_name(other)
    if set(a) != set(b):
        return (_told("layers", ", ".join(a), ", ".join(b)),)
    return tuple(
        f"at {name}, {found}"
        for name in a
        if layer in (None, name)
        for found in _obstacles(a[name], b[name], same_weights=same_weights)
    )


def _obstacles(one: Result, other: Result, *, same_weights: bool) -> Iterator[str]:
    if one.schema_version != other.schema_version:
        yield _told("schema version", one.schema_version, other.schema_version)
    known = "weights_sha256" in {*one.subject, *other.subject}
    network = ("weights_sha256" if known else "encoder", "feature_shape")
    for key in (*(network if same_weights else ()), "layer", *_DATA):
        a, b = one.subject.get(key), other.subject.get(key)
        if a != b:
            yield _told(key.replace("_", " "), a, b)
    a, b = (_read_back(r.subject.get("preprocessing")) for r in (one, other))
    same = one.subject.get("weights_sha256") == other.subject.get("weights_sha256")
    if a != b and (same or same_weights):  # another network may want another one
        yield f"preprocessing: {_changed(_table(a), _table(b))}"
    yield from _of_priors(one.subject, other.subject)
    for key in ("preset", "training"):
        a, b = (_read_back(r.plan.get(key)) for r in (one, other))
        if a != b:
            yield _told(key, a, b)
    yield from _of_plans("attack", one, other, all_of_both=True)
    yield from _of_plans("defence", one, other, all_of_both=False)


def _read_back(value: object) -> Any:
    """A value as it comes back from a file: a result that was just measured holds tuples."""
    return json.loads(json.dumps(value))


def _of_priors(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """A weaker prior weakens attacks; one that each scan trained may differ in its last digits."""
    a, b = one.get("prior"), other.get("prior")
    if None in (a, b):  # of an earlier version, which didn't say
        return
    if a != b:
        yield _told("prior", a, b)
    elif a == "given" and one.get("prior_sha256") != other.get("prior_sha256"):
        yield _told("prior", one.get("prior_sha256"), other.get("prior_sha256"))


def _of_plans(kind: str, one: Result, other: Result, *, all_of_both: bool) -> Iterator[str]:
    """Attacks must be the same ones; of the defences only those of the same name."""
    a, b = _table(one.plan.get(f"{kind}s")), _table(other.plan.get(f"{kind}s"))
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            if all_of_both:
                yield f"{kind} {name} was run in one of them only"
        elif a[name] != b[name]:
            yield f"settings of the {kind} {name}: {_changed(_table(a[name]), _table(b[name]))}"


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    return ", ".join(_told(key, a.get(key), b.get(key)) for key in keys) or "other"


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _told(name: str, a: object, b: object) -> str:
    return f"{name} ({_short(a)} and {_short(b)})"


def _short(value: object) -> str:
    text = "unknown" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def same_faces(one: Result, other: Result) -> bool:
    """Whether two results are of the very same pictures, one a person: their rows pair up."""
    marks = [result.subject.get("faces_sha256") for result in (one, other)]
    counts = [result.subject.get(key) for result in (one, other) for key in ("images", "people")]
    return marks[0] is not None and marks[0] == marks[1] and len(set(counts)) == 1


def worsening(
    row: Row, base: Sequence[Row], *, spread: float | None = None, paired: bool = False
) -> tuple[float, float, float] | None:
    """How much worse ``row`` is than the mean of ``base``, with a 95 % interval.

    Positive is worse, in the metric's unit; ``None`` where something wasn't measured or the metric
    has no bad direction. Each side's own interval goes in by the square-and-add rule of Zou and
    Donner (Statistics in Medicine 27, 2008), which takes the sides as independent: on the same
    faces that is too wide rather than too narrow. Rates on the same faces, one picture a person
    (``paired``, see `same_faces`), against one base are held by the faces on which they differ
    instead (Tango, Statistics in Medicine 17, 1998). The spread between repeated runs is added in
    quadrature, as given or as estimated from ``base`` with Student's quantile.
    """
    rows = [ends for ends in map(_ends, base) if ends is not None]
    own = _ends(row)
    if own is None or not rows or len(rows) < len(base) or row.worse == "neither":
        return None
    value, low, high = (sum(ends) / len(rows) for ends in zip(*rows, strict=True))
    runs = _between_runs([ends[0] for ends in rows], spread)
    d = own[0] - value
    below, above = (
        math.hypot(own[0] - own[1], high - value),
        math.hypot(own[2] - own[0], value - low),
    )
    known = _paired(row, base[0]) if paired and len(base) == 1 else None
    if known is not None:
        below, above = known.value - known.low, known.high - known.value
    below, above = math.hypot(below, runs), math.hypot(above, runs)
    return (d, d - below, d + above) if row.worse == "up" else (-d, -d - above, -d + below)


def _paired(row: Row, base: Row) -> Interval | None:
    """The rate of ``row`` less that of ``base``, by the faces on which they differ."""
    if row.faces is None or base.faces is None or len(row.faces) != len(base.faces):
        return None
    both = [(a > 0.5, b > 0.5) for a, b in zip(row.faces, base.faces, strict=True)]
    found = tango(both.count((True, False)), both.count((False, True)), len(both))
    told = (row.value or 0.0) - (base.value or 0.0)  # the faces must be what the rates are of
    return found if abs(found.value - told) < _ROUNDING else None


def _ends(row: Row) -> tuple[float, float, float] | None:
    if row.value is None or row.low is None or row.high is None:
        return None
    return row.value, row.low, row.high


def _between_runs(values: Sequence[float], spread: float | None) -> float:
    """Half the width of what a further run may differ from the mean of these."""
    count = len(values)
    reach = math.sqrt(1 + 1 / count)
    if spread is not None:
        return _NORMAL * spread * reach
    if count < 2:
        return 0.0
    mean = sum(values) / count
    found = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return (_STUDENT[count - 2] if count - 2 < len(_STUDENT) else _NORMAL) * found * reach
