"""epsilon-PII: how far reconstructions, as a crowd, are from the prior's faces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.core.types import LeakGrows, Score
from leakaudit.maths.emd import emd
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
        between = [_epsilon(samples[k], samples[(k + 1) % DRAWS]) for k in range(0, DRAWS, 2)]
        return EpsilonPii(samples, sum(between) / len(between))

    def __call__(self, evidence: Evidence) -> Score:
        """Mean over the draws of the prior."""
        if evidence.reconstructions is None:
            return self.unavailable(evidence, NO_PICTURE)
        made = evidence.reconstructions.detach().cpu()
        values = torch.tensor([_epsilon(made, sample) for sample in self.samples])
        spread = float(values.var())
        half = len(made) // 2
        if half >= 2:
            generator = evidence.rng.derive(self.name).torch()
            picks = [torch.randperm(len(made), generator=generator)[:half] for _ in range(DRAWS)]
            halves = [
                _epsilon(made[pick], sample[:half])
                for pick, sample in zip(picks, self.samples, strict=True)
            ]
            spread += float(torch.tensor(halves).var()) * half / len(made)
        value = float(values.mean())
        reach = 1.96 * math.sqrt(spread)
        return self.score(
            evidence, Interval(value, max(0.0, value - reach), value + reach, len(made))
        )


def _epsilon(a: Tensor, b: Tensor) -> float:
    """EMD a pixel between equally many pictures (N, 3, H, W)."""
    pixels = a.shape[-1] * a.shape[-2]
    return float(emd(a.flatten(1).double(), b.flatten(1).double())) / pixels
