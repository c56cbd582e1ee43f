"""The report's pictures as inline SVG: axes, whiskers, points, bars; labels are escaped.

All functions are pure and give ``Markup``. Shapes are drawn in ``currentColor``, so that they are
readable without the style sheet; its classes only add colour. Each figure stands beside a table of
the same numbers, which is where assistive technology reads them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from leakaudit.report.marks import Scale, marker
from leakaudit.report.words import clean

WIDTH = 480
_LABEL_LENGTH = 26
_CHARACTER = 8.0  # pixels a letter at this font size, rather too many than too few
_RISES = (-9, 24, -28, 43, -47, 62, -66)  # where a label may stand above or below its point


@dataclass(frozen=True)
class Area:
    """A rectangle in pixels, ``top`` above ``bottom``."""

    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: Area) -> bool:
        """Whether the two share some ground."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: Area) -> bool:
        """Whether this one stays between the top and bottom of the other."""
        return other.top <= self.top and self.bottom <= other.bottom


@dataclass(frozen=True)
class Point:
    """A labelled point with whiskers on both axes; a missing whisker is ``None``."""

    label: str
    x: float
    x_low: float | None
    x_high: float | None
    y: float
    y_low: float | None
    y_high: float | None


@dataclass(frozen=True)
class Panel:
    """One histogram: counts in equal bins, with lines at its mean, floor and ceiling."""

    label: str
    counts: tuple[int, ...]
    mean: float | None
    floor: float | None
    ceiling: float | None


def ticks(low: float, high: float, *, most: int = 6) -> tuple[float, ...]:
    """Round numbers inside ``[low, high]``, at most about ``most`` of them."""
    span = high - low
    if not span > 0:
        return (low,)
    rough = span / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(index * step, 10) for index in range(first, last + 1))


def tradeoff(points: Sequence[Point], *, floor: float | None) -> Markup:
    """Privacy against utility: AUC lost to the right, faces named upwards, best is bottom left."""
    height, left, right, top, bottom = 340, 78, WIDTH - 16, 22, 340 - 54
    extents = [x for p in points for x in (p.x, p.x_low, p.x_high) if x is not None]
    low, high = min([-0.01, *extents]), max([0.05, *extents])
    margin = 0.06 * (high - low)
    x = Scale(low - margin, high + margin, left, right)
    y = Scale(0.0, 1.0, bottom, top)
    parts = [y_axis(y, x), _x_axis(x, bottom, "AUC lost to the defence")]
    parts.append(written(14, (top + bottom) / 2, "faces named at worst", turn=True))
    if floor is not None:
        parts.append(_level(x, y(floor), "floor"))
    shown = [(x(p.x), y(p.y)) for p in points]
    parts += [_whiskers(p, x, y) for p in points]
    parts += [marker(index, *at) for index, at in enumerate(shown)]
    parts += _labels([p.label for p in points], shown, Area(left, right, 0, bottom))
    title = "Privacy against utility: share of faces named at worst over the AUC lost"
    return drawing(height, title, parts)


def settings_plane(
    series: Sequence[Sequence[Point]], *, level: float | None, label: str, share: bool
) -> Markup:
    """A figure over the AUC lost, one curve a defence along its settings; ``level`` is the target.

    ``share`` says that the figure is told in per cent.
    """
    height, left, right, top, bottom = 360, 78, WIDTH - 16, 22, 360 - 54
    every = [point for points in series for point in points]
    across = [x for p in every for x in (p.x, p.x_low, p.x_high) if x is not None]
    down = [y for p in every for y in (p.y, p.y_low, p.y_high, level) if y is not None]
    low, high = min([-0.01, *across]), max([0.05, *across])
    margin = 0.06 * (high - low)
    x = Scale(low - margin, high + margin, left, right)
    y = Scale(min([0.0, *down]), max(down, default=1.0), bottom, top)
    parts = [y_axis(y, x, share=share), _x_axis(x, bottom, "AUC lost to the defence")]
    parts.append(written(14, (top + bottom) / 2, _shortened(label, 34), turn=True))
    if level is not None:
        parts.append(_level(x, y(level), "target"))
    shown = []
    for index, points in enumerate(series):
        at = [(x(p.x), y(p.y)) for p in points]
        path = " ".join(f"{a},{b}" for a, b in at)
        parts.append(
            Markup(
                '<polyline points="{}" fill="none" stroke="currentColor" stroke-opacity=".5"/>'
            ).format(path)
        )
        parts += [_whiskers(p, x, y) for p in points]
        parts += [marker(index, *place) for place in at]
        shown += at
    parts += _labels([p.label for p in every], shown, Area(left, right, 0, bottom))
    return drawing(height, f"Trade-off: {label} over the AUC lost", parts)


def histograms(panels: Sequence[Panel], *, edges: Sequence[float], label: str) -> Markup:
    """Histograms over one shared axis, one below the other."""
    each, left, right = 96, 16, WIDTH - 16
    height = each * len(panels) + 46
    x = Scale(edges[0], edges[-1], left, right)
    tallest = max((max(panel.counts) for panel in panels), default=1) or 1
    parts: list[Markup] = []
    for index, panel in enumerate(panels):
        base = each * (index + 1)
        parts.append(_panel(panel, x, edges, base=base, room=each - 34, tallest=tallest))
    parts.append(_x_axis(x, each * len(panels), label))
    return drawing(height, f"Histograms: {label}", parts)


def drawing(height: float, title: str, parts: Sequence[Markup]) -> Markup:
    """One figure of the report's width; ``title`` is what assistive technology calls it."""
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}" '
        'font-family="system-ui, sans-serif" font-size="15">{}</svg>'
    ).format(WIDTH, height, WIDTH, height, clean(title), Markup("").join(parts))


def written(
    x: float,
    y: float,
    label: str,
    *,
    anchor: str = "middle",
    turn: bool = False,
    kind: str = "tick",
) -> Markup:
    """A label at this place, cleaned and escaped; ``turn`` writes it upwards."""
    spun = Markup(' transform="rotate(-90 {} {})"').format(x, y) if turn else Markup("")
    return Markup(
        '<text class="{}" x="{}" y="{}" text-anchor="{}" fill="currentColor"{}>{}</text>'
    ).format(kind, round(x, 1), round(y, 1), anchor, spun, clean(label))


def y_axis(y: Scale, x: Scale, *, share: bool = True) -> Markup:
    """Grid lines with their numbers, in per cent for a ``share``."""
    rows = [
        Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" '
            'stroke-opacity=".18"/>{}'
        ).format(
            x.start,
            x.end,
            y(v),
            y(v),
            written(
                x.start - 8, y(v) + 5, f"{100 * v:.0f}%" if share else f"{v:.3g}", anchor="end"
            ),
        )
        for v in ticks(y.low, y.high, most=5)
    ]
    return Markup("").join(rows)


def _x_axis(x: Scale, base: float, label: str) -> Markup:
    parts = [
        Markup('<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor"/>').format(
            x.start, x.end, base, base
        )
    ]
    for value in ticks(x.low, x.high):
        parts.append(
            Markup('<line x1="{0}" x2="{0}" y1="{1}" y2="{2}" stroke="currentColor"/>').format(
                x(value), base, base + 5
            )
        )
        parts.append(written(x(value), base + 21, f"{value:.4g}"))
    parts.append(written((x.start + x.end) / 2, base + 43, label))
    return Markup("").join(parts)


def _level(x: Scale, y: float, label: str) -> Markup:
    return Markup(
        '<line class="floor" x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" '
        'stroke-dasharray="6 4" stroke-width="1.5"/>{}'
    ).format(x.start, x.end, y, y, written(x.end - 2, y - 6, label, anchor="end", kind="label"))


def _whiskers(point: Point, x: Scale, y: Scale) -> Markup:
    line = Markup(
        '<line class="whisker" x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" '
        'stroke-width="2" stroke-opacity=".55"/>'
    )
    parts = []
    if point.x_low is not None and point.x_high is not None:
        parts.append(line.format(x(point.x_low), x(point.x_high), y(point.y), y(point.y)))
    if point.y_low is not None and point.y_high is not None:
        parts.append(line.format(x(point.x), x(point.x), y(point.y_low), y(point.y_high)))
    return Markup("").join(parts)


def _labels(labels: Sequence[str], at: Sequence[tuple[float, float]], area: Area) -> list[Markup]:
    """Labels beside their points, turned towards the middle, each where no other one stands yet."""
    taken: list[Area] = []
    parts = []
    for label, (x, y) in zip(labels, at, strict=True):
        text = _shortened(label, _LABEL_LENGTH)
        width = _CHARACTER * len(text)
        rightwards = x < (area.left + area.right) / 2
        left = x + 11 if rightwards else x - 11 - width
        spots = [Area(left, left + width, y + rise - 14, y + rise + 4) for rise in _RISES]
        free = [s for s in spots if s.within(area) and not any(s.meets(other) for other in taken)]
        spot = free[0] if free else spots[0]
        taken.append(spot)
        anchor = "start" if rightwards else "end"
        start = left if rightwards else left + width
        parts.append(written(start, spot.bottom - 4, text, anchor=anchor, kind="label"))
    return parts


def _panel(
    panel: Panel, x: Scale, edges: Sequence[float], *, base: float, room: float, tallest: int
) -> Markup:
    parts = [written(x.start, base - room - 12, _shortened(panel.label), anchor="start")]
    for index, number in enumerate(panel.counts):
        start, end = x(edges[index]), x(edges[index + 1])
        tall = round(room * number / tallest, 1)
        parts.append(
            Markup(
                '<rect class="column" x="{}" y="{}" width="{}" height="{}" fill="currentColor" '
                'fill-opacity=".55"/>'
            ).format(start + 0.5, round(base - tall, 1), round(max(0.5, end - start - 1), 1), tall)
        )
    parts.append(
        Markup('<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor"/>').format(
            x.start, x.end, base, base
        )
    )
    for kind, dash, value in (
        ("floor", "6 4", panel.floor),
        ("mean", "none", panel.mean),
        ("ceiling", "2 3", panel.ceiling),
    ):
        if value is not None:
            parts.append(
                Markup(
                    '<line class="{0}" x1="{1}" x2="{1}" y1="{2}" y2="{3}" stroke="currentColor" '
                    'stroke-width="2" stroke-dasharray="{4}"/>'
                ).format(kind, x(value), base - room, base, dash)
            )
    return Markup("").join(parts)


def _shortened(text: str, length: int = 52) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
