"""Utility: what the cloud's task keeps on released features, and the paired drop."""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.core.types import Utility
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.intervals import auc, bootstrap_statistic


def mean_auc(logits: Tensor, truth: Tensor) -> float | None:
    """Mean over attributes of the area under the ROC curve; attributes of one class don't count."""
    values = [_auc_of(logits, truth, k) for k in range(truth.shape[1])]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def accuracy(logits: Tensor, truth: Tensor) -> float | None:
    """Share of known attributes that the sign of the logit (N, A) gets right."""
    known = ~truth.isnan()
    if not bool(known.any()):
        return None
    return float(((logits > 0) == (truth > 0.5))[known].double().mean())


def _auc_of(logits: Tensor, truth: Tensor, column: int) -> float | None:
    known = ~truth[:, column].isnan()
    return auc(logits[known, column], truth[known, column] > 0.5)


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
    Rows: ``auc`` (mean over attributes), ``accuracy`` and ``auc:NAME``. The drop is positive when
    utility was lost; all intervals are bootstrapped over people.
    """
    rows = [
        _row(defence, "auc", mean_auc, logits, baseline, truth, people, rng),
        _row(defence, "accuracy", accuracy, logits, baseline, truth, people, rng),
    ]
    for k, name in enumerate(names):
        columns = slice(k, k + 1)
        rows.append(
            _row(
                defence, f"auc:{name}", mean_auc, logits[:, columns], baseline[:, columns],
                truth[:, columns], people, rng,
            )
        )  # fmt: skip
    return rows


def _row(  # type: ignore[no-untyped-def]
    defence: str, metric: str, measure, logits, baseline, truth, people, rng: Rng
) -> Utility:
    value = measure(logits, truth)
    before = measure(baseline, truth)
    if value is None or before is None:
        note = "unavailable: an attribute needs both classes among the attacked faces"
        return Utility(defence, metric, None, None, None, len(people), None, None, None, note)

    def now(index: Tensor) -> float | None:
        return measure(logits[index], truth[index])

    def lost(index: Tensor) -> float | None:
        a, b = measure(baseline[index], truth[index]), measure(logits[index], truth[index])
        return None if a is None or b is None else a - b

    here = bootstrap_statistic(now, people, rng.derive(metric, "value").torch(), draws=300)
    drop = bootstrap_statistic(lost, people, rng.derive(metric, "drop").torch(), draws=300)
    return Utility(
        defence, metric, here.value, here.low, here.high, len(people),
        drop.value, drop.low, drop.high,
    )  # fmt: skip


def head_outputs(head: torch.nn.Module, features: Tensor, *, batch: int = 128) -> Tensor:
    """Logits (N, A) of the head on features (N, ...), on the CPU."""
    with torch.no_grad():
        return in_chunks(lambda f: head(f).float().cpu(), features, batch)
