"""A user's own generator as the prior: found by SPEC, tried at the door, and wrapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.models.generators import Prior, PriorShape, Stage
from leakaudit.models.modules import load_module
from leakaudit.models.programs import ENDINGS
from leakaudit.models.published import PUBLISHERS
from leakaudit.models.users_code import users_code

TRIED = 8
ROUNDING = 1e-3
"""How far pictures may leave [0, 1], and differ by what else is in a batch."""


@final
class OwnGenerator(nn.Module):
    """A user's network, kept within [0, 1]; nothing is known of its inside but the latent."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        """Faces (N, 3, size, size) in [0, 1] for latents (N, latent)."""
        made: Tensor = self.network(z)
        return made.clamp(0, 1)

    def stages(self) -> tuple[Stage, ...]:
        """One stage: all of it."""
        return (self,)


def load_own_prior(spec: str, weights: Path | None, *, size: int) -> Prior:
    """The prior that ``spec`` (``file.py:factory`` or ``pkg.mod:factory``) names, tried.

    The factory's network maps latents (N, L) from the standard normal to pictures (N, 3, size,
    size) in [0, 1]; its attribute ``latent`` says L. Raises UsageError, with what is wrong, for
    pictures of another shape or range, that aren't finite, differ from call to call or by what else
    is in the batch, are all the same, or have no gradient to the latent.
    """
    kind, _, name = spec.rpartition(":")
    if spec.endswith(ENDINGS) or kind in PUBLISHERS or not kind or not name.isidentifier():
        raise UsageError(
            f"'{spec}' doesn't name a generator",
            where="--prior",
            todo="Give file.py:factory or pkg.mod:factory with --prior-weights FILE, or the file "
            "of a prior that leakaudit trained",
        )
    network = load_module(spec, weights)
    told = f"{Path(kind).name}:{name}"
    return wrapped(network, _latent_of(network, told), size=size, told=told)


def wrapped(
    network: nn.Module, latent: int, *, size: int | None = None, told: str = "the generator"
) -> Prior:
    """A network of one's own as the prior, tried as `load_own_prior` says.

    Without ``size`` it is that of the pictures which the network makes.
    """
    if size is None:
        with users_code(told), torch.no_grad():
            made = network(torch.zeros(1, latent))
        found = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        if not isinstance(made, Tensor) or made.dim() != 4 or made.shape[:2] != (1, 3):
            raise _refused(f"gives {found} for a latent of {latent}, and not a picture", told)
        size = made.shape[-1]
    shape = PriorShape(size=size, latent=latent, width=1, architecture=told)
    prior = Prior(shape, OwnGenerator(network)).eval()
    _try(network, prior.draw(TRIED, Rng(0, ("own prior",))), told, size)
    return prior


def _latent_of(network: nn.Module, told: str) -> int:
    latent: Any = getattr(network, "latent", None)
    if isinstance(latent, bool) or not isinstance(latent, int) or latent < 1:
        said = "doesn't say" if latent is None else f"says '{latent}' of"
        raise UsageError(
            f"The generator {said} how long its latent is",
            where=told,
            todo="Set the attribute latent of the network, such as self.latent = 128",
        )
    return latent


def _try(network: nn.Module, z: Tensor, told: str, size: int) -> None:
    with users_code(f"The generator on latents of shape {tuple(z.shape)}"), torch.no_grad():
        made, again, alone = network(z), network(z), [network(row[None]) for row in z[:3]]
    _check_pictures(made, told, size)
    if float((made - again).abs().max()) > ROUNDING:
        raise _refused("gives another picture for the same latent each time", told)
    if float((torch.cat(alone) - made[:3]).abs().max()) > ROUNDING:
        raise _refused("gives a picture that depends on what else is in the batch", told)
    if float((made - made[:1]).abs().max()) <= 1e-6:
        raise _refused("gives the same picture for every latent", told)
    probe = z.clone().requires_grad_()
    with users_code(f"The generator {told}"), torch.enable_grad():
        answer = network(probe)
    slope = torch.autograd.grad(answer.sum(), probe)[0] if answer.requires_grad else None
    if slope is None or not bool(slope.isfinite().all()):
        raise _refused("has no finite gradient to its latent, which attacks search", told)


def _check_pictures(made: Any, told: str, size: int) -> None:
    wanted = (TRIED, 3, size, size)
    if not isinstance(made, Tensor) or not made.is_floating_point():
        kind = made.dtype if isinstance(made, Tensor) else type(made).__name__
        raise _refused(f"gives {kind}, not a tensor of floating numbers", told)
    if tuple(made.shape) != wanted:
        advice = f"; say --input-size {made.shape[-1]}" if made.dim() == 4 else ""
        raise _refused(f"gives {tuple(made.shape)} and not {wanted}{advice}", told)
    if not bool(made.isfinite().all()):
        raise _refused("gives NaN or infinite numbers", told)
    low, high = float(made.min()), float(made.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise _refused(
            f"gives pictures from {low:.2f} to {high:.2f}, and they must be in [0, 1]", told,
            "Where they are in [-1, 1], return (x + 1) / 2",
        )  # fmt: skip


_MEND = "Mend the network, or give another prior"


def _refused(what: str, told: str, todo: str = _MEND) -> UsageError:
    return UsageError(f"The generator {what}", where=told, todo=todo)
