"""Counts in words."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``1 attack``, ``2 attacks``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
