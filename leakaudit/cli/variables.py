"""Environment variables that are meant for leakaudit but that no option reads."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from leakaudit.core.cache import OFFLINE, VARIABLE
from leakaudit.core.errors import UsageError

PREFIX = "LEAKAUDIT_"
OTHERS = (OFFLINE, VARIABLE, "LEAKAUDIT_DEBUG", "LEAKAUDIT_DATA")
"""Those that no option has; the last one names the faces of the tests."""
NEAR = 0.8
"""From this similarity on, of 1, a name is taken for a known one that was mistyped."""
DECIDING = ("LEAKAUDIT_FAIL_ON", "LEAKAUDIT_POLICY")
"""What decides whether a run fails: no name that holds one of these words may go unread."""


def unread(commands: Mapping[str, Any], environment: Iterable[str]) -> list[str]:
    """The variables of ``environment`` that begin as ours do and that nothing reads.

    Raises `UsageError` for one that looks like a known name mistyped: a gate that was asked for in
    that way would silently be none.
    """
    known = {*OTHERS, *_of(commands)}
    strange = sorted(n for n in environment if n.startswith(PREFIX) and n not in known)
    words = {name.removeprefix(PREFIX): name for name in known}
    for name in strange:
        near = difflib.get_close_matches(name.removeprefix(PREFIX), words, n=1, cutoff=NEAR)
        meant = [words[one] for one in near]
        meant += [one for one in DECIDING if one.removeprefix(PREFIX) in name]
        if meant and (meant[0] in DECIDING or _short(name) != _short(meant[0])):
            raise UsageError(
                f"No option reads the variable {name}",
                todo=f"Did you mean {meant[0]}? Otherwise unset it",
            )
    return strange


def refuse_empty(variable: str, given: object) -> None:
    """UsageError where a variable that decides whether a run fails is set, and empty."""
    if not given and os.environ.get(variable) is not None:
        raise UsageError(
            f"{variable} is set, and empty: nothing would be held against it",
            todo="Unset it, or give it what it is for (is a variable of your CI missing?)",
        )


def _short(name: str) -> str:
    """A plural is another word: a CI's ``LEAKAUDIT_IMAGE`` names a container, not pictures."""
    return name.removesuffix("S")


def _of(commands: Mapping[str, Any]) -> Iterator[str]:
    """The variables of all options of these commands and of those below them."""
    for command in commands.values():
        yield from _of(getattr(command, "commands", {}))
        for parameter in command.params:
            given = parameter.envvar
            yield from (given,) if isinstance(given, str) else given or ()
