"""Intervals around a rate, a mean or any statistic, with people rather than pictures as the unit.

Pictures of one person agree more than pictures of two, so every bootstrap here draws people.
Everything is computed in float64 on the CPU; randomness is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import NormalDist

import torch
from torch import Tensor

from leakaudit.core.errors import RunError
from leakaudit.maths.rates import Interval, bonferroni, tango, wilson

__all__ = [
    "Interval", "auc", "auc_drop_reach", "auc_reach", "aucs", "bonferroni", "bootstrap_counts",
    "bootstrap_mean", "bootstrap_statistic", "paired_difference", "paired_rate_difference",
    "rate_interval", "tango", "wilson",
]  # fmt: skip

_PICKS_AT_ONCE = 4_000_000  # people drawn per block, which bounds the memory of a bootstrap


def bootstrap_mean(
    values: Tensor,
    groups: Tensor,
    generator: torch.Generator,
    *,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The mean of ``values (N,)`` with a percentile interval from a bootstrap over people.

    ``groups (N,)`` holds one integer per picture that says whose it is. A draw takes as many people
    as there are, with replacement, and averages all of their pictures. With fewer than two people
    nothing can be resampled: the interval is then the range of the data. A bootstrap of few people
    is too narrow, by as much as their deviation is underrated and the normal quantile is below
    Student's: its ends are moved away from the mean by that ratio.
    Raises ``ValueError`` without values and ``RunError`` when one isn't finite.

    Source: Davison and Hinkley, Bootstrap Methods (1997), section 3.8 (resampling whole clusters).
    """
    data = _finite(values)
    people, count = _people(groups, data.numel())
    mean = float(data.mean())
    if count < 2:
        return Interval(mean, float(data.min()), float(data.max()), count)
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, people, data)
    sizes = torch.bincount(people, minlength=count).to(torch.float64)
    low, high = _percentiles(_ratios(sums, sizes, generator, draws), confidence)
    wider = _for_few(count, confidence)
    below, above = wider * max(0.0, mean - low), wider * max(0.0, high - mean)
    return Interval(mean, mean - below, mean + above, count)


def rate_interval(
    hits: Tensor,
    groups: Tensor,
    generator: torch.Generator,
    *,
    draws: int = 2000,
    confidence: float = 0.95,
    whole: bool = True,
) -> Interval:
    """The rate of ``hits (N,)`` (bool) over people, with an interval that is never of zero width.

    With one picture per person: Wilson. Otherwise the value is the mean of the per-person rates
    (the share of pictures when everybody has equally many), and the interval reaches over three:
    the bootstrap of those rates over people; Wilson's, were all pictures independent; and a normal
    one over people of whom z²/2 more were hit in all pictures and z²/2 in none. The last keeps the
    ends from falling when hits are rare and the first of them appear, which the others allow, and
    allows for people who are hit in all their pictures or in none. Where groups are nothing of the
    kind (participants of a study, with many answers each), ``whole=False`` leaves the last out, and
    takes Wilson's with one trial a group where all are hit or none. No pictures: 0, in [0, 1].

    Source: Agresti and Coull, Approximate is better than "exact" (The American Statistician 1998),
    with people for trials.
    """
    data = hits.detach().cpu().to(torch.float64)
    if data.numel() == 0:
        return wilson(0, 0, confidence)
    people, count = _people(groups, data.numel())
    sizes = torch.bincount(people, minlength=count).to(torch.float64)
    if count == data.numel():
        return wilson(float(data.sum()), count, confidence)
    rates = torch.zeros(count, dtype=torch.float64).index_add_(0, people, data) / sizes
    rate = float(rates.mean())
    drawn = _percentiles(_ratios(rates, torch.ones_like(rates), generator, draws), confidence)
    narrow = wilson(rate * data.numel(), data.numel(), confidence)
    if whole:
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        wide = _with_more(rates, {0.0: z * z / 2, 1.0: z * z / 2}, z)
    else:
        coins = wilson(rate * count, count, confidence) if rate in (0.0, 1.0) else narrow
        wide = coins.low, coins.high
    low, high = min(drawn[0], narrow.low, wide[0]), max(drawn[1], narrow.high, wide[1])
    return Interval(rate, max(0.0, low), min(1.0, high), count)


def _with_more(values: Tensor, more: dict[float, float], z: float) -> tuple[float, float]:
    """A normal interval of the mean of ``values`` (P,) and ``more``: how many there are of each."""
    count = len(values) + sum(more.values())
    mean = (float(values.sum()) + sum(x * n for x, n in more.items())) / count
    spread = float((values - mean).square().sum())
    spread += sum(n * (x - mean) ** 2 for x, n in more.items())
    half = z * math.sqrt(spread) / count
    return mean - half, mean + half


def paired_difference(
    a: Tensor,
    b: Tensor,
    groups: Tensor,
    generator: torch.Generator,
    *,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The mean of ``a - b`` on the same faces, each ``(N,)``, bootstrapped over people.

    Positive when ``a`` is larger. What both share on a face cancels, so the interval is shorter
    than that of two separate means. Errors as in ``bootstrap_mean``.
    """
    if a.shape != b.shape:
        raise ValueError(f"a and b must pair up, got {tuple(a.shape)} and {tuple(b.shape)}")
    difference = a.detach().cpu().to(torch.float64) - b.detach().cpu().to(torch.float64)
    return bootstrap_mean(difference, groups, generator, draws=draws, confidence=confidence)


def paired_rate_difference(
    a: Tensor,
    b: Tensor,
    groups: Tensor,
    generator: torch.Generator,
    *,
    draws: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The rate of hits ``a`` minus that of ``b`` on the same faces, each ``(N,)`` (bool).

    Positive when ``a`` hits more. The value is the difference of two ``rate_interval`` values: the
    mean over people of their own differences. With one picture per person the interval is Tango's.
    Otherwise it reaches over three: the bootstrap over people; Tango's, were all pictures
    independent; and a normal one over people of whom half of one gained in all pictures more and
    half of one lost. So it is never of zero width, at equal hits neither. No pictures: 0, in
    [-1, 1].

    Source: Agresti and Min, Simple improved confidence intervals for comparing matched proportions
    (Statistics in Medicine 2005), with people for pairs.
    """
    if a.shape != b.shape:
        raise ValueError(f"a and b must pair up, got {tuple(a.shape)} and {tuple(b.shape)}")
    first, second = (x.detach().cpu().to(torch.bool) for x in (a, b))
    pictures = first.numel()
    if pictures == 0:
        return tango(0, 0, 0, confidence)
    people, count = _people(groups, pictures)
    sizes = torch.bincount(people, minlength=count).to(torch.float64)
    gained, lost = (
        torch.zeros(count, dtype=torch.float64).index_add_(0, people, x.to(torch.float64)) / sizes
        for x in (first & ~second, second & ~first)
    )
    units = (float(gained.mean()), float(lost.mean()))
    each = gained - lost
    if count == pictures:
        return tango(units[0] * count, units[1] * count, count, confidence)
    drawn = _percentiles(_ratios(each, torch.ones_like(each), generator, draws), confidence)
    narrow = tango(units[0] * pictures, units[1] * pictures, pictures, confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    wide = _with_more(each, {1.0: 0.5, -1.0: 0.5}, z)
    low, high = min(drawn[0], narrow.low, wide[0]), max(drawn[1], narrow.high, wide[1])
    return Interval(narrow.value, max(-1.0, low), min(1.0, high), count)


def bootstrap_statistic(
    statistic: Callable[[Tensor], float | None],
    groups: Tensor,
    generator: torch.Generator,
    *,
    draws: int = 500,
    confidence: float = 0.95,
) -> Interval:
    """Any statistic of pictures with a percentile interval from a bootstrap over people.

    ``statistic`` receives picture indices ``(M,)`` (int64, CPU; a person drawn twice comes twice)
    and returns a number, or None where it's undefined; undefined draws are left out. With fewer
    than two people the pictures are drawn instead. Raises ``ValueError`` if it's undefined on all
    pictures, ``RunError`` if on all draws.
    """
    value = statistic(torch.arange(groups.numel()))
    if value is None:
        raise ValueError("the statistic is undefined on the whole sample")
    told = (statistic(index) for index in _resamples(groups, generator, draws))
    seen = torch.tensor([drawn for drawn in told if drawn is not None], dtype=torch.float64)
    return _by_draws(value, seen, groups, confidence)


def bootstrap_counts(
    statistic: Callable[[Tensor], Tensor],
    groups: Tensor,
    generator: torch.Generator,
    *,
    draws: int = 500,
    confidence: float = 0.95,
) -> Interval:
    """What `bootstrap_statistic` gives, for a statistic that tells many draws at once.

    ``statistic`` receives how often each picture comes in each draw ``(D, N)`` (float64, CPU) and
    returns ``(D,)``, NaN where it's undefined. Errors as there.
    """
    pictures = groups.numel()
    value = float(statistic(torch.ones(1, pictures, dtype=torch.float64)))
    if math.isnan(value):
        raise ValueError("the statistic is undefined on the whole sample")
    counts = (
        torch.bincount(index, minlength=pictures).to(torch.float64)
        for index in _resamples(groups, generator, draws)
    )
    block = max(1, _PICKS_AT_ONCE // pictures)
    blocks = iter(lambda: list(islice(counts, block)), [])
    told = torch.cat([statistic(torch.stack(part)) for part in blocks])
    return _by_draws(value, told[~told.isnan()], groups, confidence)


def _resamples(groups: Tensor, generator: torch.Generator, draws: int) -> Iterator[Tensor]:
    """Indices (M,) of ``draws`` samples of people, or of pictures where there is one person."""
    people, count = _people(groups, groups.numel())
    units = people if count > 1 else torch.arange(people.numel())
    order = torch.argsort(units, stable=True)
    sizes = torch.bincount(units)
    starts = sizes.cumsum(0) - sizes
    for _ in range(draws):
        picks = _draw(sizes.numel(), (sizes.numel(),), generator)
        yield order[_runs(starts[picks], sizes[picks])]


def _by_draws(value: float, seen: Tensor, groups: Tensor, confidence: float) -> Interval:
    if not seen.numel():
        raise RunError("The statistic is undefined on every bootstrap draw")
    low, high = _percentiles(seen, confidence)
    return Interval(value, low, high, _people(groups, groups.numel())[1])


def auc(scores: Tensor, labels: Tensor) -> float | None:
    """The area under the ROC curve of ``scores (N,)`` for ``labels (N,)`` (bool), in [0, 1].

    It's the chance that a positive scores above a negative, ties counting one half, computed by
    ranks (Mann-Whitney). None when either class is empty. Raises ``RunError`` on a NaN score.
    """
    area = float(aucs(scores, labels, torch.ones(1, scores.numel(), dtype=torch.float64)))
    return None if math.isnan(area) else area


def aucs(scores: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """`auc` of samples in which picture i comes ``counts[d, i]`` times: (D, N) to (D,), float64.

    NaN for a sample in which either class is empty.
    """
    values = scores.detach().cpu().to(torch.float64)
    positive = labels.detach().cpu().to(torch.float64)
    if bool(values.isnan().any()):
        raise RunError("A score is not a number, so no ranking exists")
    levels, level = torch.unique(values, return_inverse=True)
    hits, misses = (
        torch.zeros(len(counts), len(levels), dtype=torch.float64).index_add_(1, level, counts * of)
        for of in (positive, 1 - positive)
    )
    above = hits * (misses.cumsum(1) - misses / 2)  # a tie counts one half; all numbers are exact
    return above.sum(1) / (hits.sum(1) * misses.sum(1))


def auc_reach(
    scores: Tensor, labels: Tensor, groups: Tensor, confidence: float = 0.95
) -> tuple[float, float]:
    """How far below and above an `auc` of (N,) pictures its true value may lie; never 0 to both.

    Normal, with the variance that exponential scores would have, people of either class for
    pictures, at an area as though a quarter of a person of the rarer class stood on the wrong side:
    a bootstrap of classes that happen to be apart knows of no error at all. Both are NaN where a
    class is empty.

    Source: Hanley and McNeil, The meaning and use of the area under a receiver operating
    characteristic curve (Radiology 1982).
    """
    labels = labels.detach().cpu().bool()
    area = auc(scores, labels)
    if area is None:
        return math.nan, math.nan
    half = _auc_half(area, labels, groups, confidence)
    return min(area, half), min(1 - area, half)


def auc_drop_reach(
    before: Tensor, after: Tensor, labels: Tensor, groups: Tensor, confidence: float = 0.95
) -> tuple[float, float]:
    """How far below and above the drop of an `auc` from ``before`` to ``after`` the true may lie.

    The `auc_reach` of both sides, each (N,), by the square-and-add rule, with their correlation as
    the same pictures show it; none where either has no error. NaN where a class is empty.

    Source: Zou, Toward using confidence intervals to compare correlations (Psychological Methods
    2007), for the rule; DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more
    correlated receiver operating characteristic curves (Biometrics 1988), for the correlation.
    """
    labels = labels.detach().cpu().bool()
    below, above = zip(
        *(auc_reach(x, labels, groups, confidence) for x in (before, after)), strict=True
    )
    if math.isnan(below[0]):
        return math.nan, math.nan
    r = _auc_correlation(before, after, labels)

    def apart(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x + y * y - 2 * r * x * y))

    return apart(below[0], above[1]), apart(above[0], below[1])


_ASTRAY = 0.25
"""Of a person of the rarer class, how much is taken to stand on the wrong side of an AUC."""


def _auc_half(area: float, labels: Tensor, groups: Tensor, confidence: float) -> float:
    groups = groups.detach().cpu()
    m, n = (len(groups[of].unique()) for of in (labels, ~labels))
    a = max(area, 1 - area)
    a -= (2 * a - 1) * _ASTRAY / min(m, n)
    more = (m - 1) * (a / (2 - a) - a * a) + (n - 1) * (2 * a * a / (1 + a) - a * a)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return z * math.sqrt(max(0.0, a * (1 - a) + more) / (m * n))


def _auc_correlation(before: Tensor, after: Tensor, labels: Tensor) -> float:
    """The correlation, from 0 to 1, of two areas on the same pictures."""
    parts = [_placements(x, labels) for x in (before, after)]
    (v0, v1), joint = ([_placed(p, p) for p in parts]), _placed(*parts)
    return min(1.0, max(0.0, joint / math.sqrt(v0 * v1))) if v0 * v1 > 0 else 0.0


def _placements(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of each positive the share of negatives below it, of each negative of positives above it."""
    values = scores.detach().cpu().to(torch.float64)
    hits, misses = (values[of].sort().values for of in (labels, ~labels))

    def below(x: Tensor, them: Tensor) -> Tensor:
        first, last = (torch.searchsorted(them, x, right=right) for right in (False, True))
        return (first + last).to(torch.float64) / (2 * len(them))

    return below(values[labels], misses), 1 - below(values[~labels], hits)


def _placed(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """The covariance of two areas by their placements."""
    return sum(
        float(((a - a.mean()) * (b - b.mean())).sum()) / (max(1, len(a) - 1) * len(a))
        for a, b in zip(one, other, strict=True)
    )


def _finite(values: Tensor) -> Tensor:
    data = values.detach().cpu().to(torch.float64)
    if data.numel() == 0:
        raise ValueError("no values to average")
    if not bool(data.isfinite().all()):
        raise RunError("A value to average isn't finite")
    return data


def _people(groups: Tensor, n: int) -> tuple[Tensor, int]:
    """Consecutive person indices ``(N,)`` and the number of people."""
    if groups.shape != (n,):
        raise ValueError(f"one person per picture is needed, got {tuple(groups.shape)} for {n}")
    names, people = torch.unique(groups.detach().cpu(), return_inverse=True)
    return people, names.numel()


def _draw(high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(high, shape, generator=generator, device=generator.device).cpu()


def _ratios(sums: Tensor, sizes: Tensor, generator: torch.Generator, draws: int) -> Tensor:
    """Sum over size of ``draws`` samples of all units with replacement, in bounded memory."""
    count = sums.numel()
    block = max(1, _PICKS_AT_ONCE // count)
    ratios = []
    for start in range(0, draws, block):
        picks = _draw(count, (min(block, draws - start), count), generator)
        ratios.append(sums[picks].sum(1) / sizes[picks].sum(1))
    return torch.cat(ratios)


def _runs(starts: Tensor, sizes: Tensor) -> Tensor:
    """The concatenation of ``range(start, start + size)`` over all pairs."""
    shift = starts - (sizes.cumsum(0) - sizes)
    return torch.arange(int(sizes.sum())) + torch.repeat_interleave(shift, sizes)


def _for_few(count: int, confidence: float) -> float:
    """How much longer an interval on ``count`` people is than the bootstrap's, from 1."""
    from scipy.special import stdtrit  # here, as it takes a third of a second

    tail = 0.5 + confidence / 2
    student = float(stdtrit(count - 1, tail)) / NormalDist().inv_cdf(tail)
    return student * math.sqrt(count / (count - 1))


def _percentiles(samples: Tensor, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = samples.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
