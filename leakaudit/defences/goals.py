"""Whom crafted faces are led to: partners of their own, or a crowd that a batch shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.defences.crafting import SMOOTH, Measures
from leakaudit.maths.transport import Transport


class Goals(ABC):
    """Whom faces are led to: the privacy loss of latents, and its derivative."""

    shared: bool = False
    """Whether faces share a plan, which ``renew`` solves before ``charge`` is asked."""

    @abstractmethod
    def charge(self, made: Tensor) -> Tensor:
        """``L_privacy`` (N,) of pooled faces (N, d), differentiable with the plan held fixed."""

    def renew(self, made: Tensor) -> None:  # noqa: B027 - nothing to do where nothing is shared
        """Solves a shared plan anew for pooled faces (N, d); losses of before no longer hold."""


@final
class Own(Goals):
    """Coupling by image: each face has partners of its own, (N, plan_size, d)."""

    def __init__(self, measures: Measures, partners: Tensor) -> None:
        self._measures, self.partners = measures, partners

    def charge(self, made: Tensor) -> Tensor:
        """Costs by the plan of this face among the stored ones, solved at these faces."""
        cost, shares = self._measures.charged(made, self.partners)
        return (shares * cost).sum(1)


@final
class Shared(Goals):
    """Coupling by batch: one plan (or critic) between all faces and ``goals (m, d)``."""

    shared = True

    def __init__(self, measures: Measures, goals: Tensor, transport: Transport, rng: Rng) -> None:
        self._unit, self._goals = measures.stranger, goals / measures.stranger
        self._transport, self._rng, self._turn = transport, rng, 0

    def renew(self, made: Tensor) -> None:
        """Solves the plan, or trains the critic, between these faces and the goals."""
        self._fitted = self._transport.fit(
            made / self._unit, self._goals, self._rng.derive("critic", self._turn)
        )
        self._turn += 1

    def charge(self, made: Tensor) -> Tensor:
        """Each face's part in the distance between the two crowds."""
        return self._fitted.rows(made / self._unit, self._goals, smooth=SMOOTH)


def privacy(measures: Measures, goals: Goals, z: Tensor) -> tuple[Tensor, Tensor]:
    """``L_privacy`` a face (N,) and its derivative by z (N, latent), the plans held fixed."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        loss = goals.charge(measures.pooled(measures.prior(z)))
        (slope,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), slope
