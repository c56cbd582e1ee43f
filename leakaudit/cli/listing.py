"""Listings on stdout: as a table for people, or as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from leakaudit.core.errors import UnknownNameError


def text_or_json(kind: str) -> bool:
    """Whether a listing is wanted as JSON; UsageError for anything but ``text`` and ``json``."""
    if kind not in ("text", "json"):
        raise UnknownNameError("format", kind, ("text", "json"), where="--format")
    return kind == "json"


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """The rows as clean lines with aligned columns, those of ``right`` to the right."""
    from leakaudit.report.words import clean

    rows = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
