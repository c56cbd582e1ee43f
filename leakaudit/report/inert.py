"""Strings of others made harmless for logs and machines: no control signs, no workflow commands."""

from __future__ import annotations

import re
import unicodedata

from leakaudit.report.words import clean

_JOINER = "\u2060"  # shows nothing and breaks nothing but the command
_COMMANDS = re.compile(r":(?=:)|#(?=#)")  # ::error::, ##[error], ##vso[...]


def inert(value: str) -> str:
    """``value`` on one line that XML can hold and that no CI runner takes for a command.

    GitHub reads ``::name::`` at the start of a line and ``##[name]`` anywhere in one, Azure
    ``##vso[...]``; a word joiner between the two signs stops all of them.
    """
    text = "".join("\ufffd" if _unassigned(c) else c for c in clean(value))
    return unbroken(text)


def unbroken(text: str) -> str:
    """``text`` without anything that a CI runner would take for a command; lines stay lines."""
    return _COMMANDS.sub(lambda found: found.group() + _JOINER, text)


def _unassigned(character: str) -> bool:
    """Non-characters such as U+FFFE, which XML forbids."""
    return ord(character) & 0xFFFE == 0xFFFE or unicodedata.category(character) == "Cs"
