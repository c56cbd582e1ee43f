"""Utility: what the cloud's task keeps on released features, and the paired drop."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.core.types import Utility
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.intervals import aucs, bootstrap_counts


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
    which an attribute of the row is known. The drop is positive when utility was lost; all
    intervals are bootstrapped over people.
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
    return Utility(
        defence, metric, here.value, here.low, here.high, faces,
        drop.value, drop.low, drop.high,
    )  # fmt: skip


def head_outputs(head: torch.nn.Module, features: Tensor, *, batch: int = 128) -> Tensor:
    """Logits (N, A) of the head on features (N, ...), on the CPU."""
    with torch.no_grad():
        return in_chunks(lambda f: head(f).float().cpu(), features, batch)
