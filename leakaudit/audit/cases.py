"""Small facts about faces and networks that the pipeline needs in more than one place."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from leakaudit.core.errors import InputError


@final
class Passes:
    """How many pictures went through an encoder so far, a backward pass counted as two more.

    A forward pass that will be differentiated counts three; products with a Jacobian that is kept
    (implicit differentiation) aren't seen. ``stop`` takes the counter off again.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self.total = 0
        self._handle = encoder.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        images = inputs[0]
        self.total += len(images) * (3 if output.requires_grad else 1)

    def stop(self) -> None:
        """Count no more."""
        self._handle.remove()


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
