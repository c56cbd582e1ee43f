"""The one setting of a defence that is tuned: ``crafter:beta=auto``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, final

from leakaudit.audit.plan import NamedDefence, named_defence
from leakaudit.core.errors import LeakauditError, UnknownNameError, UsageError
from leakaudit.core.registry import parse_spec
from leakaudit.core.specs import is_factory
from leakaudit.defences import DEFENCES

_AUTO = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*auto\s*(?=,|$)")
_TARGET = re.compile(r"\s*target\s*=\s*(.*\S)\s*")
REACH = 64.0
"""How far from its default a setting is searched, as a factor in both directions."""
REACHES = (REACH, 16.0, 4.0, 2.0, 1.0)
"""Less of it where a defence doesn't take all of that."""


@final
@dataclass(frozen=True)
class Knob:
    """A defence with one setting left open.

    ``spec`` holds ``NAME=auto`` once; ``name`` is that setting, searched from ``start`` within
    [``least``, ``most``]. More of it is more privacy.
    """

    spec: str
    name: str
    start: float
    least: float
    most: float
    make: Callable[[str], NamedDefence]

    def at(self, value: float) -> NamedDefence:
        """The defence with this value in the place of ``auto``."""
        return self.make(with_setting(self.spec, self.name, f"{value:g}"))


def with_setting(spec: str, name: str, value: str) -> str:
    """A specification as it was typed, with one setting more, or in the place of its ``auto``."""
    if is_auto(spec):
        return _AUTO.sub(f"{name}={value}", spec)
    return f"{spec}{',' if ':' in spec and not _bare(spec) else ':'}{name}={value}"


def is_auto(spec: str) -> bool:
    """Whether a setting of this defence is left to the tuner."""
    return _AUTO.search(spec) is not None


def split_targets(spec: str) -> tuple[str, tuple[str, ...]]:
    """The defence and the targets of ``crafter:beta=auto,target=identification<=0.1``."""
    colons = 2 if is_factory(spec) else 1  # further ones belong to a metric: auc:NAME
    *name, rest = spec.split(":", colons)
    if len(name) < colons:
        return spec, ()
    settings, targets = [], []
    for part in rest.split(","):
        target = _TARGET.fullmatch(part)
        if target:
            targets.append(target[1])
        else:
            settings.append(part)
    return ":".join([*name, ",".join(settings)] if settings else name), tuple(targets)


def knob_of(spec: str, *, preset: str, between: tuple[float, float] | None = None) -> Knob:
    """The open setting of ``spec``: the one that says ``auto``, else the defence's own knob.

    The search starts at the setting's default and reaches a factor of 64 around it, or as far as
    the defence takes it; a user's own, whose default isn't known, is searched around 1. ``between``
    says other ends. Raises UsageError where there is no such setting, more than one, or one that
    takes no such number.
    """
    where = f"--defence {spec}"
    open_ones = _AUTO.findall(spec)
    if len(open_ones) > 1:
        raise UsageError("Only one setting of a defence can be tuned", where=where)
    name = open_ones[0] if open_ones else _own_knob(spec, where)
    if not open_ones and not is_factory(spec) and name in parse_spec(spec, what="defence")[1]:
        raise UsageError(
            f"{name} is what is searched here, and this says a number for it", where=where,
            todo=f"Leave it out or write {name}=auto; --values measures settings of your own too",
        )  # fmt: skip
    if not open_ones:
        spec = with_setting(spec, name, "auto")
    start = 1.0 if is_factory(spec) else _default(spec, name, preset)
    knob = Knob(spec, name, start, start, start, lambda one: named_defence(one, preset))
    if between is None:
        least, most = (
            _as_far(knob, (float(f"{start * factor**side:g}") for factor in REACHES), where)
            for side in (-1, 1)
        )
        if least == most:
            raise UsageError(
                f"This defence takes {name}={start:g} and nothing around it", where=where,
                todo="Say ends that it takes: --between LEAST,MOST",
            )  # fmt: skip
        return replace(knob, least=least, most=most)
    least, most = (float(f"{end:g}") for end in between)  # as labels tell settings apart
    if not 0 < least < most:
        raise UsageError(
            "The settings to try must be above 0, the least first",
            where=f"--between {least:g},{most:g}",
        )
    for end in (least, most):  # before any work: a search that fails midway loses what it measured
        _as_far(knob, (end,), f"--between {least:g},{most:g}")
    return replace(knob, start=min(most, max(least, start)), least=least, most=most)


def _as_far(knob: Knob, ends: Iterable[float], where: str) -> float:
    """The first of these settings that the defence takes; UsageError where it takes none."""
    for end in ends:
        try:
            knob.at(end)
        except LeakauditError as error:
            refused = error
        else:
            return end
    todo = None if where.startswith("--between") else "Where it takes others: --between LEAST,MOST"
    raise UsageError(f"This defence can't be tuned: {refused}", where=where, todo=todo) from refused


def _bare(spec: str) -> bool:
    """Whether a factory is named without settings: its own colon is no beginning of them."""
    return is_factory(spec) and spec.count(":") == 1


def _own_knob(spec: str, where: str) -> str:
    if is_factory(spec):
        raise UsageError(
            "A defence of your own must say what to tune", where=where, todo="Write NAME=auto"
        )
    name = DEFENCES.find(parse_spec(spec, what="defence")[0]).knob
    if not name:
        raise UsageError(
            "This defence has no setting that is tuned by itself",
            where=where,
            todo="Write NAME=auto for the setting that brings more privacy",
        )
    return name


def _default(spec: str, name: str, preset: str) -> float:
    """The setting's value where nothing is said, by the preset or the class."""
    rest = _AUTO.sub("", spec).replace(":,", ":").replace(",,", ",").rstrip(",:")
    value: Any = named_defence(rest, preset).defence
    for part in name.split("."):
        known = [field.name for field in fields(value)] if is_dataclass(value) else []
        if part not in known:
            raise UnknownNameError("setting", name, known, where=f"--defence {spec}")
        value = getattr(value, part)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"'{name}' is no number that could be tuned", where=f"--defence {spec}")
    if isinstance(value, int):
        raise UsageError(
            f"'{name}' takes whole numbers, and a search needs those between them too",
            where=f"--defence {spec}",
            todo="Compare some of them in one scan, each by a --defence of its own",
        )
    return float(value) if value > 0 else 1.0
