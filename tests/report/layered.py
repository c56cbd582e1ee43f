"""A result of three layers that look as a scan would find them: the deeper, the less leaks."""

from __future__ import annotations

from dataclasses import replace

from leakaudit.audit.by_layer import joined
from leakaudit.audit.gates import judge
from leakaudit.core.types import GateResult, Result, Score
from report.sample import N, sample_result, wilson

PLACES = (("layer1", 0.26, (64, 16, 16)), ("layer2", 0.51, (128, 8, 8)),
          ("layer3", 0.75, (256, 4, 4)))  # fmt: skip
SHARES = (1.0, 0.7, 0.25)


def layered_result(
    *exprs: str,
    names: tuple[str, ...] = tuple(name for name, _, _ in PLACES),
    shares: tuple[float, ...] = SHARES,
    order: tuple[int, ...] = (0, 1, 2),
    depths: bool = True,
) -> Result:
    """Layers of which ``shares`` of what the first one leaks is named, gated by ``exprs``."""
    return joined([_at(k, names[k], shares[k], exprs, depths=depths) for k in order])


def _at(k: int, name: str, share: float, exprs: tuple[str, ...], *, depths: bool) -> Result:
    base = sample_result("ungated", gallery="full" if k == 0 else "none")
    scores = tuple(_scaled(score, share) for score in base.scores)
    _, depth, shape = PLACES[k]
    size = {"depth": depth, "megabytes": 4e-6 * shape[0] * shape[1] * shape[2]} if depths else {}
    subject = {**base.subject, "layer": name, "feature_shape": list(shape), **size}
    gates: tuple[GateResult, ...] = judge(
        exprs, scores, base.utility, (), list(base.plan["defences"])
    )
    return replace(base, subject=subject, scores=scores, gates=gates)


def _scaled(score: Score, share: float) -> Score:
    apart = score.attack == "original" or score.attack.startswith("control-")
    if score.metric != "identification" or score.value is None or apart:
        return score
    value = round(score.value * share * N) / N
    low, high = wilson(value)
    return replace(score, value=value, low=low, high=high)
