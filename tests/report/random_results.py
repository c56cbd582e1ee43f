"""Results that no scan would give: seeded, in every mix of gates, weights, doubts and names."""

from __future__ import annotations

import random
from dataclasses import replace

from leakaudit.audit.gates import conclude
from leakaudit.core.types import Doubt, GateResult, Result, Score, Suppression, Utility
from report.sample import DEFENCES, HOSTILE, sample_result

NAMES = (*DEFENCES, *HOSTILE)
BASE = sample_result("ungated", gallery="none")


def random_result(seed: int) -> Result:
    """A result whose verdict the one function has given; up to six gates, up to three doubts."""
    rng = random.Random(seed)
    gates = tuple(_gate(rng, place) for place in range(rng.choice((0, 1, 1, 2, 3, 6))))
    doubts = tuple(_doubt(rng, place) for place in range(rng.randrange(4)))
    scores = tuple(_score(rng, score) for score in BASE.scores if rng.random() < 0.8)
    utility = tuple(_drop(rng, row) for row in BASE.utility if rng.random() < 0.8)
    return replace(
        BASE,
        gates=gates,
        doubts=doubts,
        scores=scores,
        utility=utility,
        comparisons=BASE.comparisons if rng.random() < 0.5 else (),
        verdict=conclude(gates, scores),
    )


def _score(rng: random.Random, score: Score) -> Score:
    """The row with other numbers, without some of them, or with none."""
    kind = rng.randrange(6)
    if kind == 0:
        why = rng.choice(("nothing to measure", *HOSTILE))
        return replace(score, value=None, low=None, high=None, per_face=None, note=why)
    if kind == 1:
        return replace(score, floor=None, ceiling=None, per_face=None)
    low, value, high = sorted(rng.uniform(-0.5, 1.5) for _ in range(3))
    return replace(score, value=value, low=low, high=high)


def _drop(rng: random.Random, row: Utility) -> Utility:
    if rng.random() < 0.3:
        return replace(row, drop=None, drop_low=None, drop_high=None)
    low, drop, high = sorted(rng.uniform(-0.2, 0.9) for _ in range(3))
    return replace(row, drop=drop, drop_low=low, drop_high=high)


def _gate(rng: random.Random, place: int) -> GateResult:
    status = rng.choice(("pass", "pass", "fail", "inconclusive"))
    value = None if status == "inconclusive" and rng.random() < 0.5 else rng.random()
    known = Suppression(rng.choice(NAMES), "team", "2030-01-01", rng.random() < 0.5)
    return GateResult(
        f"identification>{rng.random():.2f}",
        value,
        value,
        rng.random(),
        status,
        rng.choice(("it is what it is", *HOSTILE)),
        rng.choice((None, *NAMES)),
        "worst",
        "identification",
        id=rng.choice((None, f"gate-{place}")),
        severity=rng.choice(("fail", "fail", "warn")),
        suppressed=rng.choice((None, None, known)),
        file=rng.choice((None, "ci/policy.toml")),
        line=rng.choice((None, 3 + place)),
    )


def _doubt(rng: random.Random, place: int) -> Doubt:
    return Doubt(
        rng.choice((f"doubt-{place}", *HOSTILE)),
        rng.choice(("serious", "note")),
        rng.choice(NAMES),
        "why",
        "what to do",
    )
