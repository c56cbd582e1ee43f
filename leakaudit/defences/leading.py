"""Leading latents to other faces: Gauss-Newton on both losses of the crafted defences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from leakaudit.defences.crafted import Best, Crafted, Patience
from leakaudit.defences.crafting import Measures
from leakaudit.defences.goals import Own
from leakaudit.maths.hypergradient import Linearised, damping_of, gauss_newton
from leakaudit.maths.inverse_hvp import ConjugateGradient, Solution, Solver
from leakaudit.maths.mean_curvature import factor, solved


@final
@dataclass(frozen=True, eq=False)
class Led:
    """Where latents were led: the best iterates, whose ``features`` are ``Enc(G(z))``.

    ``curve`` is the mean of the least objective up to each step, ``residual`` the last step's mean
    relative linear residual, ``settled`` (N,) whether a face stopped before its steps ended,
    ``unexpressed`` (N,) what the prior couldn't express of each face, where that was looked at.
    """

    best: Best
    curve: tuple[float, ...]
    residual: float
    settled: Tensor
    unexpressed: Tensor | None = None

    def crafted(self) -> Crafted:
        """The best iterates as what is released."""
        best = self.best
        return Crafted(
            best.features, best.latents, self.curve, self.residual, best.privacy, best.utility,
            self.settled, self.unexpressed,
        )  # fmt: skip


def inverted(
    measures: Measures, features: Tensor, *, solve: Solver, damping: float,
    linearised: Callable[[Tensor], Linearised] | None = None,
) -> Tensor:  # fmt: skip
    """The simulated adversary's best response (N, latent) to features (N, ...).

    The search is short and leans to the prior, so two damped Gauss-Newton steps follow it, their
    systems by ``solve``, on what ``linearised`` (by default the response's own) says of a latent.
    """

    def made() -> Tensor:
        z = measures.invert(features)
        for _ in range(2):
            at = (linearised or measures.linearised)(z)
            z = z + gauss_newton(at, features, solve=solve, damping=damping).x
        return z

    return measures.once(("inverted", solve, damping), features, made)


def lead(
    measures: Measures, z0: Tensor, aim: Tensor, partners: Tensor, *, price: float, steps: int,
    damping: float, tolerance: float, solve_steps: int, preconditioned: bool = True,
) -> Led:  # fmt: skip
    """Latents near z0 (N, latent) of little ``price L_privacy(G(z)) + |Enc(G(z)) - aim|² / scale``.

    Gauss-Newton on both losses from z0, at most ``steps``, the linear systems by ``solve_steps`` of
    conjugate gradient, ``preconditioned`` by the prior's mean curvature or not. The same curvature
    (else the one along the slope), times a face's own damping, is added: it begins at ``damping``,
    grows where a step failed and falls where it didn't. A face stops when three steps in a row
    gained it less than ``tolerance`` of its objective. Source: Levenberg (1944), Marquardt (1963).
    """
    z, stiff = z0, torch.full((len(z0), 1), damping, dtype=z0.dtype, device=z0.device)
    best, patience = Best.start(aim, z0), Patience(len(z0), tolerance)
    curve, residual = [], 0.0
    for step in range(steps + 1):
        made, loss = _met(measures, z, partners)
        utility = measures.apart(made, aim)
        value = price * loss + utility
        better = (value < best.value)[:, None]
        stiff = torch.where(better, 0.4 * stiff, 4 * stiff).clamp(1e-6, 1e6)
        before = best.value
        best = best.updated(value, made, z, loss, utility, best.slope)
        patience.saw(before, best.value)
        curve.append(float(best.value.mean()))
        if step == steps or bool(patience.settled.all()):
            break
        found = _step(
            measures, best.latents, aim, partners, price=price, stiff=stiff,
            solve_steps=solve_steps, preconditioned=preconditioned,
        )  # fmt: skip
        residual = float(found.residual.mean())
        z = best.latents + patience.held(found.x)
    return Led(best, tuple(curve), residual, patience.settled)


@torch.no_grad()
def _met(measures: Measures, z: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
    """``Enc(G(z))`` (N, ...) and the privacy loss (N,) there."""
    images = measures.prior(z)
    measures.passes += len(z)
    loss = Own(measures, partners).charge(measures.pooled(images))
    made: Tensor = measures.encoder(images)
    return made, loss


def _step(
    measures: Measures, z: Tensor, aim: Tensor, partners: Tensor, *, price: float, stiff: Tensor,
    solve_steps: int, preconditioned: bool,
) -> Solution:  # fmt: skip
    """The Gauss-Newton step (N, latent) of the objective.

    Both losses are squares: the feature's by itself, and the cost c of a partner q by
    ``(|P(z) - q|² / (s c) + s c) / 2``, which lies above it and touches it at z, P(z) the pooled
    face and s a stranger's distance. Together they are one weighted squared distance of the
    stacked vector [Enc(G(z)) / sqrt(scale), P(z) / s].
    """
    width, unit = aim[0].numel(), measures.scale**0.5

    def stacked(z: Tensor) -> Tensor:
        images = measures.prior(z)
        feature = measures.encoder(images).flatten(1) / unit
        return torch.cat([feature, measures.pooled(images) / measures.stranger], 1)

    at = measures.linearised(z, stacked)
    feature, made = at.feature[:, :width], at.feature[:, width:]
    cost, shares = measures.charged(made * measures.stranger, partners)
    pull = 0.5 * price * shares / cost  # (N, plan_size), each partner's spring
    heavy = pull.sum(1, keepdim=True)
    away = heavy * made - (pull.unsqueeze(2) * partners / measures.stranger).sum(1)
    downhill = -at.back(torch.cat([feature - aim.flatten(1) / unit, away], 1))

    def curvature(p: Tensor) -> Tensor:
        way = at.push(p)
        return at.back(torch.cat([way[:, :width], heavy * way[:, width:]], 1))

    if not preconditioned:
        # |J q|² along the slope, as for Crafter; the stacked J has the privacy's part in it too.
        ridge = stiff * damping_of(at, downhill, 1.0)
        plain = ConjugateGradient(solve_steps, 1e-3)
        return plain(lambda p: curvature(p) + ridge * p, downhill)
    feature_curved, face_curved = measures.mean_curvature()
    usual = feature_curved + heavy.unsqueeze(2) * face_curved  # (N, latent, latent)
    nearer = factor(usual)
    solve = ConjugateGradient(solve_steps, 1e-3, precondition=lambda r: solved(nearer, r))
    return solve(lambda p: curvature(p) + stiff * (usual @ p.unsqueeze(2)).squeeze(2), downhill)
