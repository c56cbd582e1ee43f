"""crafter: move the feature until its best inversion looks like another, public face."""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.cost import Cost
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Defence, Deployed, Released, Workshop
from leakaudit.defences.identity import encode
from leakaudit.maths.emd import pairwise_distance, transport_plan
from leakaudit.maths.hypergradient import damping_of, gauss_newton, linearise, pull_at
from leakaudit.maths.inverse_hvp import ConjugateGradient
from leakaudit.models.best_response import Amortiser, LatentSearch, search
from leakaudit.models.prior import Prior


@final
@dataclass(frozen=True)
class Crafter(Defence):
    """``F* = argmin_F beta L_privacy(F) + L_utility(F)``, by implicit differentiation.

    ``L_privacy`` is the Euclidean distance, over pixels pooled by ``pool``, from the best inversion
    ``G(z*(F))`` to the public face that an exact transport plan gives it, divided by the mean
    distance between two faces of the prior. With ``unshade`` each channel's linear ramps across and
    down are taken out of both first: the side the light comes from is no identity, and moving it
    costs utility. ``L_utility = |F - Enc(x)|²`` divided by the variance
    of the prior's features (summed over elements). Neither has a unit; 1 is "as far as a stranger".
    Larger ``beta`` means more privacy (the paper's Eq. 8 puts its beta on the utility term).

    The plan is exact POT between ``plan_size`` inversions (this face's and ``plan_size - 1`` stored
    public ones) and as many fresh faces of the prior, drawn from a key and the image's own content:
    no face depends on another one (coupling by image). With ``plan_size=1`` the partner is one
    independent draw. With ``replay`` the key belongs to the deployment, so that a picture that is
    sent twice is released as the same bits, and there is nothing to average; without it every
    release draws a fresh key.

    Each outer step solves ``(JᵀJ + lambda I) u = dL_privacy/dz`` by ``solve_steps`` of conjugate
    gradient, J the Jacobian of ``Enc(G(z))``, moves F by the face's own rate towards
    ``Enc(x) - beta scale J u / 2``, the fixed point of the objective's gradient, and re-solves z by
    ``follow_steps`` of Gauss-Newton. A face whose objective rose goes back to its best iterate with
    a shorter rate, starting from ``rate``; the best iterate is released.
    Source: Crafter (NDSS 2024), Eq. 8 and Alg. 1; Gauss-Newton and the image coupling are ours.
    """

    name: ClassVar[str] = "crafter"
    source: ClassVar[str] = "Crafter, NDSS 2024, Eq. 8 and Alg. 1"
    uses_prior: ClassVar[bool] = True
    knob: ClassVar[str] = "beta"

    beta: float = 12.0
    plan_size: int = 1
    outer_steps: int = 16
    rate: float = 0.5
    solve_steps: int = 3
    follow_steps: int = 2
    damping: float = 0.03
    pool: int = 4
    unshade: bool = True
    samples: int = 1000
    search: LatentSearch = field(default_factory=lambda: LatentSearch(steps=60))
    batch: int = 16
    replay: bool = True

    def __post_init__(self) -> None:
        at_least("crafter", 0, beta=self.beta, outer_steps=self.outer_steps, damping=self.damping)
        at_least("crafter", 1, plan_size=self.plan_size, pool=self.pool, batch=self.batch)
        at_least("crafter", 1, solve_steps=self.solve_steps, follow_steps=self.follow_steps)
        at_least("crafter", 8, samples=self.samples)
        above_zero("crafter", rate=self.rate)

    def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
        """Fits the amortised start and stores the inversions of a few public faces."""
        if workshop.prior is None:
            raise UsageError(
                "crafter needs a prior", todo="Give public images (--public) to train one"
            )
        return CrafterAtWork(self, workshop.encoder, workshop.prior, workshop.public, rng)

    def passes_ahead(self, faces: int) -> int:
        """Amortiser, first inversions, and the products with J and its transpose."""
        products = self.solve_steps + self.follow_steps + 2  # each about six passes
        outer = self.outer_steps * (6 * products + 3)
        inverted = 3 * self.search.steps * (faces + self.plan_size - 1)
        inverted += 12 * self.solve_steps * faces
        return self.samples + inverted + faces * outer

    def cost_ahead(self, faces: int) -> Cost:
        """Every pass through the encoder goes through the prior too."""
        passes = self.passes_ahead(faces)
        return Cost(encodes=passes, generates=passes, solves=(self.samples,))


def without_ramps(images: Tensor) -> Tensor:
    """Pictures (N, C, H, W) less each channel's least-squares slope across and down."""
    for axis in (-1, -2):
        line = torch.linspace(-1, 1, images.shape[axis], dtype=images.dtype, device=images.device)
        line = line if axis == -1 else line.unsqueeze(1)
        ramp = line.expand(images.shape[-2:])
        slope = (images * ramp).sum((-1, -2), keepdim=True) / ramp.square().sum().clamp(min=1e-12)
        images = images - slope * ramp
    return images


def _key(rng: Rng) -> bytes:
    """The key of the partners' draws."""
    return rng.derive("crafter-key").state.to_bytes(8, "big")


@dataclass(frozen=True, eq=False)
class Crafted:
    """Protected features of one batch, their inversions and how the optimiser fared.

    ``features`` (N, ...), ``latents`` (N, latent), ``objective`` the mean of the least
    ``beta L_privacy + L_utility`` up to each outer step, ``residual`` the mean relative residual of
    the last linear solves,
    ``privacy`` and ``utility`` the losses a face (N,) at the released feature.
    """

    features: Tensor
    latents: Tensor
    objective: tuple[float, ...]
    residual: float
    privacy: Tensor
    utility: Tensor


@final
class CrafterAtWork(Deployed):
    """A deployed Crafter; see :class:`Crafter` for the algorithm."""

    def __init__(
        self, how: Crafter, encoder: nn.Module, prior: Prior, public: Tensor, rng: Rng
    ) -> None:
        self.encoder, self._how, self._prior = encoder, how, prior
        self._key = _key(rng)
        draws = prior.draw(how.samples, rng.derive("amortiser"))
        self._amortiser = Amortiser(self.response, draws)
        self.scale = self._amortiser.scale
        with torch.no_grad():
            faces = self._pooled(torch.cat([prior(z) for z in draws[:256].split(64)]))
        apart = pairwise_distance(faces[: len(faces) // 2], faces[len(faces) // 2 :])
        self.stranger = float(apart.mean().clamp(min=1e-12))
        others = public[: how.plan_size - 1]
        self._stored = faces[:0]
        if len(others):
            latents = self.invert(encode(encoder, others))
            with torch.no_grad():
                self._stored = self._pooled(prior(latents))

    def response(self, z: Tensor) -> Tensor:
        """``Enc(G(z))``, (N, ...), for latents (N, latent)."""
        return self.encoder(self._prior(z))

    def invert(self, features: Tensor) -> Tensor:
        """The simulated adversary's best response: latents (N, latent) for features (N, ...)."""
        start = self._amortiser(features)
        how = self._how.search
        return search(self.response, features, start, scale=self.scale, how=how).latents

    def release(self, images: Tensor, rng: Rng) -> Released:
        """Protected features (N, ...); the same image and key give the same release."""
        key = self._key if self._how.replay else _key(rng)
        parts = []
        for batch in images.split(self._how.batch):
            features = encode(self.encoder, batch)
            partners = torch.stack([self.partners(image, key) for image in batch])
            parts.append(self.craft(features, partners))
        return self._released(parts)

    def partners(self, image: Tensor, key: bytes) -> Tensor:
        """Pooled faces of the prior (plan_size, d) that this key and picture (3, H, W) draw."""
        content = (image.detach().cpu() * 255).round().to(torch.uint8).numpy().tobytes()
        digest = hmac.new(key, content, hashlib.sha256).digest()
        draws = Rng(int.from_bytes(digest[:8], "big"), ("crafter", "partners"))
        with torch.no_grad():
            return self._pooled(self._prior(self._prior.draw(self._how.plan_size, draws)))

    def craft(self, features: Tensor, partners: Tensor) -> Crafted:
        """Protected features for features (N, ...) and pooled candidate faces (N, plan_size, d)."""
        how = self._how
        solve = ConjugateGradient(steps=how.solve_steps, tolerance=1e-3)
        follow = ConjugateGradient(steps=how.follow_steps, tolerance=1e-3)
        F0, F = features, features.clone()
        z = self.invert(features)
        for _ in range(2):  # the search is short and leans to the prior; later iterates don't
            at = linearise(self.response, z)
            z = z + gauss_newton(at, F0, solve=solve, damping=how.damping).x
        z0, u = z, None
        ridge: Tensor | None = None
        best = _Best.start(features, z)
        rate = torch.full((len(z), 1), how.rate, device=z.device)
        curve, residuals = [], [0.0]
        for step in range(how.outer_steps + 1):
            privacy, slope = self._privacy(z, partners)
            utility = (F - F0).flatten(1).square().sum(1) / self.scale
            value = how.beta * privacy + utility
            # A fixed step oscillates where beta is large: a face that got worse goes back to its
            # best iterate and tries a shorter one.
            better = (value < best.value)[:, None]
            rate = torch.where(better, (1.2 * rate).clamp(max=1.0), 0.4 * rate)
            best = best.updated(value, F, z, privacy, utility, slope)
            curve.append(float(best.value.mean()))
            if step == how.outer_steps:
                break
            F, z = best.features, best.latents
            at = linearise(self.response, z)
            if ridge is None:  # measured once: its scale hardly moves along the way
                ridge = damping_of(at, best.slope, how.damping)
            found = pull_at(at, best.slope, solve=solve, absolute=ridge, x0=u)
            u = found.solution
            residuals.append(float(found.residual.mean()))
            reach = 0.5 * how.beta * self.scale
            goal = F0 - reach * found.value
            F = F + rate.view(-1, *([1] * (F.dim() - 1))).to(F) * (goal - F)
            ahead = rate.to(z) * (z0 - reach * u - z)  # what the step would be in a linear world
            z = z + gauss_newton(at, F, solve=follow, absolute=ridge, x0=ahead).x
        return Crafted(
            best.features, best.latents, tuple(curve), residuals[-1], best.privacy, best.utility
        )

    def _privacy(self, z: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
        """``L_privacy`` a face (N,) and its derivative by z (N, latent), the plans held fixed."""
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            made = self._pooled(self._prior(z))
            apart = (made.unsqueeze(1) - partners).square().sum(2)
            cost = (apart + (0.02 * self.stranger) ** 2).sqrt() / self.stranger
            loss = (self._shares(made.detach(), partners).to(cost) * cost).sum(1)
            (slope,) = torch.autograd.grad(loss.sum(), z)
        return loss.detach(), slope

    def _shares(self, made: Tensor, partners: Tensor) -> Tensor:
        """Where the exact plan sends each face (N, plan_size); rows sum to 1."""
        if self._how.plan_size == 1:
            return torch.ones(len(made), 1)
        rows = []
        for face, goals in zip(made, partners, strict=True):
            crowd = torch.cat([face.unsqueeze(0), self._stored])
            rows.append(transport_plan(pairwise_distance(crowd, goals))[0] * len(crowd))
        return torch.stack(rows)

    def _pooled(self, images: Tensor) -> Tensor:
        """Pictures as vectors (N, d): pooled, and without the ramps of light from a side."""
        pooled = fn.avg_pool2d(images, self._how.pool)
        return (without_ramps(pooled) if self._how.unshade else pooled).flatten(1)

    def _released(self, parts: list[Crafted]) -> Released:
        count = sum(len(part.features) for part in parts)
        weights = [len(part.features) / count for part in parts]
        curve = tuple(
            sum(part.objective[k] * w for part, w in zip(parts, weights, strict=True))
            for k in range(self._how.outer_steps + 1)
        )
        residual = sum(part.residual * w for part, w in zip(parts, weights, strict=True))
        settled = len(curve) > 3 and curve[-3] - curve[-1] <= 0.05 * max(curve[-1], 1e-9)
        return Released(
            torch.cat([part.features for part in parts]),
            steps=self._how.outer_steps,
            passes=self._how.passes_ahead(count),
            curve=curve,
            converged=settled,
            details={
                "hypergradient_residual": residual,
                "privacy_loss": float(torch.cat([p.privacy for p in parts]).mean()),
                "utility_loss": float(torch.cat([p.utility for p in parts]).mean()),
            },
        )


@dataclass(frozen=True, eq=False)
class _Best:
    """The iterate with the least objective of each face."""

    value: Tensor
    features: Tensor
    latents: Tensor
    privacy: Tensor
    utility: Tensor
    slope: Tensor

    @staticmethod
    def start(features: Tensor, latents: Tensor) -> _Best:
        worst = torch.full((len(features),), math.inf, device=features.device)
        return _Best(worst, features, latents, worst, worst, torch.zeros_like(latents))

    def updated(
        self,
        value: Tensor,
        features: Tensor,
        latents: Tensor,
        privacy: Tensor,
        utility: Tensor,
        slope: Tensor,
    ) -> _Best:
        better = value < self.value

        def pick(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(better.view(-1, *([1] * (new.dim() - 1))), new, old)

        return _Best(
            pick(value, self.value),
            pick(features, self.features),
            pick(latents, self.latents),
            pick(privacy, self.privacy),
            pick(utility, self.utility),
            pick(slope, self.slope),
        )
