"""``result.json``: written whole, in strict JSON; read back with its shape checked at the door."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from leakaudit.core.errors import InputError
from leakaudit.core.files import atomic_write
from leakaudit.core.types import SCHEMA_VERSION, Picture, Result, Tuning, is_rate

SCHEMA_PATH = Path(__file__).with_name("result.schema.json")

_PNG = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")
# Keys that older or simpler results of this version lack.
_LATER = frozenset({"comparisons", "wins", "tuning", "study", "maps", "layers"})
_AGAIN = "Write it again with leakaudit scan ... -o result.json"
_LARGEST = 1e100  # figures reckon with what they draw; no measure comes near
_DEEPEST = 40
_ROUNDING = 1e-5


def result_text(result: Result) -> str:
    """The result as strict JSON text, indented, ASCII only, with a line break at its end."""
    # ASCII keeps undecodable file names (lone surrogates), which UTF-8 can't hold, on the way back.
    return json.dumps(result.to_json(), allow_nan=False, indent=1, ensure_ascii=True) + "\n"


def write_result(result: Result, path: str | os.PathLike[str]) -> Path:
    """The written file, which stands whole or not at all. Raises ``RunError`` where it can't."""
    return atomic_write(path, result_text(result))


def read_result(path: str | os.PathLike[str]) -> Result:
    """The result in this file, or in this run folder.

    Raises ``InputError`` that names the JSON path of what is wrong.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("The result is not UTF-8 text", where=str(path), todo=_AGAIN) from error
    except OSError as error:
        raise InputError(
            f"Can't read the result: {error.strerror or error}",
            where=str(path),
            todo="Name a result.json that leakaudit scan has written",
        ) from error
    return parse_result(text, where=str(path))


def parse_result(text: str, *, where: str) -> Result:
    """The result in this JSON text; ``where`` is named in errors. Raises ``InputError``."""
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError(
            f"Not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            where=where,
            todo=_AGAIN,
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"Not strict JSON: {error}", where=where, todo=_AGAIN) from error
    try:
        _check_version(data, "$")
        _check_layers(data)
        _check(data, Result, "$", strict=True)
        for place, part in (("$", data), *_with_paths(data.get("layers", []))):
            _check_names(part["plan"], f"{place}.plan")
        result = Result.from_json(data)
        _check_verdict(result)
        return result
    except _WrongShapeError as error:
        raise InputError(
            f"{error.path}: {error.problem}",
            where=where,
            todo=None if error.path == "$.schema_version" else "Edit nothing by hand. " + _AGAIN,
        ) from error


def _check_verdict(result: Result) -> None:
    """No pass beside a gate that counts and failed."""
    failed = any(gate.counts and gate.status == "fail" for gate in result.gates)
    if result.verdict.status == "pass" and failed:
        raise _WrongShapeError("$.verdict.status", "is pass, though a gate that counts failed")


def check_numbers(result: Result, *, where: str) -> None:
    """Raise ``InputError`` where a result's numbers contradict each other: no gate may rely on it.

    An interval's ends are in order, a share with its interval lies in [0, 1], what was measured was
    measured on somebody, and no row stands twice.
    """
    for at, part in (("$", result), *_with_paths(list(result.layers))):
        try:
            _check_rows(part, at)
        except _WrongShapeError as error:
            raise InputError(
                f"The result contradicts itself: {error.path} {error.problem}",
                where=where, todo="Edit nothing by hand. " + _AGAIN,
            ) from error  # fmt: skip


def _check_rows(result: Result, at: str) -> None:
    keys = [(s.defence, s.attack, s.metric) for s in result.scores]
    keys += [(u.defence, "utility", u.metric) for u in result.utility]
    for key, count in Counter(keys).items():
        if count > 1:
            raise _WrongShapeError(at, f"has {count} rows {'.'.join(key)}")
    for score in result.scores:
        name = f"{score.defence}.{score.attack}.{score.metric}"
        whole = (0.0, score.low, score.value, score.high, 1.0)
        _check_order(name, whole if is_rate(score.metric) else (score.low, score.high))
        if score.value is not None and score.n < 1:
            raise _WrongShapeError(name, f"was measured on {score.n} faces")
    for row in result.utility:
        _check_order(f"{row.defence}.utility.{row.metric}", (row.low, row.high))
        _check_order(f"{row.defence}.utility.{row.metric}_drop", (row.drop_low, row.drop_high))


def _check_order(name: str, ends: Sequence[float | None]) -> None:
    known = [end for end in ends if end is not None]
    if any(a > b + _ROUNDING for a, b in pairwise(known)):
        told = ", ".join(f"{end:.4g}" for end in known)
        raise _WrongShapeError(name, f"has numbers that aren't in order: {told}")


class _WrongShapeError(Exception):
    """What is wrong at which JSON path, before the file's name is known."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON can hold")


def _check_version(data: Any, path: str) -> None:
    where = f"{path}.schema_version"
    if not isinstance(data, dict):
        raise _WrongShapeError(path, f"expected an object, found {_kind(data)}")
    if "schema_version" not in data:
        raise _WrongShapeError(where, "is missing, so this is no result of leakaudit")
    version = data["schema_version"]
    if version != SCHEMA_VERSION or isinstance(version, bool):
        newer = type(version) is int and version > SCHEMA_VERSION
        todo = "update leakaudit" if newer else "use the leakaudit that wrote the file"
        raise _WrongShapeError(
            where,
            f"is {version!r}, but this leakaudit reads {SCHEMA_VERSION}; {todo}",
        )


def _check_layers(data: Any) -> None:
    """Each further layer is a whole result, without layers in turn, and has a name of its own."""
    others = data.get("layers", [])
    if not isinstance(others, list):
        raise _WrongShapeError("$.layers", f"expected an array, found {_kind(others)}")
    for index, layer in enumerate(others):
        path = f"$.layers[{index}]"
        _check_version(layer, path)
        if "layers" in layer:
            raise _WrongShapeError(f"{path}.layers", "a layer of a result holds no further layers")
        _check(layer, Result, path, strict=True)
    subjects = [part.get("subject") for part in (data, *others)] if others else []
    names = [str(item.get("layer", "?")) for item in subjects if isinstance(item, dict)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _WrongShapeError("$.layers", f"two results are of the layer {twice[0][:40]!r}")


def _with_paths(layers: list[Any]) -> list[tuple[str, Any]]:
    return [(f"$.layers[{index}]", layer) for index, layer in enumerate(layers)]


def _check_names(plan: Mapping[str, Any], path: str) -> None:
    """Attacks and defences of a plan are named by an object's keys, or by an array of strings."""
    for key in ("attacks", "defences"):
        value = plan.get(key, {})
        named = isinstance(value, list) and all(isinstance(name, str) for name in value)
        if not (named or isinstance(value, dict)):
            raise _WrongShapeError(f"{path}.{key}", f"expected an object, found {_kind(value)}")


def _check(value: Any, hint: Any, path: str, *, strict: bool = False) -> None:
    """Raise unless ``value`` has the shape of ``hint``, a type of ``core.types``.

    ``strict`` asks for all keys of a dataclass but later ones, else those with a default may be
    left out.
    """
    origin = get_origin(hint)
    if hint is Any:
        _check_free(value, path)
    elif is_dataclass(hint):
        _check_object(value, hint, path, strict=strict)
    elif origin in (Union, types.UnionType):
        _check_union(value, hint, path)
    elif origin is Literal:
        if value not in get_args(hint):
            known = ", ".join(str(choice) for choice in get_args(hint))
            raise _WrongShapeError(path, f"expected one of {known}, found {_kind(value)}")
    elif origin is tuple:
        _check_array(value, get_args(hint), path)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        _check_mapping(value, get_args(hint)[1], path)
    else:
        _check_plain(value, hint, path)


def _check_free(value: Any, path: str, depth: int = 0) -> None:
    """Raise for what no output could show, where any JSON may stand."""
    if depth > _DEEPEST:
        raise _WrongShapeError(path[:80], f"is nested in more than {_DEEPEST} levels")
    if isinstance(value, (int, float)):
        _check_size(value, path)
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_free(item, f"{path}.{key}", depth + 1)


def _check_size(value: float, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise _WrongShapeError(path, "expected a finite number")
    if abs(value) > _LARGEST:
        raise _WrongShapeError(path, "is larger than any number of a result")


def _check_object(value: Any, kind: Any, path: str, *, strict: bool) -> None:
    if not isinstance(value, dict):
        raise _WrongShapeError(path, f"expected an object, found {_kind(value)}")
    hints = _hints(kind)
    for field in fields(kind):
        optional = field.default is not MISSING or field.default_factory is not MISSING
        if field.name in value:
            _check(value[field.name], hints[field.name], f"{path}.{field.name}")
        elif (strict and field.name not in _LATER) or not optional:
            raise _WrongShapeError(f"{path}.{field.name}", "is missing")
    unknown = sorted(set(value) - {field.name for field in fields(kind)})
    if unknown:
        raise _WrongShapeError(f"{path}.{unknown[0]}", "is not a key of this object")
    if kind is Picture and value["png"] is not None and not is_png(value["png"]):
        raise _WrongShapeError(f"{path}.png", "expected a PNG as data:image/png;base64,...")
    if kind is Tuning:
        _check_figures(value, path)


def _check_figures(tuning: Any, path: str) -> None:
    """Each setting that was tried has a figure a target."""
    for index, tried in enumerate(tuning["tried"]):
        have, want = len(tried["figures"]), len(tuning["targets"])
        if have != want:
            place = f"{path}.tried[{index}].figures"
            raise _WrongShapeError(place, f"expected {want} items, one a target, found {have}")


def is_png(uri: str) -> bool:
    """Whether this is a PNG as a ``data:`` URI, the one kind of picture that a report shows."""
    return _PNG.fullmatch(uri) is not None


def _check_union(value: Any, hint: Any, path: str) -> None:
    """Only ``X | None`` is used among our types."""
    if value is not None:
        for kind in get_args(hint):
            if kind is not type(None):
                _check(value, kind, path)


def _check_array(value: Any, kinds: tuple[Any, ...], path: str) -> None:
    if not isinstance(value, list):
        raise _WrongShapeError(path, f"expected an array, found {_kind(value)}")
    if kinds[-1] is ...:
        # to_json writes null for a number that JSON can't hold, so arrays of numbers allow it
        kind = kinds[0] | None if kinds[0] is float else kinds[0]
        kinds = (kind,) * len(value)
    elif len(value) != len(kinds):
        raise _WrongShapeError(path, f"expected {len(kinds)} items, found {len(value)}")
    for index, (item, kind) in enumerate(zip(value, kinds, strict=True)):
        _check(item, kind, f"{path}[{index}]")


def _check_mapping(value: Any, kind: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise _WrongShapeError(path, f"expected an object, found {_kind(value)}")
    for key, item in value.items():
        # seconds may hold null where a clock gave nothing that JSON can hold
        _check(item, kind | None if kind is float else kind, f"{path}.{key}")


def _check_plain(value: Any, kind: type, path: str) -> None:
    accepted = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}[kind]
    fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    if not fits:
        names = {float: "a number", int: "a whole number", str: "a string", bool: "true or false"}
        raise _WrongShapeError(path, f"expected {names[kind]}, found {_kind(value)}")
    if isinstance(value, (int, float)):
        _check_size(value, path)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    if type(value) is str:
        return f"the string {value[:40]!r}"
    return names.get(type(value)) or f"the number {value}"
