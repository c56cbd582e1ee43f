"""Defaults from ``leakaudit.toml`` or ``[tool.leakaudit]`` of the nearest ``pyproject.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leakaudit.core.errors import UnknownNameError, UsageError


def defaults(commands: Mapping[str, Any], start: Path | None = None) -> dict[str, Any]:
    """A table of option defaults a command; strict about names, empty where no file is found."""
    found = _nearest(start or Path.cwd())
    if found is None:
        return {}
    path, tables = found
    result: dict[str, Any] = {}
    for name, table in tables.items():
        if name not in commands:
            raise UnknownNameError("command", name, commands, where=str(path))
        if not isinstance(table, Mapping):
            raise UsageError(f"'{name}' must be a table of options", where=str(path))
        known = _flags(commands[name])
        result[name] = {}
        for key, value in table.items():
            flag, where = key.replace("_", "-"), f"{path}, [{name}] {key}"
            if flag not in known:
                raise UnknownNameError("option", key, known, where=f"{path}, [{name}]")
            result[name][str(known[flag].name)] = _value(value, known[flag], where)
    return result


def _flags(command: Any) -> dict[str, Any]:
    """The long options of a command without their dashes: the keys that a user knows."""
    return {
        flag.removeprefix("--"): parameter
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--")
    }


def _value(value: Any, parameter: Any, where: str) -> Any:
    """What a user would have typed: words, a list of them where one may repeat, true or false."""
    if parameter.multiple:
        items = value if isinstance(value, list) else [value]
        return [_word(item, where) for item in items]
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"'{value}' is neither true nor false", where=where)
        return value
    return _word(value, where)


def _word(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"'{value}' is not a word or number", where=where)
    return str(value)


def _nearest(start: Path) -> tuple[Path, dict[str, Any]] | None:
    for folder in (start, *start.parents):
        own = folder / "leakaudit.toml"
        if own.is_file():
            return own, _read(own)
        project = folder / "pyproject.toml"
        if project.is_file():
            table = _read(project).get("tool", {}).get("leakaudit")
            return (project, table) if isinstance(table, dict) else None
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError("The configuration can't be read", where=f"{path}: {error}") from error
