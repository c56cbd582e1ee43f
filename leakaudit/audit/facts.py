"""What doubts are told beside scores: gradients, variance, twins, and how defences behave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from leakaudit.maths.chunks import in_chunks
from leakaudit.models.encoder import SplitEncoder, steepest
from leakaudit.models.overlap import overlap
from leakaudit.models.subject import Subject

STEPS = (1e-3, 3e-3, 1e-2, 3e-2)
"""Root mean square change of a pixel by which finite differences are taken."""
AGREEING = 0.3
"""How far gradient and finite difference may differ, relative to the larger one."""


@dataclass(frozen=True)
class CleanChecks:
    """Whether gradients are of use, whether features vary, and how many pictures have twins.

    ``gradient_ok`` is False where the gradient from feature to picture is zero, NaN, missing, or
    not that of the encoder by finite differences.
    """

    gradient_ok: bool
    features_vary: bool
    twins: int

    @staticmethod
    def of(subject: Subject) -> CleanChecks:
        """Checks on a few public pictures and on all attacked ones."""
        with torch.no_grad():
            features = subject.query(subject.public[:64]).flatten(1)
        spread = float(features.std(0).max()) if len(features) > 1 else 0.0
        vary = spread > 1e-6 * max(1e-12, float(features.abs().mean()))
        twins = len(overlap(subject.faces, subject.public, public_marks=subject.public_marks))
        return CleanChecks(_gradient_ok(subject.encoder, subject.public[:8]), vary, twins)


@dataclass(frozen=True)
class Facts:
    """What the run saw of subject and defences, beside scores and convergence.

    ``random`` and ``moved`` are labels of defences whose releases of one picture differ, and of
    those that permute a batch; ``dependence`` gives the p-value of "releases don't depend on the
    person" where it was tested. ``reached`` is the head's mean AUC on undefended features.
    """

    checks: CleanChecks
    random: frozenset[str] = frozenset()
    moved: frozenset[str] = frozenset()
    dependence: Mapping[str, float] = field(default_factory=dict)
    reached: float | None = None


def _gradient_ok(encoder: nn.Module, images: Tensor) -> bool:
    """Whether the gradient of ``|Enc(x)|²`` is there and leads where it says, on most pictures.

    An encoder that says itself that it has none is left to the black box, and isn't doubted.
    """
    if isinstance(encoder, SplitEncoder) and not encoder.differentiable:
        return True

    try:
        slope = in_chunks(partial(steepest, encoder), images, len(images))
    except RuntimeError:
        return False
    if not bool(slope.isfinite().all()) or float(slope.abs().max()) == 0:
        return False

    @torch.no_grad()
    def energy(x: Tensor) -> Tensor:
        return encoder(x).flatten(1).double().square().sum(1)

    def energies(x: Tensor) -> Tensor:
        return in_chunks(energy, x, len(x))

    return bool(_leads(energies, images.detach(), slope).double().mean() > 0.5)


def _leads(energy: Callable[[Tensor], Tensor], images: Tensor, slope: Tensor) -> Tensor:
    """For each picture (N,), whether a step along ``slope`` changes ``energy`` as ``slope`` says.

    Kinks and rounding spoil some step lengths, so that one that agrees is enough.
    """
    scale = slope.flatten(1).square().mean(1).sqrt().clamp(min=1e-30)
    way = slope / scale[:, None, None, None]
    told = (slope * way).flatten(1).double().sum(1)
    agreed = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for step in STEPS:
        seen = (energy(images + step * way) - energy(images - step * way)) / (2 * step)
        agreed |= (seen - told).abs() <= AGREEING * torch.maximum(seen.abs(), told.abs())
    return agreed
