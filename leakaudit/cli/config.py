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
        known = {str(p.name): p for p in commands[name].params}
        result[name] = {}
        for key, value in table.items():
            parameter = key.replace("-", "_")
            if parameter not in known:
                names = [k.replace("_", "-") for k in known]
                raise UnknownNameError("option", key, names, where=f"{path}, [{name}]")
            result[name][parameter] = value
    return result


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
