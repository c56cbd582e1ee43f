"""Toy adversaries and planted defences for the closed-form attacks: maps of 3x4x4 and vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from planted import Protect
from torch import Generator, Tensor
from toys import PEOPLE, ToyFaces, ToyPrior, named, pooling_encoder, toy_faces

from leakaudit.attacks.base import Attack, Effort, Guess, ReadyAttack
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, AdaptiveWhiteBox, Bench
from leakaudit.maths.ridge import Ridge

CHANCE = 1 / PEOPLE
Release = Callable[[Tensor, int], Tensor]


@cache
def faces() -> ToyFaces:
    return toy_faces(per_person=4, public=240)


def encode(x: Tensor) -> Tensor:
    """Pooled pixels about grey, at a scale of their own: nothing is at 0 by itself."""
    return 4 * (pooling_encoder()(x) - 0.5) + 1


def pipeline(protect: Protect, seed: int) -> Release:
    """Releases (K, N, ...), each with fresh randomness where the defence uses any."""
    draws = Generator().manual_seed(seed)

    def release(x: Tensor, count: int) -> Tensor:
        return torch.stack([protect(encode(x), draws) for _ in range(count)])

    return release


class _Linear(ReadyAttack):
    """Stands for the trained decoder: a seconds-long training would teach these tests nothing."""

    def __init__(self) -> None:
        public = toy_faces(public=300).public
        self._map = Ridge.fit(encode(public), public.flatten(1))

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        images = self._map(features).clamp(0, 1).view(len(features), *faces().images.shape[1:])
        return Guess(images, None, Effort(0, 0))


def black(release: Release, *, recognises: bool = True) -> AdaptiveBlackBox:
    """The adaptive black-box adversary of the toy people."""
    bench = Bench({"blackbox-decoder": _Linear})
    judge = faces().oracle.embed if recognises else None
    return AdaptiveBlackBox(faces().public, encode, release, recogniser=judge, bench=bench)


class _Encoder(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return encode(x)


def white(release: Release) -> AdaptiveWhiteBox:
    """The adaptive white-box adversary of the toy people."""
    return AdaptiveWhiteBox(faces().public, _Encoder(), ToyPrior(), release)


def attacked(attack: Attack, release: Release, held: AdaptiveBlackBox | None = None) -> Guess:
    """What ``attack`` makes of the toy people behind this pipeline."""
    ready = attack.prepare(held or black(release), Rng(1))
    seen = release(faces().images, attack.looks())
    return ready.reconstruct(seen if attack.looks() > 1 else seen[0], Rng(2))


def rate(guess: Guess) -> float:
    """The share of toy people that the oracle names."""
    assert guess.images is not None
    return named(faces(), guess.images)
