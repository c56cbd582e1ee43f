"""Defaults from ``leakaudit.toml`` or ``[tool.leakaudit]`` of the nearest ``pyproject.toml``.

Tables are commands (``[scan]``) and networks (``[encoder]``, ``[oracle]``, ``[head]``,
``[prior]``), whose keys stand for options of every command that has them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from leakaudit.core.errors import UnknownNameError, UsageError

NETWORKS: Final = ("encoder", "oracle", "head", "prior")
"""Tables of networks beside those of commands."""
KEYS: Final = ("spec", "weights", "input_size", "mean", "std", "channels", "align")


def defaults(
    commands: Mapping[str, Any], start: Path | None = None, *, networks: bool = True
) -> dict[str, Any]:
    """A table of option defaults a command; strict about names, empty where no file is found.

    What a command's own table says wins over the tables of networks, which are left out unless
    ``networks``: the demo brings its own.
    """
    found = _nearest(start or Path.cwd())
    if found is None:
        return {}
    path, tables = found
    result: dict[str, Any] = {}
    for name, table in _networks(tables, path) if networks else ():
        _spread(name, _without_commands(name, table, commands), commands, path, result)
    for name, table in tables.items():
        if name in NETWORKS:
            table = _of_commands(name, table, commands)  # noqa: PLW2901 - [prior.train]
            if not table:
                continue
        if name not in commands:
            known = [*commands, *NETWORKS]
            raise UnknownNameError("command", name, known, where=str(path))
        if not isinstance(table, Mapping):
            raise UsageError(f"'{name}' must be a table of options", where=str(path))
        own = _of_command(commands[name], table, name, path)
        result[name] = _over(result.get(name, {}), own)
    return result


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both tables as one; where both say something, ``above``'s."""
    joined = dict(below)
    for key, value in above.items():
        old = joined.get(key)
        joined[key] = _over(old, value) if isinstance(old, dict) else value
    return joined


def _of_command(command: Any, table: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A command's options by the names of its parameters; of a group, by command."""
    inner = getattr(command, "commands", None)
    if inner is not None:
        return _of_group(inner, table, name, path)
    known = _flags(command)
    result: dict[str, Any] = {}
    for key, value in table.items():
        flag, where = key.replace("_", "-"), f"{path}, [{name}] {key}"
        if flag not in known:
            raise UnknownNameError("option", key, known, where=f"{path}, [{name}]")
        result[str(known[flag].name)] = _value(value, known[flag], where)
    return result


def _of_group(
    commands: Mapping[str, Any], table: Mapping[str, Any], name: str, path: Path
) -> dict[str, Any]:
    result = {}
    for key, value in table.items():
        if key not in commands:
            raise UnknownNameError("command", key, commands, where=f"{path}, [{name}]")
        if not isinstance(value, Mapping):
            raise UsageError(f"'{name}.{key}' must be a table of options", where=str(path))
        result[key] = _of_command(commands[key], value, f"{name}.{key}", path)
    return result


def _networks(tables: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in NETWORKS:
        table = tables.get(name, {})
        if not isinstance(table, Mapping):
            raise UsageError(f"'{name}' must be a table", where=str(path))
        yield name, table


def _of_commands(name: str, table: Mapping[str, Any], commands: Mapping[str, Any]) -> Any:
    """What of a network's table is meant for a group of commands of the same name."""
    inner = getattr(commands.get(name), "commands", {})
    return {key: value for key, value in table.items() if key in inner}


def _without_commands(
    name: str, table: Mapping[str, Any], commands: Mapping[str, Any]
) -> dict[str, Any]:
    inner = _of_commands(name, table, commands)
    return {key: value for key, value in table.items() if key not in inner}


def _spread(
    name: str, table: Mapping[str, Any], commands: Mapping[str, Any], path: Path,
    result: dict[str, Any],
) -> None:  # fmt: skip
    """Put a network's settings under every command that takes such a network."""
    for written, value in table.items():
        key = written.replace("-", "_")
        if key not in KEYS:
            inner = getattr(commands.get(name), "commands", {})
            raise UnknownNameError("key", written, (*KEYS, *inner), where=f"{path}, [{name}]")
        flag = _flag(name, key)
        where = f"{path}, [{name}] {written}"
        taken = False
        for command, place in _all(commands, result):
            known = _flags(command)
            option = known.get(flag)
            if option is not None and name in known:
                place()[str(option.name)] = _value(_joined(value, option), option, where)
                taken = True
        if not taken:
            raise UsageError(f"No command has the option --{flag}", where=where)


def _flag(name: str, key: str) -> str:
    """``[encoder] mean`` is ``--mean``, ``[oracle] mean`` is ``--oracle-mean``."""
    if key == "spec":
        return name
    return key.replace("_", "-") if name == "encoder" else f"{name}-{key.replace('_', '-')}"


def _all(commands: Mapping[str, Any], result: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Every command, also those of groups, with a function that gives its table of defaults."""
    for name, command in commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            yield command, lambda name=name: result.setdefault(name, {})
            continue
        for below, one in inner.items():
            yield (
                one,
                lambda name=name, below=below: result.setdefault(name, {}).setdefault(below, {}),
            )


def _joined(value: Any, parameter: Any) -> Any:
    """Three numbers as they are typed, by commas, where they were written as an array."""
    numbers = isinstance(value, list) and value and not parameter.multiple
    if numbers and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return ",".join(map(str, value))
    return value


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
            tool = _read(project).get("tool", {})
            table = tool.get("leakaudit") if isinstance(tool, dict) else None
            if isinstance(table, dict):
                return project, table
            if table is not None:
                raise UsageError("tool.leakaudit must be a table", where=str(project))
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError("The configuration can't be read", where=f"{path}: {error}") from error
