"""The least setting at which noisy, falling figures are all down to their limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from leakaudit.maths.isotonic import crossing, falling

Measured = tuple[float, float, float]
"""A figure less its limit, with the ends of its interval; at or below 0 the limit is kept."""

GROWTH = 4.0
"""The factor to the next setting while the limit isn't bracketed yet; it squares as it goes on."""


@final
@dataclass(frozen=True)
class Search:
    """How a setting above 0 is searched for.

    From ``start`` within [``least``, ``most``], by at most ``evaluations`` measurements, until the
    settings around the limit are at most a factor ``precision`` apart; one measurement more where
    the one that is wanted has nothing to confirm it. With ``upwards`` figures fall as the setting
    grows and the least setting is wanted; without, they rise, and the greatest.
    """

    start: float
    least: float
    most: float
    evaluations: int = 6
    precision: float = 1.3
    upwards: bool = True


@final
@dataclass(frozen=True)
class Found:
    """What a search measured, and where it ended.

    ``figures`` maps settings, in the order of their size, to one ``Measured`` a figure; ``fitted``
    to the monotone fits of their middles; ``chosen`` is the setting that was wanted, or None where
    none keeps all limits, or where of several settings a single one does.
    """

    figures: Mapping[float, tuple[Measured, ...]]
    fitted: Mapping[float, tuple[float, ...]]
    chosen: float | None


def find(
    measure: Callable[[float], tuple[Measured, ...]], how: Search, *, first: tuple[float, ...] = ()
) -> Found:
    """Measures settings, those of ``first`` in any case, until the wanted one is known.

    Bisection on the logarithm of the setting: the next one lies where the monotone fit (pooled
    neighbours, weighted by one over the variance) crosses its limit, kept off the ends of the
    bracket. A setting counts as good where fit and measurement both keep every limit. Of several
    looks the luckiest one is no proof: the setting that is chosen has a stricter one that is good
    too, but where nothing else was measured or its own whole interval keeps every limit.
    """
    figures: dict[float, tuple[Measured, ...]] = {}
    following: float | None = first[0] if first else _within(how.start, how)
    queue, more = list(first[1:]), False
    while following is not None:
        figures[following] = measure(following)
        while queue and queue[0] in figures:
            queue.pop(0)
        if queue:
            following = queue.pop(0)
            continue
        if len(figures) < how.evaluations:
            following = _next(figures, how)
        else:
            following, more = (None if more else _to_confirm(figures, how)), True
        if following in figures:  # nothing new at this precision
            following = None
    fits = _fits(figures, how)
    good = _good(figures, fits, how)
    if _alone(figures, good):
        good = []
    order = sorted(figures)
    return Found(
        {value: figures[value] for value in order},
        {value: fits[value] for value in order},
        good[0] if good else None,
    )


def _ordered(figures: Mapping[float, tuple[Measured, ...]], how: Search) -> list[float]:
    """The settings in the direction in which figures fall."""
    return sorted(figures, reverse=not how.upwards)


def _fits(
    figures: Mapping[float, tuple[Measured, ...]], how: Search
) -> dict[float, tuple[float, ...]]:
    order = _ordered(figures, how)
    count = len(next(iter(figures.values())))
    columns = []
    for k in range(count):
        middles = [figures[value][k][0] for value in order]
        spans = [figures[value][k][2] - figures[value][k][1] for value in order]
        columns.append(falling(middles, [1 / max(span, 1e-2) ** 2 for span in spans]))
    return {value: tuple(column[i] for column in columns) for i, value in enumerate(order)}


def _good(
    figures: Mapping[float, tuple[Measured, ...]],
    fits: Mapping[float, tuple[float, ...]],
    how: Search,
) -> list[float]:
    """Settings that keep all limits, the wanted one first."""
    kept = [
        value
        for value in _ordered(figures, how)
        if all(fit <= 1e-12 for fit in fits[value])
        and all(figure[0] <= 1e-12 for figure in figures[value])
    ]
    return kept


def _next(figures: Mapping[float, tuple[Measured, ...]], how: Search) -> float | None:
    """The setting to measure next, None where nothing is left to learn."""
    fits, order = _fits(figures, how), _ordered(figures, how)
    good = _good(figures, fits, how)
    sign = 1 if how.upwards else -1
    end = (how.least, how.most)[how.upwards]
    beginning = (how.most, how.least)[how.upwards]
    growth = GROWTH ** min(16, max(1, 2 ** (len(figures) - 2)))  # beyond any search's ends
    if not good:
        last = order[-1]
        return None if last == end else _within(last * growth**sign, how)
    bad = [value for value in order if sign * math.log(value) < sign * math.log(good[0])]
    if not bad:
        if good[0] == beginning:
            return _to_confirm(figures, how)
        return _within(good[0] / growth**sign, how)
    a, b = math.log(bad[-1]), math.log(good[0])
    if abs(b - a) <= math.log(how.precision):
        return _to_confirm(figures, how)
    ends = (bad[-1], good[0])
    worst = [max(fits[value]) for value in ends]
    share = crossing((0.0, 1.0), worst, 0.0)
    share = 0.5 if share is None else min(0.75, max(0.25, share))
    return _within(math.exp(a + share * (b - a)), how)


def _alone(figures: Mapping[float, tuple[Measured, ...]], good: list[float]) -> bool:
    """Whether of several settings one is good, which its own interval leaves open."""
    if len(good) != 1 or len(figures) == 1:
        return False
    return any(figure[2] > 1e-12 for figure in figures[good[0]])


def _to_confirm(figures: Mapping[float, tuple[Measured, ...]], how: Search) -> float | None:
    """What to measure where a single setting is good: a stricter one, further where that disagrees.

    At the search's end it is the middle between it and the strictest one that is known to fail.
    """
    good, order = _good(figures, _fits(figures, how), how), _ordered(figures, how)
    if not _alone(figures, good):
        return None
    sign = 1 if how.upwards else -1
    end = (how.least, how.most)[how.upwards]
    if order[-1] != end:
        further = how.precision if good[0] == order[-1] else GROWTH
        return _within(order[-1] * further**sign, how)
    if good[0] == end and len(order) > 1:
        return _within(math.sqrt(order[-2] * end), how)
    return None


def _within(value: float, how: Search) -> float:
    return min(how.most, max(how.least, _rounded(value)))


def _rounded(value: float) -> float:
    """Three digits: what a person would type."""
    return float(f"{value:.3g}")
