"""crafter-z: move the latent, not the feature, and release what the prior makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Defence, Deployed, Workshop
from leakaudit.defences.crafting import prior_of
from leakaudit.defences.latent_crafting import LatentAtWork, passes_of
from leakaudit.models.best_response import LatentSearch


@final
@dataclass(frozen=True)
class CrafterZ(Defence):
    """``Enc(G(z*))``, z* = argmin_z ``beta L_privacy(G(z)) + |Enc(G(z)) - Enc(x)|² / s``.

    Losses, units, partners, key and replay are those of ``crafter``; larger ``beta`` means more
    privacy. What the prior can't express of a feature is gone, and with it utility and leakage.
    ``steps`` of Gauss-Newton from the best inversion of ``Enc(x)``, each by ``solve_steps`` of
    conjugate gradient on the curvature of both losses, with a face's own ``damping``, which grows
    where a step failed and falls where it didn't. A face stops when three steps in a row gained it
    less than ``tolerance`` of its objective; the best iterate counts.
    Source: Crafter (NDSS 2024), Appendix F; Gauss-Newton (their descent of z by a fixed rate, on
    which their trade-off hung) and the image coupling are ours.
    """

    name: ClassVar[str] = "crafter-z"
    source: ClassVar[str] = "Crafter, NDSS 2024, Appendix F"
    knob: ClassVar[str] = "beta"
    uses_prior: ClassVar[bool] = True

    beta: float = 12.0
    plan_size: int = 1
    steps: int = 12
    solve_steps: int = 4
    damping: float = 0.03
    pool: int = 4
    unshade: bool = True
    samples: int = 1000
    search: LatentSearch = field(default_factory=lambda: LatentSearch(steps=60))
    batch: int = 16
    replay: bool = True
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        at_least(self.name, 0, beta=self.beta, steps=self.steps, tolerance=self.tolerance)
        at_least(self.name, 1, plan_size=self.plan_size, pool=self.pool, batch=self.batch)
        at_least(self.name, 1, solve_steps=self.solve_steps)
        at_least(self.name, 8, samples=self.samples)
        above_zero(self.name, damping=self.damping)

    def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
        """Fits the amortised start and stores the inversions of a few public faces."""
        prior = prior_of(workshop, self.name)
        return LatentAtWork(self, workshop.encoder, prior, workshop.public, rng, key=workshop.key)

    def passes_ahead(self, faces: int) -> int:
        """Amortiser, first inversions, and the products with both Jacobians."""
        return passes_of(self, faces)

    def cost_ahead(self, faces: int) -> Cost:
        """Every pass through the encoder goes through the prior too."""
        passes = self.passes_ahead(faces)
        return Cost(encodes=passes, generates=passes, solves=(self.samples,))

    def aim(self, features: Tensor, inverted: Tensor) -> Tensor:
        """What ``Enc(G(z))`` shall stay near: the feature itself."""
        return features

    def release(self, made: Tensor, features: Tensor, inverted: Tensor) -> Tensor:
        """``Enc(G(z))``."""
        return made
