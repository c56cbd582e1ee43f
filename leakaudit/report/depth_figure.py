"""The picture of leakage by depth: one series a defence with intervals, floor and ceiling."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from leakaudit.report.depth import LayerRow
from leakaudit.report.figures import WIDTH, drawing, written, y_axis
from leakaudit.report.marks import Scale, marker
from leakaudit.report.words import percent

_LEFT, _RIGHT, _TOP, _PLOT = 62.0, WIDTH - 20.0, 20.0, 250.0
_LINE = 18.0  # between two lines of names
_LETTER = 8.0
_DODGE = 7.0  # between the series at one layer, so that their whiskers can be told apart
_NAME_LENGTH = 16


def by_depth(rows: Sequence[LayerRow], labels: Sequence[str], *, limit: float | None) -> Markup:
    """Faces named at worst over depth; ``limit`` is a gate's, drawn where there is one.

    Layers stand at their depth, or side by side where one of the depths isn't known.
    """
    known = all(row.depth is not None for row in rows)
    x = Scale(-0.03, 1.03, _LEFT, _RIGHT) if known else Scale(-0.5, len(rows) - 0.5, _LEFT, _RIGHT)
    at = [x(row.depth if known and row.depth is not None else k) for k, row in enumerate(rows)]
    bottom = _TOP + _PLOT
    y = Scale(0.0, 1.0, bottom, _TOP)
    lines = _names(rows, at, bottom)
    parts = [y_axis(y, x), *lines[0], *_axis(x, bottom, lines[1], known=known)]
    parts += _bounds(rows, at, y)
    if limit is not None:
        parts.append(_across(x, y(limit), f"gate {percent(limit)}"))
    for index in range(len(labels)):
        parts += _series(rows, at, y, index, count=len(labels))
    title = "Leakage by depth: share of faces named at worst at each layer, by defence"
    return drawing(lines[1] + (66 if known else 40), title, parts)


def _names(rows: Sequence[LayerRow], at: Sequence[float], bottom: float) -> tuple[
    list[Markup], float
]:  # fmt: skip
    """Each layer's name below the plot, on the first line where it has room, and the last line."""
    ends: list[float] = []
    parts = []
    for row, place in zip(rows, at, strict=True):
        name = row.layer if len(row.layer) <= _NAME_LENGTH else f"…{row.layer[1 - _NAME_LENGTH :]}"
        half = _LETTER * len(name) / 2
        middle = min(max(place, _LEFT + half - 40), _RIGHT + 16 - half)
        line = next((k for k, end in enumerate(ends) if end <= middle - half), len(ends))
        ends[line:] = [middle + half + 6, *ends[line + 1 :]]
        down = bottom + _LINE * (line + 1)
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}" stroke="currentColor" '
                'stroke-opacity=".25" stroke-dasharray="1 3"/>'
            ).format(place, _TOP, down - 13)
        )
        parts.append(written(middle, down, name))
    return parts, bottom + _LINE * max(1, len(ends))


def _axis(x: Scale, bottom: float, below: float, *, known: bool) -> list[Markup]:
    """The base line; under the names the numbers of depth, where they are known."""
    base = Markup('<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor"/>')
    parts = [base.format(_LEFT, _RIGHT, bottom, bottom)]
    if known:
        parts += [written(x(step / 4), below + 24, f"{step / 4:g}") for step in range(5)]
    label = "depth: share of the multiply-adds done before the split" if known else "layer"
    parts.append(written((_LEFT + _RIGHT) / 2, below + (48 if known else 24), label))
    parts.append(written(14, _TOP + _PLOT / 2, "faces named at worst", turn=True))
    return parts


def _bounds(rows: Sequence[LayerRow], at: Sequence[float], y: Scale) -> list[Markup]:
    """Floor (the highest of the defences') and ceiling from layer to layer."""
    floors = [max((c.floor for c in row.cells if c and c.floor is not None), default=None)
              for row in rows]  # fmt: skip
    ceilings = [max((c.ceiling for c in row.cells if c and c.ceiling is not None), default=None)
                for row in rows]  # fmt: skip
    return [
        *_level(floors, at, y, "floor", "6 4", rise=-6),
        *_level(ceilings, at, y, "ceiling", "2 3", rise=-6),
    ]


def _level(
    values: Sequence[float | None], at: Sequence[float], y: Scale, name: str, dash: str, *,
    rise: float,
) -> list[Markup]:  # fmt: skip
    points = [(a, y(v)) for a, v in zip(at, values, strict=True) if v is not None]
    if not points:
        return []
    ends = [(_LEFT, points[0][1]), *points, (_RIGHT, points[-1][1])]
    path = " ".join(f"{a},{b}" for a, b in ends)
    drawn = Markup(
        '<polyline class="{}" points="{}" fill="none" stroke="currentColor" stroke-width="1.5" '
        'stroke-dasharray="{}"/>'
    ).format(name, path, dash)
    return [drawn, written(_RIGHT - 2, ends[-1][1] + rise, name, anchor="end", kind="label")]


def _across(x: Scale, y: float, label: str) -> Markup:
    return Markup(
        '<line class="limit" x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" '
        'stroke-width="2"/>{}'
    ).format(x.start, x.end, y, y, written(x.start + 4, y - 6, label, anchor="start", kind="label"))


def _series(
    rows: Sequence[LayerRow], at: Sequence[float], y: Scale, index: int, *, count: int
) -> list[Markup]:
    """One defence: a thin line from layer to layer, whiskers, and its mark at each."""
    aside = _DODGE * (index - (count - 1) / 2)
    cells = [row.cells[index] for row in rows]
    scores = [None if cell is None else cell.worst for cell in cells]
    points = [
        (round(a + aside, 1), score)
        for a, score in zip(at, scores, strict=True)
        if score is not None and score.value is not None
    ]
    path = " ".join(f"{a},{y(s.value)}" for a, s in points if s.value is not None)
    parts = [
        Markup(
            '<polyline class="m{}" points="{}" fill="none" stroke="currentColor" '
            'stroke-width="1.5" stroke-opacity=".6"/>'
        ).format(index % 6, path)
    ]
    for a, s in points:
        if s.low is not None and s.high is not None:
            parts.append(
                Markup(
                    '<line class="whisker m{0}" x1="{1}" x2="{1}" y1="{2}" y2="{3}" '
                    'stroke="currentColor" stroke-width="2.5" stroke-opacity=".7"/>'
                ).format(index % 6, a, y(s.low), y(s.high))
            )
    return parts + [marker(index, a, y(s.value)) for a, s in points if s.value is not None]
