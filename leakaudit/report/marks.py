"""Signs small enough to stand in a line or a table cell: bars, curves, markers, icons.

All functions are pure and give ``Markup``; shapes are drawn in ``currentColor``, so that they are
readable without the style sheet. They repeat what the text beside them says, and so are hidden from
assistive technology.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Scale:
    """A linear map of ``[low, high]`` onto the pixels ``[start, end]``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of ``value``, kept inside the axis."""
        span = (self.high - self.low) or 1.0
        share = min(1.0, max(0.0, (value - self.low) / span))
        return round(self.start + share * (self.end - self.start), 1)


def interval_bar(
    value: float | None, low: float | None, high: float | None, floor: float | None
) -> Markup:
    """A whisker on a track from 0 to 1 with a stroke at the floor; empty without a value."""
    if value is None:
        return Markup("")
    scale = Scale(0.0, 1.0, 4, 96)
    parts = [Markup('<line class="track" x1="4" x2="96" y1="7" y2="7" stroke="currentColor" '
                    'stroke-opacity=".3"/>')]  # fmt: skip
    if low is not None and high is not None:
        parts.append(
            Markup(
                '<line class="whisker" x1="{}" x2="{}" y1="7" y2="7" stroke="currentColor" '
                'stroke-width="3" stroke-opacity=".55"/>'
            ).format(scale(low), scale(high))
        )
    if floor is not None:
        parts.append(
            Markup(
                '<line class="floor" x1="{0}" x2="{0}" y1="1" y2="13" stroke="currentColor" '
                'stroke-width="1.5" stroke-dasharray="2 2"/>'
            ).format(scale(floor))
        )
    parts.append(Markup('<circle cx="{}" cy="7" r="4" fill="currentColor"/>').format(scale(value)))
    return Markup(
        '<svg class="bar" viewBox="0 0 100 14" width="100" height="14" aria-hidden="true">{}</svg>'
    ).format(Markup("").join(parts))


def sparkline(curve: Sequence[float | None]) -> Markup:
    """A loss curve from left to right in its own range; empty for fewer than two numbers."""
    values = [value for value in curve if value is not None and math.isfinite(value)]
    if len(values) < 2:
        return Markup("")
    across = Scale(0, len(values) - 1, 2, 78)
    down = Scale(min(values), max(values), 20, 3)
    path = " ".join(f"{across(i)},{down(value)}" for i, value in enumerate(values))
    return Markup(
        '<svg class="spark" viewBox="0 0 80 24" width="80" height="24" aria-hidden="true">'
        '<polyline points="{}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    ).format(path)


def marker(index: int, x: float, y: float) -> Markup:
    """The shape of the ``index``-th series, so that series differ without colour."""
    shapes = (
        '<circle class="mark m{i}" cx="{x}" cy="{y}" r="6" fill="currentColor"/>',
        '<rect class="mark m{i}" x="{a}" y="{b}" width="11" height="11" fill="currentColor"/>',
        '<path class="mark m{i}" d="M{x} {u}L{r} {y}L{x} {v}L{l} {y}Z" fill="currentColor"/>',
        '<path class="mark m{i}" d="M{x} {u}L{r} {v}L{l} {v}Z" fill="currentColor"/>',
        '<path class="mark m{i}" d="M{x} {v}L{r} {u}L{l} {u}Z" fill="currentColor"/>',
        '<circle class="mark m{i}" cx="{x}" cy="{y}" r="5" fill="none" stroke="currentColor" '
        'stroke-width="3"/>',
    )
    numbers = {
        "i": index % len(shapes),
        "x": round(x, 1),
        "y": round(y, 1),
        "a": round(x - 5.5, 1),
        "b": round(y - 5.5, 1),
        "u": round(y - 7, 1),
        "v": round(y + 7, 1),
        "l": round(x - 7, 1),
        "r": round(x + 7, 1),
    }
    return Markup(shapes[index % len(shapes)]).format(**numbers)


def legend_mark(index: int) -> Markup:
    """The marker of the ``index``-th series by itself, to stand in a table."""
    return Markup('<svg class="key" viewBox="0 0 18 18" width="18" height="18" aria-hidden="true">'
                  "{}</svg>").format(marker(index, 9, 9))  # fmt: skip


def silhouette() -> Markup:
    """A head and shoulders, in place of a face that is withheld."""
    return Markup(
        '<svg class="silhouette" viewBox="0 0 64 64" width="112" height="112" role="img" '
        'aria-label="picture withheld"><circle cx="32" cy="24" r="12" fill="currentColor"/>'
        '<path d="M8 60c2-15 12-21 24-21s22 6 24 21z" fill="currentColor"/></svg>'
    )


def icon(name: str) -> Markup:
    """A sign whose outline differs for each status, so that colour isn't needed to tell them."""
    inner = _ICONS.get(name, _ICONS["note"])
    return Markup(
        '<svg class="icon" viewBox="0 0 24 24" width="24" height="24" aria-hidden="true" '
        'fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" '
        'stroke-linejoin="round">{}</svg>'
    ).format(Markup(inner))


_ICONS = {
    "pass": '<circle cx="12" cy="12" r="10"/><path d="M7 12.5l3.5 3.5L17 9"/>',
    "fail": '<path d="M8 2h8l6 6v8l-6 6H8l-6-6V8z"/><path d="M8.5 8.5l7 7M15.5 8.5l-7 7"/>',
    "inconclusive": '<path d="M12 2l10 10-10 10L2 12z"/><path d="M9.6 10a2.4 2.4 0 1 1 3.4 2.2'
    'c-.7.4-1 .8-1 1.4M12 16.6v.1"/>',
    "ungated": '<rect x="2" y="7" width="20" height="10" rx="1"/><path d="M6 7v4M10 7v5M14 7v4M18 '
    '7v5"/>',
    "serious": '<path d="M12 3l10 18H2z"/><path d="M12 10v5M12 18v.1"/>',
    "note": '<circle cx="12" cy="12" r="10"/><path d="M12 11v6M12 7v.1"/>',
}
