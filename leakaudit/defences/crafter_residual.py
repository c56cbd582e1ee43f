"""crafter-residual: move the latent, and keep what the prior can't express of the feature."""

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
class CrafterResidual(Defence):
    """``Enc(x) + Enc(G(z*)) - Enc(G(z0))`` with z0 the best inversion of ``Enc(x)``.

    z* minimises ``beta L_privacy(G(z)) + |Enc(G(z)) - Enc(G(z0))|² / s``, so no implicit
    differentiation is needed. In a world of matrices that is Crafter's optimum; elsewhere the best
    inversion of the release is only near z*. ``keep`` scales what the prior can't express,
    ``Enc(x) - Enc(G(z0))``: 1 keeps all of it, 0 releases ``Enc(G(z*))``. That part wasn't crafted
    and may tell who it is: audit it with adaptive attacks. The other settings are those of
    ``crafter-z``; larger ``beta`` means more privacy.
    Source: ours, after Crafter (NDSS 2024), Eq. 8 and Appendix F.
    """

    name: ClassVar[str] = "crafter-residual"
    source: ClassVar[str] = "Crafter, NDSS 2024, Eq. 8 and Appendix F; the residual is ours"
    knob: ClassVar[str] = "beta"
    uses_prior: ClassVar[bool] = True

    beta: float = 12.0
    keep: float = 1.0
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
        at_least(self.name, 0, keep=self.keep)
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
        """What ``Enc(G(z))`` shall stay near: ``Enc(G(z0))``."""
        return inverted

    def release(self, made: Tensor, features: Tensor, inverted: Tensor) -> Tensor:
        """``Enc(G(z))`` and ``keep`` of what the prior can't express."""
        return made + self.keep * (features - inverted)
