"""Eigenfaces: a generator of public faces in closed form, quite unlike a convolutional prior."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from leakaudit.core.checks import at_least
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.maths.chunks import in_chunks
from leakaudit.models.prior import PriorShape

JITTER = 0.3
"""Share (of a deviation) by which a drawn latent differs from that of a public picture."""


@final
class Eigenfaces(nn.Module):
    """``G(z) = clamp(mean + U diag(s) z)``: the principal components of public pictures.

    Latents of the public pictures have mean 0 and, in each component, variance 1. It has what
    attacks use of a ``Prior``. Source: Turk and Pentland 1991.
    """

    mean: Tensor
    directions: Tensor
    deviations: Tensor
    public: Tensor

    def __init__(
        self, mean: Tensor, directions: Tensor, deviations: Tensor, public: Tensor
    ) -> None:
        """``mean`` (3, H, W), ``directions`` U (pixels, k), ``deviations`` s (k,), latents (M, k).

        The columns of U are orthonormal.
        """
        super().__init__()
        self.shape = PriorShape(size=mean.shape[-1], latent=len(deviations))
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.register_buffer("deviations", deviations)
        self.register_buffer("public", public)

    def forward(self, z: Tensor) -> Tensor:
        """Faces (N, 3, H, W) in [0, 1] for latents (N, k)."""
        return self.unclamped(z).clamp(0, 1)

    def unclamped(self, z: Tensor) -> Tensor:
        """``mean + U diag(s) z`` as it stands, (N, 3, H, W)."""
        flat = (z * self.deviations) @ self.directions.T
        return flat.view(-1, *self.mean.shape) + self.mean

    def project(self, images: Tensor) -> Tensor:
        """Latents (N, k) of the nearest unclamped faces to pictures (N, 3, H, W)."""
        return (images - self.mean).flatten(1) @ self.directions / self.deviations

    def draw(self, count: int, rng: Rng) -> Tensor:
        """Latents (count, k): those of public pictures drawn at random, jittered.

        Components of faces are uncorrelated but far from independent: a standard normal would give
        ghosts. Mean and covariance are the standard normal's all the same.
        """
        generator = rng.torch()
        pick = torch.randint(len(self.public), (count,), generator=generator)
        noise = torch.randn(count, self.shape.latent, generator=generator).to(self.public)
        near = self.public[pick.to(self.public.device)]
        return math.sqrt(1 - JITTER**2) * near + JITTER * noise

    @torch.no_grad()
    def sample(self, count: int, rng: Rng, *, batch: int = 128) -> Tensor:
        """Faces (count, 3, H, W) near public ones."""
        return in_chunks(self, self.draw(count, rng), batch)


@torch.no_grad()
def eigenfaces(images: Tensor, components: int) -> Eigenfaces:
    """The principal components of pictures (M, 3, H, W), those of the largest variance first.

    As many as ``components``, or as the pictures have beyond rounding. No other linear generator
    of that many latents rebuilds the pictures with a smaller squared error (Eckart-Young). Costs
    a product of M² pixels and one eigendecomposition of M x M. Raises UsageError where no two
    pictures differ.
    """
    at_least("eigenfaces", 1, components=components)
    at_least("eigenfaces", 2, pictures=len(images))
    mean = images.mean(0)
    flat = (images - mean).flatten(1)
    values, vectors = torch.linalg.eigh((flat @ flat.T).double())
    # Rounding in the product leaves noise of this size in eigenvalues that ought to be zero.
    noise = float(values[-1].clamp(min=0)) * len(flat) * torch.finfo(flat.dtype).eps
    kept = values.flip(0)[:components]
    kept = kept[kept > noise]
    if len(kept) == 0:
        raise UsageError("There are no two different pictures to learn eigenfaces from")
    weights = vectors.flip(1)[:, : len(kept)]
    directions = flat.T @ (weights / kept.sqrt()).to(flat)
    deviations = (kept / len(images)).sqrt()
    latents = (weights * math.sqrt(len(images))).to(flat)
    return Eigenfaces(mean, directions, deviations.to(flat), latents)
