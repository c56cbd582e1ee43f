"""Registries: names to frozen dataclasses, ours and those that other packages bring."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import typing
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from leakaudit.core.errors import LeakauditError, UnknownNameError, UsageError

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # what a gate can name


class Registry(Generic[T]):
    """Names to classes of one kind; third parties add theirs by the entry-point ``group``.

    What a package brings is imported only when it is asked for, and must be a frozen dataclass of
    the same kind as ours.
    """

    def __init__(self, kind: str, group: str, *classes: type[T]) -> None:
        self.kind = kind
        self._group = group
        self._classes: dict[str, type[T]] = {_name(cls): cls for cls in classes}

    def __iter__(self) -> Iterator[type[T]]:
        return iter(self._classes.values())

    def names(self) -> list[str]:
        """All known names, ours first."""
        return [*self._classes, *self.foreign()]

    def foreign(self) -> list[str]:
        """The names that other packages bring; a name of ours stays ours."""
        brought = dict.fromkeys(point.name for point in self._points())
        return [name for name in brought if name not in self._classes]

    def find(self, name: str) -> type[T]:
        """The class of this name; UnknownNameError names the nearest.

        Raises UsageError, naming the package, for an entry point that can't be loaded, or that is
        none of our kind.
        """
        if name in self._classes:
            return self._classes[name]
        points = [point for point in self._points() if point.name == name]
        if len({point.value for point in points}) > 1:
            packages = " and ".join(sorted({_package(point) for point in points}))
            raise UsageError(f"Two packages bring a {self.kind} '{name}'", where=packages)
        if points:
            return self._loaded(points[0])
        raise UnknownNameError(self.kind, name, self.names())

    def make(self, name: str, settings: Mapping[str, Any], *, where: str | None = None) -> T:
        """An instance with these settings; unknown keys and wrong types are said."""
        return configure(self.find(name), settings, where=where or f"{self.kind} {name}")

    def _points(self) -> tuple[EntryPoint, ...]:
        return _brought(self._group, tuple(sys.path))

    def _loaded(self, point: EntryPoint) -> type[T]:
        """The class behind an entry point, validated at the door."""
        whose = f"The {self.kind} '{point.name}' of the package {_package(point)}"
        try:
            found = point.load()
            fault = _fault(found, point.name, self._kin())
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())[:300]
            raise UsageError(
                f"{whose} can't be loaded: {type(error).__name__}: {text}",
                where=point.value,
                todo=f"Mend or remove {_package(point)}",
            ) from error
        if fault:
            raise UsageError(f"{whose} {fault}", where=point.value)
        return typing.cast("type[T]", found)

    def _kin(self) -> type:
        """The nearest class that all of ours derive from: what a newcomer must derive from too."""
        first, *others = self._classes.values()
        return next(base for base in first.__mro__ if all(issubclass(c, base) for c in others))


def _name(cls: Any) -> str:
    return str(cls.name)


@functools.cache
def _brought(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What the packages on ``path`` bring; kept, as all their files are read for it."""
    return tuple(entry_points(group=group))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "(unknown)"


def _fault(found: Any, name: str, kin: type) -> str | None:
    """Why a class of another package can't be one of ours, or nothing."""
    if not inspect.isclass(found):
        return f"is a {type(found).__name__}, not a class"
    if not issubclass(found, kin):
        return f"doesn't derive from {kin.__module__}.{kin.__name__}"
    if not dataclasses.is_dataclass(found) or not found.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return "isn't a frozen dataclass"
    if inspect.isabstract(found):
        return f"doesn't define {', '.join(sorted(found.__abstractmethods__))}"
    lacking = [key for key in ("name", *_promised(kin)) if getattr(found, key, None) is None]
    if lacking:
        return f"doesn't say its {lacking[0]}"
    if _name(found) != name or not _NAME.fullmatch(name):
        return f"calls itself '{_name(found)}': take one name for both, of letters, digits, _ and -"
    typing.get_type_hints(found)  # settings are read by them
    return None


def _promised(kin: type) -> list[str]:
    """The class variables that every class of this kind has."""
    return [key for key, hint in inspect.get_annotations(kin).items() if "ClassVar" in str(hint)]


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
    return _built(cls, values, where)


def _built(cls: type[T], values: dict[str, Any], where: str) -> T:
    """The instance; what a class has against its settings is the user's to mend."""
    try:
        return cls(**values)
    except LeakauditError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{type(error).__name__}: {error}", where=where) from error


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
