"""gaussian: independent noise on the feature, the baseline that says little about identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from leakaudit.core.checks import at_least
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Defence, Deployed, Released, Workshop
from leakaudit.defences.identity import encode


@final
@dataclass(frozen=True)
class GaussianNoise(Defence):
    """Adds normal noise of ``sigma`` times the deviation of public features, fresh each release.

    ``sigma`` is without unit, from 0. One deviation for the whole feature is used, so that quiet
    elements are drowned first. Source: the "Random" baseline of AdvFace (CVPR 2023).
    """

    name: ClassVar[str] = "gaussian"
    source: ClassVar[str] = "AdvFace, CVPR 2023, baseline"
    knob: ClassVar[str] = "sigma"

    sigma: float = 0.5

    def __post_init__(self) -> None:
        at_least("gaussian", 0, sigma=self.sigma)

    def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
        """Measures the deviation of public features."""
        deviation = float(encode(workshop.encoder, workshop.public[:512]).std())
        return _Noisy(workshop.encoder, self.sigma * deviation)


@final
class _Noisy(Deployed):
    def __init__(self, encoder: nn.Module, scale: float) -> None:
        self.encoder, self._scale = encoder, scale

    def release(self, images: Tensor, rng: Rng) -> Released:
        """``Enc(x)`` plus noise, (N, ...)."""
        features = encode(self.encoder, images)
        noise = rng.normal(*features.shape).to(features)
        return Released(features + self._scale * noise, passes=len(images))
