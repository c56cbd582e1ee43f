"""Intervals of rates by counts alone: plain numbers, no tensors, so that a gate needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import final


@final
@dataclass(frozen=True)
class Interval:
    """A value with the interval around it and the number of independent units that it rests on.

    ``low <= value <= high`` holds for rates and for means (a bootstrapped statistic may be biased
    and lie outside). ``n`` counts pictures where pictures are independent, otherwise people.
    """

    value: float
    low: float
    high: float
    n: int


def wilson(hits: float, n: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a rate: ``hits`` of ``n`` independent trials.

    ``hits`` may be fractional (a mean rate times ``n``). At 0 hits ``low`` is exactly 0, at ``n``
    hits ``high`` is exactly 1. Nothing is known of ``n = 0``: value 0, interval [0, 1].
    Raises ``ValueError`` unless ``0 <= hits <= n``.

    Source: Wilson, Probable inference (JASA 1927).
    """
    if not 0 <= hits <= n:
        raise ValueError(f"hits must lie in [0, n], got {hits} of {n}")
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == n else min(1.0, centre + half)
    return Interval(p, low, high, n)


def bonferroni(comparisons: int, confidence: float = 0.95) -> float:
    """The confidence that each of so many intervals needs for all to hold at ``confidence``.

    ``1 - (1 - confidence) / comparisons``; one comparison, or none, changes nothing.

    Source: Dunn, Multiple comparisons among means (JASA 1961).
    """
    return 1 - (1 - confidence) / max(1, comparisons)


def tango(gained: float, lost: float, n: int, confidence: float = 0.95) -> Interval:
    """The score interval of a difference of two rates on the same ``n`` trials, in [-1, 1].

    ``gained`` trials are hits of the first alone, ``lost`` ones of the second alone; both may be
    fractional (a mean rate times ``n``). The value is ``(gained - lost) / n``. Never of zero width:
    without a discordant trial the ends are ``z² / (n + z²)`` away. Nothing is known of ``n = 0``.
    Raises ``ValueError`` for impossible counts.

    Source: Tango, Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design (Statistics in Medicine 1998).
    """
    if not (gained >= 0 and lost >= 0 and gained + lost <= n * (1 + 1e-9)):
        raise ValueError(f"discordant trials must lie in [0, n], got {gained} and {lost} of {n}")
    if n == 0:
        return Interval(0.0, -1.0, 1.0, 0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    value = (gained - lost) / n
    low = _score_end(lost, gained, n, z)
    return Interval(value, -low, _score_end(gained, lost, n, z), n)


def _score_end(b: float, c: float, n: int, z: float) -> float:
    """The upper end: the difference d at which ``b - c`` of n lies z deviations too low."""
    low, high = (b - c) / n, 1.0
    for _ in range(60):
        d = (low + high) / 2
        B = (2 * n - b + c) * d - b - c
        q = (math.sqrt(max(0.0, B * B + 8 * n * c * d * (1 - d))) - B) / (4 * n)
        too_far = n * d - b + c > z * math.sqrt(max(0.0, n * (2 * q + d * (1 - d))))
        low, high = (low, d) if too_far else (d, high)
    return high
