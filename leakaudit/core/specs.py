"""A user's own code as it is typed: ``file.py:factory:key=value`` and ``pkg.mod:factory``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from leakaudit.core.errors import UsageError
from leakaudit.core.registry import parse_spec

FORMS = "Write file.py:factory or pkg.mod:factory, and settings as file.py:factory:key=value"


@final
@dataclass(frozen=True)
class FactorySpec:
    """Where a user's factory stands and what it is called with.

    ``source`` is the path of a Python file or the dotted name of a module; ``settings`` are its
    keyword arguments, numbers read; ``written`` are the settings as they were typed.
    """

    source: str
    factory: str
    settings: Mapping[str, Any]
    written: str = ""

    @property
    def from_file(self) -> bool:
        """Whether ``source`` is a file."""
        return self.source.endswith(".py")

    @property
    def place(self) -> str:
        """``file.py:factory`` without folders, which have no business in a result."""
        return f"{Path(self.source).name}:{self.factory}"

    @property
    def label(self) -> str:
        """The specification as it was typed, without folders."""
        return f"{self.place}:{self.written}" if self.written else self.place

    @property
    def name(self) -> str:
        """``file-factory``, of letters, digits, ``_`` and ``-``: what a gate can name."""
        stem = Path(self.source).stem if self.from_file else self.source.rpartition(".")[2]
        return re.sub(r"[^A-Za-z0-9_-]+", "-", f"{stem}-{self.factory}").strip("-")

    @property
    def shown_settings(self) -> dict[str, Any]:
        """The settings for a result: of values that are paths the last part only."""
        return {key: _without_folder(value) for key, value in self.settings.items()}

    def over(self, defaults: Mapping[str, Any]) -> FactorySpec:
        """The same with ``defaults``, as from a preset's table, for what isn't set."""
        return replace(self, settings={**defaults, **self.settings})

    def same_as(self, other: FactorySpec) -> bool:
        """Whether both come to the same call, however the path was written."""
        return _called(self) == _called(other)


def is_factory(text: str) -> bool:
    """Whether a specification means a user's factory: a file or a dotted name before the colon."""
    head = text.strip().partition(":")[0]
    return "." in head or "/" in head


def parse_factory(text: str, *, what: str) -> FactorySpec:
    """The user's factory that ``text`` names; UsageError says how it is written."""
    source, _, rest = text.strip().partition(":")
    where = f"{what} {text.strip()}"
    name = rest.partition(":")[0].strip()
    if not name.isidentifier():
        what_is_wrong = f"'{name}' isn't the name of a factory" if name else "No factory is named"
        raise UsageError(what_is_wrong, where=where, todo=FORMS)
    if not source.endswith(".py") and not all(part.isidentifier() for part in source.split(".")):
        raise UsageError(
            f"'{source}' is neither a Python file nor a module", where=where, todo=FORMS
        )
    _, settings = parse_spec(rest, what=what)
    for key in settings:
        if not key.isidentifier():
            raise UsageError(f"'{key}' can't be an argument of a factory", where=where)
    written = ",".join(f"{key}={_without_folder(value)}" for key, value in settings.items())
    return FactorySpec(source, name, {k: read_value(v) for k, v in settings.items()}, written)


def read_value(text: str) -> bool | int | float | str:
    """A whole number, a number, true or false where ``text`` is one, else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number):  # result.json holds no other numbers
            return number
    return text


def split_specs(text: str) -> list[str]:
    """Specifications between commas; ``key=value`` stays with the specification before it."""
    specs: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if specs and ":" not in part.partition("=")[0] and "=" in part:
            specs[-1] += f",{part}"
        else:
            specs.append(part)
    return specs


def _without_folder(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and "/" in value else value


def _called(spec: FactorySpec) -> tuple[str, str, dict[str, Any]]:
    source = str(Path(spec.source).resolve()) if spec.from_file else spec.source
    return source, spec.factory, dict(spec.settings)
