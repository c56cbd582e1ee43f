"""Strings of others made harmless for logs and machines: no control signs, no workflow commands."""

from __future__ import annotations

import unicodedata

from leakaudit.report.words import clean


def inert(value: str) -> str:
    """``value`` on one line that XML can hold and that no CI runner takes for a command."""
    return "".join("\ufffd" if _unassigned(c) else c for c in clean(value))


def _unassigned(character: str) -> bool:
    """Non-characters such as U+FFFE, which XML forbids."""
    return ord(character) & 0xFFFE == 0xFFFE or unicodedata.category(character) == "Cs"
