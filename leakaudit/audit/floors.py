"""Floors and ceilings beside each score: what blind guesses reach, and what the originals give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.core.types import RATES, Score, is_rate
from leakaudit.maths.emd import relative_epsilon
from leakaudit.models.oracle import IdentityOracle
from leakaudit.models.subject import Subject
from leakaudit.models.verification import Verifier

Table = dict[tuple[str, str, str], Score]
"""Scores by defence, attack and metric."""

ORIGINAL = "original"
DRAWS = 512


class Floors:
    """How often independent faces of the prior name, or match, each attacked person, by judge."""

    def __init__(self, subject: Subject, rng: Rng) -> None:
        self._rates: dict[str, Tensor] = {}
        self._subject = subject
        if subject.prior is None:
            return
        self._images = subject.prior.sample(DRAWS, rng.derive("floor"))
        self._look(subject.oracle, subject.faces.people.cpu(), "")
        for judge in subject.judges:
            self._look(judge, subject.faces.people.cpu(), f"-{judge.short}")

    def _look(self, judge: IdentityOracle, people: Tensor, behind: str) -> None:
        scores = judge.scores(self._images).cpu()
        for metric, top in zip(RATES[:2], (1, 5), strict=True):
            best = scores.topk(min(top, scores.shape[1]), dim=1).indices
            hits = torch.zeros(scores.shape[1]).index_add_(
                0, best.flatten(), torch.ones(best.numel())
            )
            self._rates[metric + behind] = (hits / DRAWS)[people]

    def _matching(self) -> Tensor:
        """How often the same faces match each attacked person; asked where that was measured."""
        subject = self._subject
        verifier = Verifier.of(subject.oracle, subject.comparisons)
        assert verifier.threshold is not None, "the metric had no value"
        cosines = subject.oracle.embed(self._images) @ verifier.references.T
        return (cosines > verifier.threshold).float().mean(0)[subject.faces.people.cpu()]

    def of(self, metric: str, guesses: int) -> float | None:
        """The share of people named by at least one of so many independent prior faces."""
        if not self._rates:
            return None
        if metric not in self._rates:
            self._rates[metric] = self._matching()
        return float((1 - (1 - self._rates[metric]) ** guesses).mean())


def beside(
    score: Score, table: Table, floors: Floors, sizes: Mapping[tuple[str, str, str], int]
) -> Score:
    """The score with its floor, ceiling and excess.

    ``sizes`` says how many blind guesses the floor of a row has, by defence, row and metric.
    """
    if score.attack == ORIGINAL:
        return score
    original = table.get(("none", ORIGINAL, score.metric))
    floor: float | None
    if is_rate(score.metric) and score.value is None:
        floor = None
    elif is_rate(score.metric):
        floor = floors.of(score.metric, sizes.get((score.defence, score.attack, score.metric), 1))
    else:
        blind = table.get((score.defence, "control-prior", score.metric))
        floor = None if blind is None else blind.value
    ceiling = None if original is None else original.value
    above = None
    if is_rate(score.metric) and floor is not None and score.value is not None and floor < 1:
        above = (score.value - floor) / (1 - floor)
    return replace(score, floor=floor, ceiling=ceiling, excess=above)


def relative(score: Score, table: Table) -> Score | None:
    """``epsilon_rel``: 0 where the prior itself lies, 1 where the undefended reconstructions do.

    Undefended ones are those of the same attack, or of the worst one where it wasn't run on them,
    as adaptive attacks aren't. ``None`` for controls, originals, and where undefended ones are no
    farther from the prior than the intervals tell apart.
    """
    floor = table.get(("none", "control-prior", "epsilon_pii"))
    ceiling = table.get(("none", score.attack, "epsilon_pii"))
    ceiling = ceiling or table.get(("none", "worst", "epsilon_pii"))
    if score.attack.startswith("control-") or score.attack == ORIGINAL:
        return None
    if floor is None or ceiling is None or floor.value is None or ceiling.value is None:
        return None
    ends = [(s.low, s.high) for s in (floor, ceiling)]
    unsure = sum((high - low) / 2 for low, high in ends if low is not None and high is not None)
    if ceiling.value - floor.value <= unsure:
        return None
    near, far = floor.value, ceiling.value

    def share(value: float | None) -> float | None:
        return None if value is None else relative_epsilon(value, near, far)

    return replace(
        score,
        metric="epsilon_rel",
        value=share(score.value),
        low=share(score.low),
        high=share(score.high),
        unit="share of the way from the prior to undefended reconstructions",
        floor=0.0,
        ceiling=1.0,
        excess=None,
        per_face=None,
    )


def excess(score: Score) -> Score:
    """``identification_excess``: (value - floor) / (1 - floor), the interval carried along."""
    floor = score.floor

    def above(value: float | None) -> float | None:
        if value is None or floor is None or floor >= 1:
            return None
        return (value - floor) / (1 - floor)

    return replace(
        score,
        metric="identification_excess",
        value=above(score.value),
        low=above(score.low),
        high=above(score.high),
        unit="share of faces above the floor",
        floor=0.0 if floor is not None else None,
        ceiling=above(score.ceiling),
        excess=None,
        per_face=None,
        note=None if floor is not None else "unavailable: no floor without a prior",
    )
