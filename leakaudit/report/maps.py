"""The map of latents as inline SVG: a crowd is one path of small signs, so that it stays short."""

from __future__ import annotations

from markupsafe import Markup

from leakaudit.core.types import LatentMap, MapGroup
from leakaudit.report.figures import WIDTH, ticks
from leakaudit.report.marks import Scale

_HEIGHT = 430
_SIGNS = (  # drawn from a point in relative steps; the first is a dot by its round end
    "h0",
    "m-4 0h8m-4-4v8",
    "m-3-3l6 6m0-6l-6 6",
    "m0-4l4 7h-8z",
    "m-3-3h6v6h-6z",
    "m0-4l4 4-4 4-4-4z",
)


def latent_map(found: LatentMap) -> Markup:
    """The crowds on one plane with equal axes; circles where there are no points."""
    left, right, top, bottom = 52.0, WIDTH - 14.0, 14.0, _HEIGHT - 50.0
    reach = max(map(_reach, found.groups), default=1.0) or 1.0
    half = reach * (right - left) / (bottom - top)
    x = Scale(-half, half, left, right)
    y = Scale(-reach, reach, bottom, top)
    parts = [_axes(x, y)]
    order = sorted(range(len(found.groups)), key=lambda index: (index == 0, -index), reverse=True)
    parts += [_crowd(found.groups[index], index, x, y) for index in order]
    return Markup(
        '<svg class="plot" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" '
        'aria-label="Map of the answers in the prior\'s latent space" '
        'font-family="system-ui, sans-serif" font-size="15">{2}</svg>'
    ).format(WIDTH, _HEIGHT, Markup("").join(parts))


def legend(index: int) -> Markup:
    """The sign of the ``index``-th crowd by itself, to stand in a table."""
    return Markup('<svg class="key" viewBox="0 0 18 18" width="18" height="18" aria-hidden="true">'
                  "{}</svg>").format(_path(index, f"M9 9{_sign(index)}"))  # fmt: skip


def _reach(group: MapGroup) -> float:
    """How far from the middle of the plane a crowd goes, with a margin."""
    rim = [abs(end) + 1.2 * group.spread for end in group.centre]
    return 1.05 * max(*rim, *(abs(end) for point in group.points for end in point))


def _sign(index: int) -> str:
    return _SIGNS[index if index < len(_SIGNS) else 1 + (index - 1) % (len(_SIGNS) - 1)]


def _crowd(group: MapGroup, index: int, x: Scale, y: Scale) -> Markup:
    if group.points:
        sign = _sign(index)
        return _path(index, "".join(f"M{x(a):g} {y(b):g}{sign}" for a, b in group.points))
    radius = abs(x(group.spread) - x(0.0))
    return Markup(
        '{}<circle class="crowd c{}" cx="{}" cy="{}" r="{}" fill="none" stroke="currentColor" '
        'stroke-width="2" stroke-dasharray="{}"/>'
    ).format(
        _path(index, f"M{x(group.centre[0]):g} {y(group.centre[1]):g}{_sign(index)}"),
        _colour(index), x(group.centre[0]), y(group.centre[1]), round(radius, 1),
        "none" if index == 0 else f"{2 + 2 * index} 3",
    )  # fmt: skip


def _path(index: int, steps: str) -> Markup:
    return Markup(
        '<path class="crowd c{}" d="{}" fill="none" stroke="currentColor" stroke-width="{}" '
        'stroke-linecap="round"/>'
    ).format(_colour(index), steps, "4" if index == 0 else "1.6")


def _colour(index: int) -> int:
    return index if index < len(_SIGNS) else 1 + (index - 1) % (len(_SIGNS) - 1)


def _axes(x: Scale, y: Scale) -> Markup:
    """Lines at round numbers, and the names of both axes."""
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" '
                  'stroke-opacity=".18"/>')  # fmt: skip
    text = Markup(
        '<text class="tick" x="{}" y="{}" text-anchor="{}" fill="currentColor"{}>{}</text>'
    )
    parts = []
    for value in ticks(x.low, x.high, most=6):
        parts.append(line.format(x(value), x(value), y.start, y.end))
        parts.append(text.format(x(value), y.start + 20, "middle", "", f"{value:.4g}"))
    for value in ticks(y.low, y.high, most=6):
        parts.append(line.format(x.start, x.end, y(value), y(value)))
        parts.append(text.format(x.start - 6, y(value) + 5, "end", "", f"{value:.4g}"))
    middle = round((y.start + y.end) / 2, 1)
    turn = Markup(' transform="rotate(-90 12 {})"').format(middle)
    centre = round((x.start + x.end) / 2, 1)
    parts.append(text.format(centre, y.start + 42, "middle", "", "first axis"))
    parts.append(text.format(12, middle, "middle", turn, "second axis"))
    return Markup("").join(parts)
