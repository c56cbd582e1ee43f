"""Where an attack's answers lie in the prior's latent space, as a plane that a report draws."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from leakaudit.audit.plan import Plan
from leakaudit.core.rng import Rng
from leakaudit.core.types import LatentMap, MapGroup
from leakaudit.models.subject import Subject

MOST = 200
"""Points a group has at most."""

_DRAWS = 1000


def latent_maps(
    subject: Subject, plan: Plan, latents: Mapping[tuple[str, str], Tensor], *, points: bool
) -> tuple[LatentMap, ...]:
    """The map of the first attack that searched the subject's prior for undefended features.

    Empty without such an attack. Adaptive attacks are left out: they may search another prior.
    Without ``points`` each group keeps its centre and spread only.
    """
    if subject.prior is None:
        return ()
    depth = subject.prior.shape.latent
    for attack in plan.attacks:
        undefended = latents.get(("none", attack.name))
        if attack.holds.adaptive or undefended is None or undefended.flatten(1).shape[1] != depth:
            continue
        crowds: dict[str | None, Tensor] = {
            None: subject.prior.draw(_DRAWS, Rng(plan.seed, ("latent map",))).cpu()
        }
        for named in plan.defences:
            if (named.label, attack.name) in latents:
                crowds[named.label] = latents[named.label, attack.name].flatten(1).float().cpu()
        return (latent_map(attack.name, crowds, points=points),)
    return ()


def latent_map(
    attack: str, crowds: Mapping[str | None, Tensor], *, points: bool = True
) -> LatentMap:
    """The plane through ``crowds`` of latents (n, d) on which they together vary most.

    Principal components of the pooled crowds, each of which weighs the same whatever its size; an
    axis points where its largest loading is positive.
    """
    whole = {name: z.double() for name, z in crowds.items()}
    middle = torch.stack([z.mean(0) for z in whole.values()]).mean(0)
    scaled = [(z - middle) / (len(z) * len(whole)) ** 0.5 for z in whole.values()]
    _, sizes, axes = torch.linalg.svd(torch.cat(scaled), full_matrices=False)
    plane = axes[:2]
    largest = plane.abs().argmax(1, keepdim=True)
    plane = plane * torch.gather(plane, 1, largest).sign()
    shares = sizes**2 / (sizes**2).sum().clamp(min=1e-12)
    groups = tuple(_group(name, (z - middle) @ plane.T, points) for name, z in whole.items())
    explained = (round(float(shares[0]), 4), round(float(shares[1]), 4))
    return LatentMap(attack, len(middle), explained, groups)


def _group(name: str | None, at: Tensor, points: bool) -> MapGroup:
    """A crowd on the plane (n, 2); its points are sorted by place, so none tells whose it is."""
    centre = at.mean(0)
    spread = (at - centre).square().sum(1).mean().sqrt()
    kept = at[torch.linspace(0, len(at) - 1, min(len(at), MOST)).round().long()]
    shown = sorted((round(x, 2), round(y, 2)) for x, y in kept.tolist()) if points else []
    x, y = centre.tolist()
    return MapGroup(name, len(at), (round(x, 3), round(y, 3)), round(float(spread), 3),
                    tuple(shown))  # fmt: skip
