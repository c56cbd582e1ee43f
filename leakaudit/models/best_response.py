"""The best response z*(F): the latent whose face has the feature nearest to F."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from leakaudit.core.checks import above_zero, at_least
from leakaudit.maths.chunks import in_chunks

Response = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LatentSearch:
    """How a latent is searched: Adam on the face's own loss, cosine rate.

    The loss of a face is ``|Enc(G(z)) - F|² / scale + prior_weight |z|² / latent``, with ``scale``
    the variance of the prior's features summed over elements: the mean feature's loss is about 1.
    """

    steps: int = 80
    rate: float = 0.08
    prior_weight: float = 2e-3

    def __post_init__(self) -> None:
        at_least("search", 0, steps=self.steps, prior_weight=self.prior_weight)
        above_zero("search", rate=self.rate)


@dataclass(frozen=True, eq=False)
class Found:
    """Latents (N, latent), their losses (N,) and the mean loss along the way."""

    latents: Tensor
    loss: Tensor
    curve: tuple[float, ...]


def search(
    response: Response, features: Tensor, start: Tensor, *, scale: float, how: LatentSearch
) -> Found:
    """The best iterate a face of ``how.steps`` descents from ``start`` (N, latent).

    Faces don't influence each other: Adam works per coordinate and the loss is a sum over faces.
    """
    z = start.detach().clone().requires_grad_()
    first, second = torch.zeros_like(start), torch.zeros_like(start)
    best, best_loss = start.detach().clone(), torch.full((len(start),), math.inf, device=z.device)
    curve = []
    for step in range(how.steps + 1):
        loss = feature_loss(response(z), features, z, scale=scale, how=how)
        better = loss.detach() < best_loss
        best_loss = torch.where(better, loss.detach(), best_loss)
        best = torch.where(better[:, None], z.detach(), best)
        curve.append(float(loss.detach().mean()))
        if step == how.steps:
            break
        (slope,) = torch.autograd.grad(loss.sum(), z)
        first.lerp_(slope, 0.1)
        second.lerp_(slope.square(), 0.02)
        size = how.rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / how.steps)))
        move = (first / (1 - 0.9 ** (step + 1))) / (
            (second / (1 - 0.98 ** (step + 1))).sqrt() + 1e-8
        )
        with torch.no_grad():
            z -= size * move
    return Found(best, best_loss, tuple(curve))


def feature_loss(
    made: Tensor, features: Tensor, z: Tensor, *, scale: float, how: LatentSearch
) -> Tensor:
    """The attacker's own loss a face (N,), without unit."""
    gap = (made - features).flatten(1).square().sum(1) / scale
    return gap + how.prior_weight * z.square().mean(1)


@final
@dataclass(frozen=True, eq=False)
class Reader:
    """A ridge regression by features, each less its ``mean`` and divided by its ``deviation``."""

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    centre: Tensor

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """What is read (N, k) of features (N, ...)."""
        x = (features.flatten(1) - self.mean) / self.deviation
        return x.to(self.weights) @ self.weights + self.centre


@final
class Amortiser:
    """A first guess of z from F: ridge regression on prior samples, and their nearest neighbours.

    Fitted in closed form on ``count`` draws ``z`` of the prior and their features; the ridge is the
    one of five with the least leave-one-out error. It costs ``count`` encoder passes.
    """

    def __init__(self, response: Response, latents: Tensor, *, batch: int = 64) -> None:
        with torch.no_grad():
            self._features = in_chunks(response, latents, batch)
        self._latents = latents
        flat = self._features.flatten(1)
        self.scale = float(flat.var(0).sum().clamp(min=1e-12))
        self._mean = flat.mean(0)
        deviation = flat.std(0)
        self._deviation = deviation.clamp(min=0.05 * float(deviation.mean()) + 1e-8)
        self._regressed = self.reader(latents)

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Latents (N, latent) by regression, pulled onto the prior's typical norm if beyond it."""
        z = self._regressed(features)
        typical = math.sqrt(z.shape[1])
        return z * (typical / z.norm(dim=1, keepdim=True).clamp(min=typical))

    @torch.no_grad()
    def reader(self, targets: Tensor) -> Reader:
        """The ridge regression of ``targets`` (samples, k) by the samples' features."""
        x = (self._features.flatten(1) - self._mean) / self._deviation
        gram = (x @ x.T).double() / x.shape[1]
        centre = targets.mean(0)
        dual = _ridge_by_leave_one_out(gram, (targets - centre).double())
        weights = ((x.T.double() @ dual) / x.shape[1]).to(targets)
        return Reader(self._mean, self._deviation, weights, centre)

    @torch.no_grad()
    def linear(self) -> Tensor:
        """The linear map (latent, features) from latents to features that fits the samples best."""
        z = self._latents - self._latents.mean(0)
        gaps = self._features.flatten(1) - self._mean
        eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        return torch.linalg.solve(z.T @ z + 0.01 * len(z) * eye, z.T @ gaps)

    @torch.no_grad()
    def nearest(self, features: Tensor, count: int) -> Tensor:
        """Latents (N, count, latent) of the prior samples with the nearest features."""
        distance = torch.cdist(features.flatten(1), self._features.flatten(1))
        return self._latents[distance.topk(count, largest=False).indices]


def _ridge_by_leave_one_out(gram: Tensor, targets: Tensor) -> Tensor:
    """Dual weights (M, latent) of kernel ridge regression with the best leave-one-out error."""
    size = float(gram.diagonal().mean())
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    best, best_error = torch.zeros_like(targets), math.inf
    for share in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        inverse = torch.linalg.inv(gram + share * size * eye + 1e-10 * eye)
        weights = inverse @ targets
        error = float((weights / inverse.diagonal()[:, None]).square().mean())
        if error < best_error:
            best, best_error = weights, error
    return best


def starts(amortiser: Amortiser, features: Tensor, count: int) -> list[Tensor]:
    """``count`` first guesses a face: regression, then the nearest samples, best first."""
    guesses = [amortiser(features)]
    if count > 1:
        near = amortiser.nearest(features, count - 1)
        guesses += [near[:, k] for k in range(count - 1)]
    return guesses
