"""Small facts about faces and networks that the pipeline needs in more than one place."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from leakaudit.core.errors import InputError


def fingerprint(module: nn.Module) -> str:
    """A hash of all parameters and buffers, by name."""
    state = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def thinned(curve: tuple[float, ...], points: int = 24) -> tuple[float, ...]:
    """At most ``points`` evenly spaced values of a curve, the last one among them."""
    if len(curve) <= points:
        return tuple(round(v, 6) for v in curve)
    places = [round(k * (len(curve) - 1) / (points - 1)) for k in range(points)]
    return tuple(round(curve[k], 6) for k in places)


def another_person(people: Tensor) -> Tensor:
    """An order (N,) in which each face meets a picture of somebody else.

    Raises InputError where one person owns more than half of the pictures.
    """
    order = torch.argsort(people, stable=True)
    sizes = torch.bincount(people)
    shift = int(sizes.max())
    if 2 * shift > len(people):
        raise InputError(
            "One person owns more than half of the attacked pictures",
            todo="Give at least two people with about as many pictures each",
        )
    result = torch.empty_like(order)
    result[order] = order.roll(-shift)
    return result
