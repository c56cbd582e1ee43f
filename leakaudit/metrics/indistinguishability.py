"""epsilon-PII: how far reconstructions, as a crowd, are from the prior's faces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.core.types import LeakGrows, Score
from leakaudit.maths.emd import distance_table, transport_plan
from leakaudit.maths.intervals import Interval
from leakaudit.metrics.base import NO_PICTURE, Evidence, Metric
from leakaudit.models.prior import Prior

DRAWS = 20


@final
@dataclass(frozen=True, eq=False)
class EpsilonPii(Metric):
    """Earth mover's distance between the reconstructions and as many fresh faces of the prior.

    Exact POT, Euclidean ground cost over pixels, divided by height x width; the leak grows upwards.
    It speaks of the crowd: closeness in distribution is not privacy of identity. The interval
    joins the spread over 20 draws of the prior and that of subsampling half the faces without
    replacement, scaled to the full number. Source: Crafter (NDSS 2024), perceptual inversion
    indistinguishability.
    """

    name: ClassVar[str] = "epsilon_pii"
    unit: ClassVar[str] = "distance per pixel"
    leak_grows: ClassVar[LeakGrows] = "up"
    source: ClassVar[str] = "Crafter, NDSS 2024, epsilon-PII"

    samples: tuple[Tensor, ...]
    floor: float

    @staticmethod
    def against(prior: Prior, faces: int, rng: Rng) -> EpsilonPii:
        """The metric for ``faces`` faces, with its draws and its floor (prior against prior)."""
        samples = tuple(prior.sample(faces, rng.derive(k)).cpu() for k in range(DRAWS))
        pairs = [(samples[k], samples[(k + 1) % DRAWS]) for k in range(0, DRAWS, 2)]
        between = [_moved(_costs(*pair)) for pair in pairs]
        return EpsilonPii(samples, sum(between) / len(between))

    def __call__(self, evidence: Evidence) -> Score:
        """Mean over the draws of the prior."""
        if evidence.reconstructions is None:
            return self.unavailable(evidence, NO_PICTURE)
        made = evidence.reconstructions.detach().cpu()
        costs = [_costs(made, sample) for sample in self.samples]
        values = torch.tensor([_moved(cost) for cost in costs])
        spread = float(values.var())
        half = len(made) // 2
        if half >= 2:
            generator = evidence.rng.derive(self.name).torch()
            picks = [torch.randperm(len(made), generator=generator)[:half] for _ in range(DRAWS)]
            halves = [_moved(c[pick, :half]) for pick, c in zip(picks, costs, strict=True)]
            spread += float(torch.tensor(halves).var()) * half / len(made)
        value = float(values.mean())
        reach = 1.96 * math.sqrt(spread)
        return self.score(
            evidence, Interval(value, max(0.0, value - reach), value + reach, len(made))
        )


def _costs(a: Tensor, b: Tensor) -> Tensor:
    """Distances a pixel (N, M) between pictures (N, 3, H, W) and (M, 3, H, W)."""
    return distance_table(a.flatten(1), b.flatten(1)) / (a.shape[-1] * a.shape[-2])


def _moved(cost: Tensor) -> float:
    """The least mean cost of moving one side to the other."""
    return float((transport_plan(cost) * cost).sum())
