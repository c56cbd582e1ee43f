"""Policy files: gates with weight and name, limits against a baseline, suppressions that end."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from leakaudit.audit.gates import Rule, parse_gate
from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.types import GateSeverity

_ID = re.compile(r"[A-Za-z0-9_-]+")
_SHAPES: dict[str, dict[str, tuple[type, ...]]] = {
    "gate": {"expr": (str,), "id": (str,), "severity": (str,), "min_n": (int,)},
    "baseline": {
        "row": (str,), "result": (str, list), "id": (str,), "severity": (str,), "min_n": (int,),
        "allow": (int, float), "spread": (int, float),
    },
    "suppress": {
        "id": (str,), "defence": (str,), "reason": (str,), "owner": (str,), "expires": (date, str),
    },
}  # fmt: skip
_NEEDED = {
    "gate": ("expr",),
    "baseline": ("row", "result"),
    "suppress": ("id", "reason", "owner", "expires"),
}


@dataclass(frozen=True)
class Limit:
    """A row that may not get worse than in a baseline by more than ``allow`` and the noise.

    ``results`` are files of repeated runs; ``spread`` is the standard deviation between runs where
    it isn't taken from them. ``rule.expr`` names the row.
    """

    rule: Rule
    results: tuple[Path, ...]
    allow: float = 0.0
    spread: float | None = None


@dataclass(frozen=True)
class Hush:
    """A suppression as written: of the gate ``id``, for one defence's label or for all."""

    id: str
    defence: str | None
    reason: str
    owner: str
    expires: date


@dataclass(frozen=True)
class Policy:
    """All that one policy file asks for."""

    gates: tuple[Rule, ...] = ()
    limits: tuple[Limit, ...] = ()
    hushes: tuple[Hush, ...] = ()


@dataclass(frozen=True)
class _Table:
    """One ``[[kind]]`` of the file and where it stands."""

    kind: str
    keys: Mapping[str, Any]
    place: int
    path: Path
    line: int | None

    @property
    def where(self) -> str:
        line = f", line {self.line}" if self.line else ""
        return f"{self.path}{line}, [[{self.kind}]] {self.place}"


def read_policy(path: Path) -> Policy:
    """The policy in this TOML file; ``UsageError`` names file, line and table of what is wrong."""
    tables = _tables(path)
    shown = _shown(path)
    gates = tuple(_gate(table, shown) for table in tables["gate"])
    limits = tuple(_limit(table, shown) for table in tables["baseline"])
    if not gates and not limits:
        raise UsageError(
            "The policy asks for nothing", where=str(path), todo="Add a [[gate]] with an expr"
        )
    ids = _unique_ids([*tables["gate"], *tables["baseline"]])
    hushes = tuple(_hush(table, ids) for table in tables["suppress"])
    targets = [(hush.id, hush.defence) for hush in hushes]
    for table, target in zip(tables["suppress"], targets, strict=True):
        if targets.count(target) > 1:
            raise UsageError(f"'{target[0]}' is suppressed twice", where=table.where)
    return Policy(gates, limits, hushes)


def _tables(path: Path) -> dict[str, list[_Table]]:
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text)
    except OSError as error:
        told = error.strerror or error
        raise UsageError(f"The policy can't be read: {told}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise UsageError("The policy isn't UTF-8 text", where=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError("The policy is no TOML", where=f"{path}: {error}") from error
    for key in raw:
        if key not in _SHAPES:
            raise UnknownNameError("policy table", key, _SHAPES, where=str(path))
    return {kind: _of_kind(kind, raw.get(kind, []), text, path) for kind in _SHAPES}


def _of_kind(kind: str, found: Any, text: str, path: Path) -> list[_Table]:
    if not isinstance(found, list) or not all(isinstance(keys, dict) for keys in found):
        raise UsageError(f"'{kind}' must be a list of tables", where=str(path),
                         todo=f"Write [[{kind}]] with two brackets")  # fmt: skip
    header = re.compile(rf"\s*\[\[\s*{kind}\s*\]\]")
    lines = [k for k, line in enumerate(text.split("\n"), 1) if header.match(line)]
    known: list[int | None] = [*lines] if len(lines) == len(found) else [None] * len(found)
    tables = [
        _Table(kind, keys, place, path, line)
        for place, (keys, line) in enumerate(zip(found, known, strict=True), 1)
    ]
    for table in tables:
        _check(table)
    return tables


def _check(table: _Table) -> None:
    shape = _SHAPES[table.kind]
    for key, value in table.keys.items():
        if key not in shape:
            raise UnknownNameError("policy key", key, shape, where=table.where)
        if not isinstance(value, shape[key]) or isinstance(value, bool):
            names = " or ".join(kind.__name__ for kind in shape[key])
            raise UsageError(f"'{key}' must be of type {names}", where=table.where)
        if isinstance(value, str) and not value.strip():
            raise UsageError(f"'{key}' is empty", where=table.where)
    for key in _NEEDED[table.kind]:
        if key not in table.keys:
            raise UsageError(f"'{key}' is missing", where=table.where)


def _rule(table: _Table, expr: str, shown: str) -> Rule:
    severity = table.keys.get("severity", "fail")
    if severity not in ("fail", "warn"):
        raise UnknownNameError("severity", severity, ("fail", "warn"), where=table.where)
    weight: GateSeverity = "warn" if severity == "warn" else "fail"
    least = table.keys.get("min_n", 0)
    if least < 0:
        raise UsageError("'min_n' must not be negative", where=table.where)
    return Rule(expr, _id(table), weight, least, shown, table.line)


def _gate(table: _Table, shown: str) -> Rule:
    expr = table.keys["expr"]
    parse_gate(expr, where=f"{table.where}: {expr!r}")
    return _rule(table, expr.strip(), shown)


def _limit(table: _Table, shown: str) -> Limit:
    keys = table.keys
    row = keys["row"].strip()
    parse_gate(f"{row}>0", where=f"{table.where}: {row!r}")
    names = [keys["result"]] if isinstance(keys["result"], str) else keys["result"]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UsageError("'result' must be a file or a list of them", where=table.where)
    for key in ("allow", "spread"):
        if not 0 <= keys.get(key, 0) < float("inf"):
            raise UsageError(f"'{key}' must be 0 or more", where=table.where)
    return Limit(
        _rule(table, row, shown), tuple(table.path.parent / name for name in names),
        float(keys.get("allow", 0)), None if "spread" not in keys else float(keys["spread"]),
    )  # fmt: skip


def _hush(table: _Table, ids: list[str]) -> Hush:
    keys = table.keys
    if keys["id"] not in ids:
        raise UnknownNameError("gate id", keys["id"], ids, where=table.where)
    return Hush(
        keys["id"], keys.get("defence"), keys["reason"], keys["owner"],
        _date(keys["expires"], table.where),
    )  # fmt: skip


def _date(value: Any, where: str) -> date:
    try:
        return date.fromisoformat(str(value)[:10] if isinstance(value, date) else value)
    except ValueError as error:
        todo = "Write expires = 2030-12-31"
        raise UsageError(f"'{value}' is not a date", where=where, todo=todo) from error


def _id(table: _Table) -> str:
    """The name that was given, or one by kind and place."""
    return str(table.keys.get("id", f"{table.kind}-{table.place}"))


def _unique_ids(tables: list[_Table]) -> list[str]:
    ids = [_id(table) for table in tables]
    for table, name in zip(tables, ids, strict=True):
        if not _ID.fullmatch(name):
            raise UsageError(
                f"'{name}' is no id", where=table.where, todo="Use letters, digits, - and _"
            )
        if ids.count(name) > 1:
            raise UsageError(f"Two gates have the id '{name}'", where=table.where)
    return ids


def _shown(path: Path) -> str:
    """The file as results name it: from the working folder, or by its last name elsewhere."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name
