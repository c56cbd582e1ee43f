"""L-BFGS for many faces at once, one loss a step: each face moves, or tries a shorter step.

Letters, as in Nocedal and Wright 2006, chapter 7: a step s, the change y of the gradient along it,
rho = 1 / y's, and gamma = y's / y'y, the length of the inverse Hessian's first guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

SUFFICIENT = 1e-4  # share of the promised fall that a step must bring (Armijo)
SHRINK = (0.1, 0.5)  # how much shorter a refused step is tried again
PATIENT = 5  # refusals in a row after which the memory of curvature is dropped


@dataclass(frozen=True, eq=False)
class State:
    """Faces under way: where each stands, where it looks, and what it remembers of curvature.

    ``index`` (n,) says which faces; ``points``, ``slope`` and ``direction`` are (n, width), ``s``
    and ``y`` (n, memory, width), ``rho`` (n, memory), the others (n,). ``length`` is the share of
    ``direction`` that is tried next, ``refused`` how often in a row it was refused.
    """

    index: Tensor
    points: Tensor
    loss: Tensor
    slope: Tensor
    direction: Tensor
    length: Tensor
    refused: Tensor
    gamma: Tensor
    s: Tensor
    y: Tensor
    rho: Tensor

    def only(self, kept: Tensor) -> State:
        """The faces of this mask (n,)."""
        return replace(self, **{f.name: getattr(self, f.name)[kept] for f in fields(self)})


def begun(
    index: Tensor, points: Tensor, loss: Tensor, slope: Tensor, *, rate: float, memory: int
) -> State:
    """Faces at their start, about to step downhill by ``rate``, root mean square."""
    count, width = points.shape
    steps = points.new_zeros(count, memory, width)
    return State(
        index=index,
        points=points,
        loss=loss,
        slope=slope,
        direction=_downhill(slope, rate),
        length=torch.ones_like(loss),
        refused=torch.zeros_like(index),
        gamma=torch.ones_like(loss),
        s=steps,
        y=steps.clone(),
        rho=points.new_zeros(count, memory),
    )


def moved(
    state: State, tried: Tensor, value: Tensor, slope: Tensor, *, slot: int, rate: float
) -> State:
    """Each face at the point it tried, if the loss fell enough; then where it tries next.

    ``slot`` is where this step is remembered; ``state``'s memory is changed in place.
    """
    s, y = tried - state.points, slope - state.slope
    promised = (s * state.slope).sum(1)
    taken = (value <= state.loss + SUFFICIENT * promised) & (promised < 0)
    curvature, size = (s * y).sum(1), s.norm(dim=1) * y.norm(dim=1)
    bent = taken & (curvature > 1e-8 * size) & (size > 0)
    # A refused or a flat step leaves its slot empty: with rho = 0 it takes no part in the product.
    state.s[:, slot] = torch.where(bent[:, None], s, 0.0)
    state.y[:, slot] = torch.where(bent[:, None], y, 0.0)
    state.rho[:, slot] = torch.where(bent, 1 / curvature, 0.0)
    state.gamma[bent] = (curvature / y.square().sum(1))[bent]
    shorter = (-0.5 * promised / (value - state.loss - promised)).nan_to_num(SHRINK[0])
    refused = torch.where(taken, 0, state.refused + 1)
    state = replace(
        state,
        points=torch.where(taken[:, None], tried, state.points),
        loss=torch.where(taken, value, state.loss),
        slope=torch.where(taken[:, None], slope, state.slope),
        length=torch.where(taken, 1.0, state.length * shorter.clamp(*SHRINK)),
        refused=refused,
    )
    return _aimed(state, taken, newest=slot, rate=rate)


def _aimed(state: State, taken: Tensor, *, newest: int, rate: float) -> State:
    """New directions for the faces that moved, and for those that were refused again and again."""
    lost = (state.refused > 0) & (state.refused % PATIENT == 0)
    state.rho[lost] = 0.0
    newton = _times_inverse_hessian(state, newest)
    promised = -(newton * state.slope).sum(1)
    blind = lost | ~(promised < 0) | (state.rho == 0).all(1)
    downhill = _downhill(state.slope, rate)
    renewed = torch.where(blind[:, None], downhill, -newton)
    turned = (taken | lost)[:, None]
    # Who is lost goes no farther downhill than it last dared.
    dared = state.length * state.direction.norm(dim=1) / downhill.norm(dim=1).clamp(min=1e-30)
    return replace(
        state,
        direction=torch.where(turned, renewed, state.direction),
        length=torch.where(lost, dared.clamp(max=1.0), state.length),
    )


def _times_inverse_hessian(state: State, newest: int) -> Tensor:
    """L-BFGS's inverse Hessian times the slopes (n, width), by its two loops over the memory."""
    memory = state.rho.shape[1]
    slots = [(newest - age) % memory for age in range(memory)]
    q, alphas = state.slope.clone(), {}
    for slot in slots:
        alphas[slot] = state.rho[:, slot] * (state.s[:, slot] * q).sum(1)
        q -= alphas[slot][:, None] * state.y[:, slot]
    q *= state.gamma[:, None]
    for slot in reversed(slots):
        beta = state.rho[:, slot] * (state.y[:, slot] * q).sum(1)
        q += (alphas[slot] - beta)[:, None] * state.s[:, slot]
    return q


def _downhill(slope: Tensor, rate: float) -> Tensor:
    """Steepest descent by ``rate``, root mean square; zero where the slope is zero."""
    size = slope.norm(dim=1, keepdim=True)
    return -rate * math.sqrt(slope.shape[1]) * slope / torch.where(size > 0, size, 1.0)
