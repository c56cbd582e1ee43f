"""Utility: what the cloud's task keeps on released features, and the paired drop."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.core.types import Utility
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.intervals import (
    auc_drop_reach,
    auc_reach,
    aucs,
    bootstrap_counts,
    paired_rate_difference,
    rate_interval,
)


def mean_auc(logits: Tensor, truth: Tensor) -> float | None:
    """Mean over attributes of the area under the ROC curve; attributes of one class don't count."""
    return _once(_aucs, logits, truth)


def accuracy(logits: Tensor, truth: Tensor) -> float | None:
    """Share of known attributes that the sign of the logit (N, A) gets right."""
    return _once(_accuracies, logits, truth)


Measure = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits and truth (N, A), and how often each face comes in each draw (D, N), to (D,)."""


def _once(measure: Measure, logits: Tensor, truth: Tensor) -> float | None:
    value = float(measure(logits, truth, torch.ones(1, len(truth), dtype=torch.float64)))
    return None if math.isnan(value) else value


def _aucs(logits: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    total, defined = torch.zeros(2, len(counts), dtype=torch.float64)
    for k in range(truth.shape[1]):
        known = ~truth[:, k].isnan()
        area = aucs(logits[known, k], truth[known, k] > 0.5, counts[:, known])
        total += area.nan_to_num(0.0)
        defined += ~area.isnan()
    return total / defined


def _accuracies(logits: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    known = ~truth.isnan()
    right = ((logits > 0) == (truth > 0.5)) & known
    hits, asked = (counts @ x.sum(1).double() for x in (right, known))
    return hits / asked


def utility_rows(
    defence: str,
    logits: Tensor,
    baseline: Tensor,
    truth: Tensor,
    people: Tensor,
    names: tuple[str, ...],
    rng: Rng,
) -> list[Utility]:
    """Utility of a defence and its drop against undefended logits on the same faces.

    ``logits``, ``baseline`` and ``truth`` are (N, A), ``people`` (N,); unknown attributes are NaN.
    Rows: ``auc`` (mean over attributes), ``accuracy`` and ``auc:NAME``; ``n`` counts the faces of
    which an attribute of the row is known. The drop is positive when utility was lost. Intervals
    are bootstrapped over people, and reach as far as a few errors that the sample happens to lack
    would take them: of an AUC by `auc_reach` and `auc_drop_reach`, attributes taken as independent
    there, of an accuracy by `rate_interval` and `paired_rate_difference`. The same logits lose
    nothing, with an interval of no width.
    """
    rows = [
        _row(defence, "auc", _aucs, logits, baseline, truth, people, rng),
        _row(defence, "accuracy", _accuracies, logits, baseline, truth, people, rng),
    ]
    for k, name in enumerate(names):
        columns = slice(k, k + 1)
        rows.append(
            _row(
                defence, f"auc:{name}", _aucs, logits[:, columns], baseline[:, columns],
                truth[:, columns], people, rng,
            )
        )  # fmt: skip
    return rows


def _row(
    defence: str, metric: str, measure: Measure, logits: Tensor, baseline: Tensor, truth: Tensor,
    people: Tensor, rng: Rng,
) -> Utility:  # fmt: skip
    faces = int((~truth.isnan()).any(1).sum())
    if None in (_once(measure, logits, truth), _once(measure, baseline, truth)):
        note = "unavailable: an attribute needs both classes among the attacked faces"
        return Utility(defence, metric, None, None, None, faces, None, None, None, note)

    def now(counts: Tensor) -> Tensor:
        return measure(logits, truth, counts)

    def lost(counts: Tensor) -> Tensor:
        return measure(baseline, truth, counts) - now(counts)

    here = bootstrap_counts(now, people, rng.derive(metric, "value").torch(), draws=300)
    drop = bootstrap_counts(lost, people, rng.derive(metric, "drop").torch(), draws=300)
    if measure is _accuracies:
        ends = _accuracy_ends(logits, baseline, truth, people, rng.derive(metric, "ends"))
    else:
        ends = _auc_ends(here.value, drop.value, logits, baseline, truth, people)
    (least, most), (least_drop, most_drop) = ends
    if torch.equal(logits, baseline):  # by nature, and not by the faces that were drawn
        least_drop = most_drop = 0.0
    return Utility(
        defence, metric, here.value, min(here.low, least), max(here.high, most), faces,
        drop.value, min(drop.low, least_drop), max(drop.high, most_drop),
    )  # fmt: skip


Ends = tuple[tuple[float, float], tuple[float, float]]
"""Low and high of a value, and of its drop."""


def _auc_ends(
    value: float, drop: float, logits: Tensor, baseline: Tensor, truth: Tensor, people: Tensor
) -> Ends:
    """The mean's reach: that of an attribute over their number, squares added."""
    here, lost = [], []
    for k in range(truth.shape[1]):
        known = ~truth[:, k].isnan()
        labels, whose = truth[known, k] > 0.5, people[known.cpu()]
        if labels.all() or not labels.any():
            continue
        now, before = logits[known, k], baseline[known, k]
        here.append(auc_reach(now, labels, whose))
        lost.append(auc_drop_reach(before, now, labels, whose))

    def around(centre: float, reach: list[tuple[float, float]]) -> tuple[float, float]:
        below, above = (math.hypot(*side) / len(reach) for side in zip(*reach, strict=True))
        return centre - below, centre + above

    return around(value, here), around(drop, lost)


def _accuracy_ends(
    logits: Tensor, baseline: Tensor, truth: Tensor, people: Tensor, rng: Rng
) -> Ends:
    """Of rates with a person's known attributes for pictures."""
    known = ~truth.isnan()
    now, before = (((x > 0) == (truth > 0.5))[known] for x in (logits, baseline))
    whose = people.cpu()[:, None].expand(truth.shape)[known.cpu()]
    rate = rate_interval(now, whose, rng.derive("value").torch())
    lost = paired_rate_difference(before, now, whose, rng.derive("drop").torch())
    return (rate.low, rate.high), (lost.low, lost.high)


def head_outputs(head: torch.nn.Module, features: Tensor, *, batch: int = 128) -> Tensor:
    """Logits (N, A) of the head on features (N, ...), on the CPU."""
    with torch.no_grad():
        # A copy, as a network's rest may begin with a step that works in place.
        return in_chunks(lambda f: head(f.clone()).float().cpu(), features, batch)
