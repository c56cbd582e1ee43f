"""Toy people of 16 pixels whose networks are matrices, so that seconds suffice to attack them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.rng import Rng
from leakaudit.models.oracle import IdentityOracle
from leakaudit.models.prior import Critic, PriorShape

SIDE = 16
LATENT = 8
PEOPLE = 8
SPREAD = 0.1  # deviation of a pixel over faces; five of them stay within [0, 1]


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers of this seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


class ToyPrior(nn.Module):
    """``G(z) = W z + b``: smooth colour fields about grey, (N, 3, 16, 16), never clipped.

    ``spread`` is the deviation of a pixel; it has all that defences and attacks use of a ``Prior``.
    """

    W: Tensor
    b: Tensor

    def __init__(self, *, spread: float = SPREAD, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.shape = PriorShape(size=SIDE, latent=LATENT)
        coarse = normal(LATENT, 3, 4, 4, seed=3, dtype=torch.float64)
        fields = fn.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear").flatten(1)
        fields = spread * fields / fields.square().sum(0, keepdim=True).sqrt()
        self.register_buffer("W", fields.T.contiguous().to(dtype))
        self.register_buffer("b", torch.full((3 * SIDE * SIDE,), 0.5, dtype=dtype))

    @property
    def critic(self) -> nn.Module:
        """An untrained critic, always the same one; not part of the state."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(12)
            return Critic(self.shape).to(self.W).eval().requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        """Faces for latents (N, 8)."""
        return (z @ self.W.T + self.b).view(-1, 3, SIDE, SIDE)

    def draw(self, count: int, rng: Rng) -> Tensor:
        """Latents from the standard normal."""
        return torch.randn(count, LATENT, generator=rng.torch()).to(self.W)

    def sample(self, count: int, rng: Rng, *, batch: int = 128) -> Tensor:
        """Faces from the prior."""
        return self(self.draw(count, rng))


class LinearEncoder(nn.Module):
    """``Enc(x) = E x + e``: features (N, width) of pictures, a random matrix."""

    E: Tensor
    e: Tensor

    def __init__(self, width: int = 20, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        pixels = 3 * SIDE * SIDE
        self.register_buffer("E", normal(width, pixels, seed=4, dtype=dtype) / math.sqrt(pixels))
        self.register_buffer("e", normal(width, seed=5, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, width)."""
        return x.flatten(1) @ self.E.T + self.e


class ConstantEncoder(nn.Module):
    """A planted-safe encoder: the same feature for everybody."""

    def forward(self, x: Tensor) -> Tensor:
        """Ones, (N, 3, 4, 4)."""
        return torch.ones(len(x), 3, 4, 4, dtype=x.dtype)


class NoiseEncoder(nn.Module):
    """A planted-safe encoder: numbers that have nothing to do with the picture."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(6)

    def forward(self, x: Tensor) -> Tensor:
        """Fresh noise, (N, 3, 4, 4)."""
        return torch.randn(len(x), 3, 4, 4, generator=self._generator, dtype=x.dtype)


def pooling_encoder() -> nn.Module:
    """A planted leak: the picture itself, averaged over 4x4 pixels."""
    return nn.AvgPool2d(4)


class ToyHead(nn.Module):
    """Three logits from a feature of any shape."""

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (N, 3)."""
        flat = feature.flatten(1)
        return (flat - 0.5) @ normal(flat.shape[1], 3, seed=7).to(flat)


@dataclass(frozen=True, eq=False)
class ToyFaces:
    """Attacked pictures (N, 3, 16, 16) of ``people`` (N,), public ones, and who judges."""

    images: Tensor
    people: Tensor
    public: Tensor
    oracle: IdentityOracle
    prior: ToyPrior


def toy_faces(
    *, per_person: int = 1, people: int = PEOPLE, public: int = 160, dtype=torch.float32
) -> ToyFaces:
    """``people`` clearly different people; pictures of one differ by a tenth of the spread."""
    prior = ToyPrior(dtype=dtype)
    who = normal(people, LATENT, seed=8)

    def pictures(index: Tensor, seed: int) -> Tensor:
        return prior((who[index] + 0.1 * normal(len(index), LATENT, seed=seed)).to(dtype))

    index = torch.arange(people).repeat_interleave(per_person)
    enrolled = torch.arange(people).repeat_interleave(3)
    return ToyFaces(
        images=pictures(index, 9),
        people=index,
        public=prior(normal(public, LATENT, seed=10, dtype=dtype)),
        oracle=toy_oracle(pictures(enrolled, 11), enrolled),
        prior=prior,
    )


def toy_oracle(enrolment: Tensor, people: Tensor) -> IdentityOracle:
    """Names people by their pooled pixels."""

    def embed(x: Tensor) -> Tensor:
        return fn.avg_pool2d(x, x.shape[-1] // 4).flatten(1) - 0.5

    return IdentityOracle(embed, enrolment, people, name="pooled pixels")


def named(faces: ToyFaces, images: Tensor) -> float:
    """The share of pictures that the toy oracle names right."""
    return float((faces.oracle.name_faces(images) == faces.people).float().mean())
