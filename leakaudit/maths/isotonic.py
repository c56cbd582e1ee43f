"""Monotone regression: the falling sequence nearest to noisy measurements."""

from __future__ import annotations

from collections.abc import Sequence


def falling(values: Sequence[float], weights: Sequence[float]) -> tuple[float, ...]:
    """The non-increasing sequence with the least weighted squared distance to ``values``.

    ``weights`` are above 0, such as one over each variance. Neighbours that rise are pooled to
    their weighted mean until none does. Raises ValueError for other lengths or weights. Source:
    pool adjacent violators (Ayer et al. 1955).
    """
    if len(values) != len(weights) or any(not w > 0 for w in weights):
        raise ValueError("each value needs a weight above 0")
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-1][0] > pools[-2][0]:
            (a, u, m), (b, v, n) = pools.pop(), pools.pop()
            pools.append(((a * u + b * v) / (u + v), u + v, m + n))
    return tuple(mean for mean, _, count in pools for _ in range(count))


def crossing(places: Sequence[float], fitted: Sequence[float], level: float) -> float | None:
    """Where a falling piecewise linear curve through the points reaches ``level``.

    ``places`` rise. None where the curve stays on one side of the level.
    """
    for (x0, y0), (x1, y1) in zip(
        zip(places, fitted, strict=True), zip(places[1:], fitted[1:], strict=True), strict=False
    ):
        if y0 > level >= y1:
            return x0 + (x1 - x0) * (y0 - level) / (y0 - y1)
    return None
