"""Results that no scan would give: seeded, in every mix of gates, weights, doubts and names."""

from __future__ import annotations

import random
from dataclasses import replace

from leakaudit.audit.gates import conclude
from leakaudit.core.types import Doubt, GateResult, Result, Suppression
from report.sample import DEFENCES, HOSTILE, sample_result

NAMES = (*DEFENCES, *HOSTILE)
BASE = sample_result("ungated", gallery="none")


def random_result(seed: int) -> Result:
    """A result whose verdict the one function has given; up to six gates, up to three doubts."""
    rng = random.Random(seed)
    gates = tuple(_gate(rng, place) for place in range(rng.choice((0, 1, 1, 2, 3, 6))))
    doubts = tuple(_doubt(rng, place) for place in range(rng.randrange(4)))
    return replace(BASE, gates=gates, doubts=doubts, verdict=conclude(gates, BASE.scores))


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
