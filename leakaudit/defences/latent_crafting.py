"""Crafting by the latent: Gauss-Newton on both losses, with a damping of each face's own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Defence, Deployed, Released, Workshop
from leakaudit.defences.crafted import Crafted, released
from leakaudit.defences.crafting import Measures, curvature_ahead, key_of
from leakaudit.defences.exchange import exchange_ahead, worth_of
from leakaudit.defences.leading import inverted, lead
from leakaudit.maths.chunks import bounded
from leakaudit.maths.inverse_hvp import ConjugateGradient
from leakaudit.models.best_response import LatentSearch


@dataclass(frozen=True)
class LatentCrafting(Defence):
    """The settings of a defence that moves latents, and what it makes of the one it found.

    ``steps`` of Gauss-Newton from the best inversion of ``Enc(x)``, each by ``solve_steps`` of
    conjugate gradient on the curvature of both losses, ``preconditioned`` by the prior's mean
    curvature (nearer to the optimum, further in directions that the prior hardly tells apart),
    with a face's own ``damping``, which grows where a step failed and falls where it didn't. A face
    stops when three steps in a row gained it less than ``tolerance`` of its objective. The others
    are those of ``Crafter``.
    """

    knob: ClassVar[str] = "beta"
    uses_prior: ClassVar[bool] = True

    beta: float = 4.0
    worth: float = 0.0
    plan_size: int = 1
    steps: int = 10
    solve_steps: int = 4
    preconditioned: bool = True
    damping: float = 0.03
    pool: int = 4
    unshade: bool = True
    samples: int = 1000
    search: LatentSearch = field(default_factory=lambda: LatentSearch(steps=60))
    batch: int = 16
    replay: bool = True
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        at_least(
            self.name,
            0,
            beta=self.beta,
            worth=self.worth,
            steps=self.steps,
            tolerance=self.tolerance,
        )
        at_least(self.name, 1, plan_size=self.plan_size, pool=self.pool, batch=self.batch)
        at_least(self.name, 1, solve_steps=self.solve_steps)
        at_least(self.name, 8, samples=self.samples)
        above_zero(self.name, damping=self.damping)

    @abstractmethod
    def aim(self, features: Tensor, inverted: Tensor) -> Tensor:
        """What ``Enc(G(z))`` shall stay near, of ``Enc(x)`` and of ``Enc(G(z0))``, (N, ...)."""

    @abstractmethod
    def release(self, made: Tensor, features: Tensor, inverted: Tensor) -> Tensor:
        """The protected feature (N, ...), of ``Enc(G(z))``, ``Enc(x)`` and ``Enc(G(z0))``."""

    @property
    def will_replay(self) -> bool:
        """With ``replay``: no face depends on another one."""
        return self.replay

    def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
        """Fits the amortised start and stores the inversions of a few public faces."""
        return LatentAtWork(self, workshop, rng)

    def passes_ahead(self, faces: int) -> int:
        """Amortiser, first inversions, and the products with both Jacobians."""
        products = 4 * self.solve_steps + 9
        inverted = 3 * self.search.steps * (faces + self.plan_size - 1)
        inverted += (2 * products + 22) * faces
        once = self.samples + (0 if self.worth else exchange_ahead())
        once += curvature_ahead() if self.preconditioned or not self.worth else 0
        return once + inverted + faces * self.steps * products

    def cost_ahead(self, faces: int) -> Cost:
        """Every pass through the encoder goes through the prior too."""
        passes = self.passes_ahead(faces)
        fits = 1 if self.worth else 2  # the start, and what is read of features
        return Cost(encodes=passes, generates=passes, solves=(self.samples,) * fits)


@final
class LatentAtWork(Deployed):
    """A deployed ``crafter-z`` or ``crafter-residual``."""

    def __init__(self, how: LatentCrafting, workshop: Workshop, rng: Rng) -> None:
        self.encoder, self._how = workshop.encoder, how
        self._key = key_of(rng) if workshop.key is None else workshop.key
        self.replays = how.will_replay
        curved = how.preconditioned or not how.worth
        self.measures = Measures(how, workshop, rng, name=how.name, curved=curved)
        self.scale, self.stranger = self.measures.scale, self.measures.stranger
        self.worth = worth_of(how.worth, self.measures)

    @property
    def price(self) -> float:
        """What a privacy loss of 1 costs in the objective, whose utility loss counts as it is."""
        return self._how.beta * self.worth.value

    def invert(self, features: Tensor) -> Tensor:
        """The simulated adversary's best response: latents (N, latent) for features (N, ...)."""
        solve = ConjugateGradient(steps=self._how.solve_steps, tolerance=1e-3)
        return inverted(self.measures, features, solve=solve, damping=self._how.damping)

    def release(self, images: Tensor, rng: Rng) -> Released:
        """Protected features (N, ...); the same image and key give the same release."""
        key = self._key if self._how.replay else key_of(rng)
        before, parts, unsettled = self.measures.passes, [], []
        for batch in images.split(bounded(self._how.batch)):
            features = self.measures.encoded(batch)
            partners = torch.stack([self.measures.partners(image, key) for image in batch])
            part = self.craft(features, partners)
            parts.append(part)
            unsettled.append(self.measures.unsettled(part.latents, part.features))
        spent = self.measures.at_deployment + self.measures.passes - before
        steps = max(len(part.objective) for part in parts) - 1
        return released(
            parts, unsettled, steps=steps, passes=spent, solve="step_residual", more=self.worth.told
        )

    def craft(self, features: Tensor, partners: Tensor) -> Crafted:
        """Protected features for features (N, ...) and pooled candidate faces (N, plan_size, d)."""
        how = self._how
        z0 = self.invert(features)
        begun = self.measures.answered(z0)
        found = lead(
            self.measures, z0, how.aim(features, begun), partners, price=self.price,
            steps=how.steps, damping=how.damping, tolerance=how.tolerance,
            solve_steps=how.solve_steps, preconditioned=how.preconditioned,
        )  # fmt: skip
        made = how.release(found.best.features, features, begun)
        missed = self.measures.apart(features, begun)
        kept = replace(found.best, features=made, utility=self.measures.apart(made, features))
        moved = (found.best.latents != z0).any(1)
        found = replace(found, best=kept, unexpressed=missed)
        return replace(found.crafted(), moved=moved)
