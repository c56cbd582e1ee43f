"""One tree of exceptions: what is wrong, where, what to do, and the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class LeakauditError(Exception):
    """Something the user can read and act upon; ``exit_code`` follows the table in docs/cli.md.

    ``what`` is one sentence on what is wrong, ``where`` names the file, option or layer, and
    ``todo`` says what to do next.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, what: str, *, where: str | None = None, todo: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.todo = todo

    def __str__(self) -> str:
        parts = [self.what if self.where is None else f"{self.what} ({self.where})"]
        if self.todo:
            parts.append(self.todo)
        return " ".join(part if part.endswith((".", "!", "?")) else part + "." for part in parts)


class UsageError(LeakauditError):
    """A wrong option, configuration value or combination of them (exit 2)."""

    exit_code: ClassVar[int] = 2


class InputError(UsageError):
    """A picture, folder, label file or result file that can't be used (exit 2)."""


class WeightsError(UsageError):
    """Weights that are missing, damaged, unsafe to load or don't fit the network (exit 2)."""


class UnknownNameError(UsageError):
    """A name that isn't known, with the nearest known ones (exit 2)."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str | None = None):
        choices = sorted(known)
        near = difflib.get_close_matches(name, choices, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(choices)}."
        super().__init__(f"Unknown {kind} '{name}'", where=where, todo=hint)
        self.near = near


class InconclusiveError(LeakauditError):
    """A question was asked that can't be decided with what was measured (exit 3)."""

    exit_code: ClassVar[int] = 3


class RunError(LeakauditError):
    """A failure while running: no memory, no space, non-finite numbers (exit 4)."""

    exit_code: ClassVar[int] = 4


class InterruptedRun(LeakauditError):  # noqa: N818 - an interruption isn't an error
    """The user stopped the run (exit 130)."""

    exit_code: ClassVar[int] = 130
