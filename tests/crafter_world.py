"""A world of matrices in float64 in which the optimum of Crafter's objective is linear algebra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from toys import SPREAD, LinearEncoder, ToyPrior, normal, toy_faces

SMOOTH = 0.02  # of a stranger's distance; keeps the distance differentiable at the partner


def matrices() -> tuple[ToyPrior, LinearEncoder, Tensor, Tensor]:
    """Prior, encoder, pictures and public ones; pictures are off the range of the prior, so that
    features have what it can't express."""
    double = torch.float64
    prior, encoder = ToyPrior(dtype=double), LinearEncoder(dtype=double)
    faces = toy_faces(dtype=double)
    images = (faces.images + 0.5 * SPREAD * normal(*faces.images.shape, seed=20)).clamp(0, 1)
    return prior, encoder, images, faces.public


@dataclass(frozen=True, eq=False)
class World:
    """A crafted defence at work among matrices, and the faces that it protects."""

    work: Any
    prior: ToyPrior
    encoder: LinearEncoder
    images: Tensor

    @property
    def J(self) -> Tensor:  # noqa: N802 - the papers' letter
        return self.encoder.E @ self.prior.W

    def best_response(self, F: Tensor) -> Tensor:
        """The least-squares z of features; the shortest one where several are."""
        offset = self.prior.b @ self.encoder.E.T + self.encoder.e
        return (F - offset) @ torch.linalg.pinv(self.J, rtol=1e-9).T

    def privacy(self, F: Tensor, target: Tensor) -> Tensor:
        """The smoothed distance of the best inversion of F to a face (N, d), strangers being 1."""
        made = self.best_response(F) @ self.prior.W.T + self.prior.b
        gap = (made - target).square().sum(1)
        return (gap / self.work.stranger**2 + SMOOTH**2).sqrt()

    def objective(self, F: Tensor, target: Tensor, beta: float) -> Tensor:
        moved = (F - self.encoder(self.images)).square().sum(1)
        return beta * self.work.worth.value * self.privacy(F, target) + moved / self.work.scale

    def optimum(self, target: Tensor, beta: float) -> Tensor:
        """The F of least objective: F0 + J (z - z0), z by normal equations for a given distance.

        At distance rho the slope of the privacy loss is that of beta |G(z) - t|^2 / (2 s rho), so
        z(rho) is linear algebra, and rho is the one root of |z(rho)| = rho, found by bisection.
        """
        W, J, s = self.prior.W, self.J, self.work.stranger
        F0 = self.encoder(self.images)
        z0 = self.best_response(F0)
        rows = []
        for k in range(len(F0)):
            low, high = SMOOTH * s, 1e3 * s
            for _ in range(200):
                rho = (low + high) / 2
                a, b = beta * self.work.worth.value / (s * rho), 2 / self.work.scale
                right = a * W.T @ (target[k] - self.prior.b) + b * J.T @ J @ z0[k]
                z = torch.linalg.solve(a * W.T @ W + b * J.T @ J, right)
                gap = (W @ z + self.prior.b - target[k]).square().sum() + (SMOOTH * s) ** 2
                low, high = (rho, high) if float(gap.sqrt()) > rho else (low, rho)
            rows.append(F0[k] + J @ (z - z0[k]))
        return torch.stack(rows)
