"""What a crafted batch is: protected features, the best iterate of each face, and the summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from leakaudit.defences.base import Released

MOVED = "moved"
"""Of a release's numbers a face: 1 where the face was led anywhere, 0 where no step helped."""


@dataclass(frozen=True, eq=False)
class Crafted:
    """Protected features of one batch, their inversions and how the optimiser fared.

    ``features`` (N, ...), ``latents`` (N, latent), ``objective`` the mean of the least
    ``price L_privacy + L_utility`` to each outer step, ``residual`` the mean relative residual of
    the last linear solves, ``privacy`` and ``utility`` the losses a face (N,) at the released
    feature, ``settled`` (N,) bool whether a face stopped before its steps ended, ``unexpressed``
    (N,) the squared distance of ``Enc(x)`` from its best inversion's feature, in the unit of
    ``utility``, where that was looked at, ``moved`` (N,) bool whether a face's latent was led
    anywhere, where a release of one that wasn't differs from ``Enc(x)`` all the same.
    """

    features: Tensor
    latents: Tensor
    objective: tuple[float, ...]
    residual: float
    privacy: Tensor
    utility: Tensor
    settled: Tensor
    unexpressed: Tensor | None = None
    moved: Tensor | None = None


def released(
    parts: list[Crafted],
    unsettled: list[Tensor],
    *,
    steps: int,
    passes: int,
    solve: str = "hypergradient_residual",
    more: Mapping[str, float] | None = None,
) -> Released:
    """All batches as one release, with the figures that its report shows.

    ``unsettled`` are the batches' inner stationarities; ``solve`` names the linear residual,
    ``more`` are further figures.
    """
    count = sum(len(part.features) for part in parts)
    weights = [len(part.features) / count for part in parts]
    longest = max(len(part.objective) for part in parts)
    curves = [p.objective + p.objective[-1:] * (longest - len(p.objective)) for p in parts]
    curve = tuple(
        sum(c[k] * w for c, w in zip(curves, weights, strict=True)) for k in range(longest)
    )
    residual = sum(part.residual * w for part, w in zip(parts, weights, strict=True))
    slow = len(curve) > 3 and abs(curve[-3] - curve[-1]) <= 0.05 * max(abs(curve[-1]), 1e-9)
    done = all(bool(part.settled.all()) for part in parts)
    missed = [part.unexpressed for part in parts if part.unexpressed is not None]
    told = {"unexpressed": float(torch.cat(missed).mean())} if missed else {}
    moved = [part.moved for part in parts if part.moved is not None]
    return Released(
        torch.cat([part.features for part in parts]),
        steps=steps,
        passes=passes,
        curve=curve,
        converged=slow or done,
        details={
            solve: residual,
            "stationarity": float(torch.cat(unsettled).mean()),
            "privacy_loss": float(torch.cat([p.privacy for p in parts]).mean()),
            "utility_loss": float(torch.cat([p.utility for p in parts]).mean()),
            **told,
            **(more or {}),
        },
        per_face={
            "privacy_loss": tuple(torch.cat([part.privacy for part in parts]).tolist()),
            "utility_loss": tuple(torch.cat([part.utility for part in parts]).tolist()),
            **({MOVED: tuple(torch.cat(moved).float().tolist())} if moved else {}),
        },
    )


@dataclass(frozen=True, eq=False)
class Best:
    """The iterate with the least objective of each face."""

    value: Tensor
    features: Tensor
    latents: Tensor
    privacy: Tensor
    utility: Tensor
    slope: Tensor

    @staticmethod
    def start(features: Tensor, latents: Tensor) -> Best:
        """Nothing yet: any iterate is better."""
        worst = torch.full((len(features),), math.inf, device=features.device)
        return Best(worst, features, latents, worst, worst, torch.zeros_like(latents))

    def recharged(self, price: float, privacy: Tensor, slope: Tensor) -> Best:
        """The same iterates where the privacy loss has changed under them."""
        return replace(self, value=price * privacy + self.utility, privacy=privacy, slope=slope)

    def updated(
        self,
        value: Tensor,
        features: Tensor,
        latents: Tensor,
        privacy: Tensor,
        utility: Tensor,
        slope: Tensor,
    ) -> Best:
        """The better of both, face by face."""
        better = value < self.value

        def pick(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(better.view(-1, *([1] * (new.dim() - 1))), new, old)

        return Best(
            pick(value, self.value),
            pick(features, self.features),
            pick(latents, self.latents),
            pick(privacy, self.privacy),
            pick(utility, self.utility),
            pick(slope, self.slope),
        )


@final
class Patience:
    """Which faces go on: one stops when ``turns`` outer steps in a row gained it next to nothing.

    A gain counts from ``tolerance`` times the face's objective on; 0 never stops a face.
    """

    def __init__(self, faces: int, tolerance: float, *, turns: int = 3) -> None:
        self._tolerance, self._turns = tolerance, turns
        self._idle = torch.zeros(faces, dtype=torch.long)

    def saw(self, before: Tensor, now: Tensor) -> None:
        """Takes note of the least objectives (N,) before and after a step."""
        gained = (before - now).cpu() > self._tolerance * now.abs().cpu()
        done = self.settled
        self._idle = torch.where(gained & ~done, 0, self._idle + 1)

    def held(self, moves: Tensor) -> Tensor:
        """Moves (N, ...) with those of settled faces at 0; unlike leaving faces out, that keeps the
        batch, and with it the bits of the others."""
        if self._tolerance <= 0:
            return moves
        still = self.settled.to(moves.device).view(-1, *([1] * (moves.dim() - 1)))
        return torch.where(still, 0.0, moves)

    @property
    def settled(self) -> Tensor:
        """(N,) bool: the faces that have stopped."""
        if self._tolerance <= 0:
            return torch.zeros(len(self._idle), dtype=torch.bool)
        return self._idle >= self._turns
