"""Planted defences, each a factory with a known weakness: ``--defence tests/planted.py:permuted``.

All but ``constant`` keep the person in what they release; each falls to one kind of adversary.
Settings are whole numbers and numbers, so that they can be typed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn import functional as fn

Protect = Callable[[Tensor, Generator], Tensor]


def permuted(seed: int = 0, elements: bool = False) -> Protect:
    """Channels (or all ``elements``) in another, fixed order: one cycle, so that none stays.

    Fools what was trained on clean features; falls to whoever is trained on its releases.
    """

    def protect(features: Tensor, rng: Generator) -> Tensor:
        rows = features.flatten(1) if elements else features
        cycle = torch.randperm(rows.shape[1], generator=_secret(seed))
        source = torch.empty_like(cycle)
        source[cycle] = cycle.roll(1)
        return rows[:, source].view_as(features)

    return protect


def flipped(seed: int = 0, elements: bool = False) -> Protect:
    """A fixed half of the channels (or of all ``elements``) with the sign turned.

    Falls as ``permuted`` does.
    """

    def protect(features: Tensor, rng: Generator) -> Tensor:
        rows = features.flatten(1) if elements else features
        order = torch.randperm(rows.shape[1], generator=_secret(seed))
        signs = torch.ones(rows.shape[1]).to(features)
        signs[order[: len(order) // 2]] = -1
        return (rows * signs.view(1, -1, *[1] * (rows.dim() - 2))).view_as(features)

    return protect


def rotated(seed: int = 0) -> Protect:
    """All elements mixed by one fixed rotation, which keeps everything.

    Falls as ``permuted`` does, but only to whoever asked for about as many releases as there are
    elements: no few of them tell the rotation.
    """

    def protect(features: Tensor, rng: Generator) -> Tensor:
        rows = features.flatten(1)
        mixed = _normal((rows.shape[1], rows.shape[1]), _secret(seed))
        return (rows @ torch.linalg.qr(mixed)[0].to(features)).view_as(features)

    return protect


def static_noise(sigma: float = 1.0, seed: int = 0) -> Protect:
    """One noise vector for everybody, in the feature's unit; falls as ``permuted`` does."""

    def protect(features: Tensor, rng: Generator) -> Tensor:
        return features + sigma * _normal(features.shape[1:], _secret(seed)).to(features)

    return protect


def fgsm_offset(eps: float = 0.3, pool: int = 4) -> Protect:
    """Static adversarial noise: a step of ``eps`` that spoils a shadow decoder's picture.

    For features (N, 3, s, s) that average ``pool`` x ``pool`` pixels. The shadow decoder is linear,
    fitted on smooth fields of colour; the step goes along the sign of the gradient that moves its
    picture towards the mean one and, for a large ``eps``, beyond it (AdvFace, CVPR 2023, in small).
    It follows from the feature alone: falls as ``permuted`` does.
    """

    def protect(features: Tensor, rng: Generator) -> Tensor:
        weights, mean = (part.to(features) for part in _shadow(features.shape[-1], pool))
        with torch.enable_grad():
            given = (features.flatten(1) - mean).requires_grad_()
            (slope,) = torch.autograd.grad((given @ weights).square().sum(), given)
        return features - eps * slope.sign().view_as(features)

    return protect


def fresh_noise(sigma: float = 1.0) -> Protect:
    """Independent noise each release, in the feature's unit; falls to the mean of many releases."""

    def protect(features: Tensor, rng: Generator) -> Tensor:
        return features + sigma * _normal(features.shape, rng).to(features)

    return protect


def sign_of_release() -> Protect:
    """The feature or its negative, by a coin a release and picture.

    The mean of many releases is nothing; falls to the mean of their magnitudes.
    """

    def protect(features: Tensor, rng: Generator) -> Tensor:
        coins = 2 * torch.randint(0, 2, (len(features),), generator=rng) - 1
        return features * coins.to(features).view(-1, *[1] * (features.dim() - 1))

    return protect


def half_dropped(keep: float = 0.5) -> Protect:
    """Elements are kept by a coin each and release, the others are 0; falls to the union."""

    def protect(features: Tensor, rng: Generator) -> Tensor:
        return features * (torch.rand(features.shape, generator=rng) < keep).to(features)

    return protect


class Shuffled:
    """Rows of a batch in a random order; falls to whoever matches them back, or sends one."""

    def __init__(self, coupling: str) -> None:
        self.coupling = coupling

    def protect_features(self, features: Tensor, rng: Generator) -> Tensor:
        """The same rows in another order."""
        return features[torch.randperm(len(features), generator=rng)]


def shuffled_batch(coupling: str = "batch") -> Shuffled:
    """The defence that moves rows; it may keep silent about it with ``coupling="image"``."""
    return Shuffled(coupling)


def constant(value: float = 0.5) -> Protect:
    """The same number everywhere: truly uninformative, never leaks."""

    def protect(features: Tensor, rng: Generator) -> Tensor:
        return torch.full_like(features, value)

    return protect


PLANTED: dict[str, Callable[[], Protect | Shuffled]] = {
    "permuted": permuted,
    "flipped": flipped,
    "rotated": rotated,
    "static_noise": static_noise,
    "fgsm_offset": fgsm_offset,
    "fresh_noise": fresh_noise,
    "sign_of_release": sign_of_release,
    "half_dropped": half_dropped,
    "shuffled_batch": shuffled_batch,
    "constant": constant,
}


def _secret(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def _normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


@cache
def _shadow(side: int, pool: int) -> tuple[Tensor, Tensor]:
    """A linear decoder (3 s s, 3 H W) of centred features, and the mean feature."""
    coarse = torch.rand(1000, 3, 4, 4, generator=_secret(3))
    pictures = fn.interpolate(coarse, size=(side * pool, side * pool), mode="bilinear")
    features = fn.avg_pool2d(pictures, pool).flatten(1)
    mean = features.mean(0)
    gram = (features - mean).T @ (features - mean)
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram))
    centred = pictures.flatten(1) - pictures.flatten(1).mean(0)
    return torch.linalg.solve(gram, (features - mean).T @ centred), mean
