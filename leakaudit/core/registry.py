"""Registries: names to frozen dataclasses, ours and those that other packages bring."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from leakaudit.core.errors import UnknownNameError, UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to classes of one kind; third parties add theirs by the entry-point ``group``."""

    def __init__(self, kind: str, group: str, *classes: type[T]) -> None:
        self.kind = kind
        self._group = group
        self._classes: dict[str, type[T]] = {_name(cls): cls for cls in classes}

    def __iter__(self) -> Iterator[type[T]]:
        return iter(self._classes.values())

    def names(self) -> list[str]:
        """All known names, ours first."""
        return [*self._classes, *(p.name for p in entry_points(group=self._group))]

    def find(self, name: str) -> type[T]:
        """The class of this name; UnknownNameError names the nearest."""
        if name in self._classes:
            return self._classes[name]
        for point in entry_points(group=self._group):
            if point.name == name:
                return typing.cast("type[T]", point.load())
        raise UnknownNameError(self.kind, name, self.names())

    def make(self, name: str, settings: Mapping[str, Any], *, where: str | None = None) -> T:
        """An instance with these settings; unknown keys and wrong types are said."""
        return configure(self.find(name), settings, where=where or f"{self.kind} {name}")


def _name(cls: Any) -> str:
    return str(cls.name)


def configure(cls: type[T], settings: Mapping[str, Any], *, where: str) -> T:
    """A frozen dataclass from a (nested) table of its fields; strings are read as field types.

    Dotted keys reach nested dataclasses: ``{"search.steps": 80}``.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        name, dot, rest = key.partition(".")
        if name not in fields:
            raise UnknownNameError("setting", name, fields, where=where)
        if dot and not dataclasses.is_dataclass(hints[name]):
            raise UsageError(f"'{name}' has no settings of its own", where=f"{where}, {key}")
        if dataclasses.is_dataclass(hints[name]):
            inner = {rest: value} if dot else value
            if not isinstance(inner, Mapping):
                raise UsageError(f"{name} is a table of settings", where=where)
            nested.setdefault(name, {}).update(inner)
        else:
            values[name] = _typed(value, hints[name], f"{where}, {name}")
    for name, table in nested.items():
        default = _default(fields[name])
        inner_values = _only_set(hints[name], table, where=f"{where}, {name}")
        values[name] = dataclasses.replace(default, **inner_values)
    return cls(**values)


def _only_set(cls: type, table: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    made: Any = configure(cls, table, where=where)
    return {key.partition(".")[0]: getattr(made, key.partition(".")[0]) for key in table}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    assert field.default_factory is not dataclasses.MISSING
    return field.default_factory()


def _typed(value: Any, kind: Any, where: str) -> Any:
    """``value`` as an int, float, bool or str."""
    try:
        if kind is bool:
            return _truth(value)
        if kind is int and not isinstance(value, bool):
            number = float(value)
            if number != int(number):
                raise ValueError
            return int(number)
        if kind is float and not isinstance(value, bool):
            return float(value)
        if kind is str:
            return str(value)
    except (TypeError, ValueError, OverflowError):
        pass
    name = getattr(kind, "__name__", str(kind))
    raise UsageError(f"'{value}' is not of type {name}", where=where)


def _truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    text = str(value).lower()
    if text not in words:
        raise ValueError(text)
    return words[text]


def parse_spec(text: str, *, what: str) -> tuple[str, dict[str, str]]:
    """``name:key=value,key=value`` as a name and its settings, both as written."""
    name, _, rest = text.strip().partition(":")
    if not name:
        raise UsageError(f"An empty {what}", where=repr(text))
    settings: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"'{item}' is not key=value", where=f"{what} {text}", todo=f"Write {name}:key=value"
            )
        if key.strip() in settings:
            raise UsageError(f"'{key.strip()}' is given twice", where=f"{what} {text}")
        settings[key.strip()] = value.strip()
    return name, settings
