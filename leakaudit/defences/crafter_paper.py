"""crafter-paper: Crafter as its authors run it, for comparison: momentum, a critic, Neumann."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.cost import Cost
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Defence, Deployed, Released, Workshop
from leakaudit.defences.crafted import Crafted, released
from leakaudit.defences.crafting import POWER_STEPS, prior_of
from leakaudit.defences.identity import encode
from leakaudit.maths.hypergradient import Hypergradient, hypergradient, stationarity
from leakaudit.maths.inverse_hvp import Neumann
from leakaudit.models.prior import Prior


@final
@dataclass(frozen=True)
class CrafterPaper(Defence):
    """Alg. 1 with its authors' settings; slow, and there to be compared with ``crafter``.

    Each outer step (1) moves z by ``inner_steps`` of descent with ``momentum`` at ``inner_rate`` on
    ``100 |Enc(G(z)) - F| - 100 D(G(z))``, from where the last step left it; (2) trains a critic by
    ``critic_steps`` at ``critic_rate`` with ``penalty`` on its slope between the batch's inversions
    and as many fresh faces of the prior; (3) takes the derivative of the critic's distance by F
    with ``terms`` of the Neumann series at ``alpha`` on the exact Hessian of the mean square
    ``2000 |Enc(G(z)) - F|² / (d inner_batch)``, d the feature's size; (4) moves F by Adam at
    ``rate`` on ``100 L_privacy + (100 / beta) |F - Enc(x)|² / d``. Their beta' is ``1 / beta``:
    larger ``beta`` means more privacy here too, but isn't in the unit of ``crafter``'s. The last
    iterate is released. Faces of a batch share the critic, and Neumann's alpha belongs to batches
    of ``inner_batch``, whatever the size of ours; norms are taken a face. D is the prior's critic,
    and each batch trains a copy of it. Above 0, ``products`` sums the same terms in a Krylov space
    of so many products with the Hessian, and it's an error where so few don't give them; at 0 each
    term has its own, as the authors have it. Every release is fresh.
    Source: Crafter (NDSS 2024), Eq. 8 and Alg. 1, and the settings of its authors' code.
    """

    name: ClassVar[str] = "crafter-paper"
    source: ClassVar[str] = "Crafter, NDSS 2024, Eq. 8 and Alg. 1, authors' settings"
    knob: ClassVar[str] = "beta"
    keeps_rows: ClassVar[bool] = True
    uses_prior: ClassVar[bool] = True

    beta: float = 1.0
    outer_steps: int = 450
    rate: float = 0.01
    inner_steps: int = 80
    inner_rate: float = 5e-3
    momentum: float = 0.9
    critic_weight: float = 100.0
    critic_steps: int = 10
    critic_rate: float = 5e-4
    penalty: float = 20.0
    terms: int = 120
    products: int = 0
    alpha: float = 1e-3
    inner_batch: int = 128
    batch: int = 16
    coupling = "batch"

    def __post_init__(self) -> None:
        at_least(self.name, 1, outer_steps=self.outer_steps, inner_steps=self.inner_steps)
        at_least(self.name, 1, terms=self.terms, batch=self.batch, inner_batch=self.inner_batch)
        at_least(self.name, 0, critic_steps=self.critic_steps, critic_weight=self.critic_weight)
        at_least(self.name, 0, products=self.products)
        at_least(self.name, 0, momentum=self.momentum, penalty=self.penalty)
        above_zero(self.name, beta=self.beta, rate=self.rate, inner_rate=self.inner_rate)
        above_zero(self.name, critic_rate=self.critic_rate, alpha=self.alpha)

    def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
        """Nothing to prepare but the prior."""
        prior = prior_of(workshop, self.name)
        if prior.critic is None:
            raise UsageError(
                f"{self.name} needs a prior with a critic, and this one has none",
                todo="Give a file of leakaudit prior train",
            )
        return PaperAtWork(self, workshop.encoder, prior, prior.critic)

    def passes_ahead(self, faces: int) -> int:
        """Three passes an inner step, and six a term or product."""
        outer = 3 * self.inner_steps + 6 * (self.products or self.terms) + 12
        return faces * (2 + self.outer_steps * outer + 5 + 4 * POWER_STEPS)

    def cost_ahead(self, faces: int) -> Cost:
        """Every pass through the encoder goes through the prior too, and the critic's steps."""
        passes = self.passes_ahead(faces)
        critic = faces * self.outer_steps * 7 * self.critic_steps
        return Cost(encodes=passes, generates=passes + critic)


@dataclass(eq=False)
class State:
    """Where a batch stands between outer steps."""

    F0: Tensor
    F: Tensor
    z: Tensor
    speed: Tensor
    first: Tensor
    second: Tensor
    critic: nn.Module
    judge: torch.optim.Optimizer
    step: int = 0


@final
class PaperAtWork(Deployed):
    """A deployed ``crafter-paper``; its four parts are methods, so that each can be timed."""

    def __init__(
        self, how: CrafterPaper, encoder: nn.Module, prior: Prior, critic: nn.Module
    ) -> None:
        self.encoder, self.how, self._prior, self._critic = encoder, how, prior, critic
        self.passes = 0

    def release(self, images: Tensor, rng: Rng) -> Released:
        """Protected features (N, ...) of this company; a fresh ``rng`` is a fresh release."""
        before, parts, unsettled = self.passes, [], []
        for number, batch in enumerate(images.split(self.how.batch)):
            part = self.craft(self.begin(batch, rng.derive(number)), rng.derive(number))
            parts.append(part)
            self.passes += len(batch) * (5 + 4 * POWER_STEPS)
            unsettled.append(
                stationarity(self._response, part.latents, part.features, iterations=POWER_STEPS)
            )
        spent = self.passes - before
        return released(parts, unsettled, steps=self.how.outer_steps, passes=spent)

    def begin(self, images: Tensor, rng: Rng) -> State:
        """The unprotected features, latents drawn from the prior, and a copy of its critic."""
        F0 = encode(self.encoder, images)
        self.passes += len(images)
        z = self._prior.draw(len(images), rng.derive("start")).to(F0)
        critic = copy.deepcopy(self._critic).requires_grad_(True)
        judge = torch.optim.Adam(critic.parameters(), lr=self.how.critic_rate, betas=(0.5, 0.9))
        nothing = torch.zeros_like(F0)
        return State(F0, F0.clone(), z, torch.zeros_like(z), nothing, nothing, critic, judge)

    def craft(self, at: State, rng: Rng) -> Crafted:
        """``outer_steps`` of the algorithm."""
        curve = []
        for _ in range(self.how.outer_steps):
            self.invert(at)
            self.train_critic(at, rng)
            found, privacy = self.differentiate(at)
            utility = (at.F - at.F0).flatten(1).square().mean(1)
            curve.append(float((self.how.beta * privacy + utility).mean()))
            self.descend(at, found)
        utility = (at.F - at.F0).flatten(1).square().mean(1)
        residual = float(found.residual.mean())
        going = torch.zeros(len(at.z), dtype=torch.bool)
        return Crafted(at.F, at.z, tuple(curve), residual, privacy, utility, going)

    def invert(self, at: State) -> None:
        """The inner problem: descent with momentum on z, from where it stands."""
        how, z = self.how, at.z.clone().requires_grad_()
        for _ in range(how.inner_steps):
            with torch.enable_grad():
                images = self._prior(z)
                gap = (self.encoder(images) - at.F).flatten(1)
                loss = 100 * (gap.square().sum(1) + 1e-12).sqrt()
                loss = loss - how.critic_weight * self._critic(images)
                (slope,) = torch.autograd.grad(loss.sum(), z)
            self.passes += 3 * len(z)
            at.speed = how.momentum * at.speed + slope
            z = (z - how.inner_rate * at.speed).detach().requires_grad_()
        at.z = z.detach()

    def train_critic(self, at: State, rng: Rng) -> None:
        """The critic between these inversions and fresh faces of the prior (WGAN-GP)."""
        with torch.no_grad():
            made = self._prior(at.z)
        for turn in range(self.how.critic_steps):
            stream = rng.derive("critic", at.step, turn)
            with torch.no_grad():
                faces = self._prior(self._prior.draw(len(made), stream)).to(made)
            share = torch.rand(len(made), 1, 1, 1, generator=stream.derive("lines").torch())
            with torch.enable_grad():
                between = (faces + share.to(made) * (made - faces)).requires_grad_()
                score = at.critic(between).sum()
                (slope,) = torch.autograd.grad(score, between, create_graph=True)
                steep = slope.flatten(1).norm(dim=1) - 1
                loss = at.critic(made).mean() - at.critic(faces).mean()
                loss = loss + self.how.penalty * steep.square().mean()
                at.judge.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                at.judge.step()
        with torch.no_grad():
            faces = self._prior(self._prior.draw(len(made), rng.derive("level", at.step)))
            self._level = at.critic(faces.to(made)).mean()

    def differentiate(self, at: State) -> tuple[Hypergradient, Tensor]:
        """The critic's distance (N,), and its derivative by F through the inner problem."""
        how, size = self.how, at.F[0].numel()

        def outer(z: Tensor) -> Tensor:
            score: Tensor = at.critic(self._prior(z))
            return (self._level - score) / len(at.z)

        def inner(z: Tensor, F: Tensor) -> Tensor:
            gap = (self.encoder(self._prior(z)) - F).flatten(1)
            return 2000 * gap.square().sum(1) / (size * how.inner_batch)

        solve = Neumann(how.terms, how.alpha, products=how.products)
        at.critic.requires_grad_(False)
        found = hypergradient(outer, inner, at.z, at.F, solve=solve)
        with torch.no_grad():
            privacy = outer(at.z) * len(at.z)
        at.critic.requires_grad_(True)
        self.passes += len(at.z) * (6 * found.passes + 12)
        return found, privacy

    def descend(self, at: State, found: Hypergradient) -> None:
        """Adam on F, by the mean of both losses over the batch."""
        how, count = self.how, at.F.numel()
        at.step += 1
        slope = 100 * found.value + (100 / how.beta) * 2 * (at.F - at.F0) / count
        at.first = at.first.lerp(slope, 0.1)
        at.second = at.second.lerp(slope.square(), 0.001)
        down = (at.second / (1 - 0.999**at.step)).sqrt() + 1e-8
        at.F = at.F - how.rate * at.first / (1 - 0.9**at.step) / down

    def _response(self, z: Tensor) -> Tensor:
        feature: Any = self.encoder(self._prior(z))
        return feature  # type: ignore[no-any-return]
