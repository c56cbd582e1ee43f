"""A stand-in for a defence, learnt from few queries: it releases as many pictures as one likes.

Few pairs can't teach a map from releases back to pictures. They can teach what the defence adds to
a feature, and clean features of public pictures cost no query: so the adversary learns the defence
forwards, and the way back on releases that he makes himself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.maths.local_ridge import LocalRidge
from leakaudit.maths.matching import Matching

Map = Callable[[Tensor], Tensor]
"""Features (N, ...) to features or rows (N, k); row i depends on feature i only."""
COMPARED = 500_000_000
"""Pairs of elements that are compared at most: 22,000 elements with as many."""


@final
@dataclass(frozen=True, eq=False)
class StandIn:
    """What a defence does to a feature, as far as pairs tell.

    ``expected`` maps clean features (N, ...) to their mean release; ``offsets`` (Q, ...), of mean
    zero, are how the observed releases differed from it.
    """

    label: str
    expected: Map
    offsets: Tensor

    def draw(self, clean: Tensor, rng: Rng) -> Tensor:
        """Made-up releases (N, ...) of clean features (N, ...): each with one of the offsets."""
        pick = torch.randint(len(self.offsets), (len(clean),), generator=rng.torch())
        return self.expected(clean) + self.offsets[pick.to(clean.device)]


def stand_ins(clean: Tensor, released: Tensor, *, thorough: bool = True) -> list[StandIn]:
    """Stand-ins from pairs (Q, ...), in closed form, the plainest first.

    *Moved* adds offsets alone, *filtered* is a 3x3 convolution, *rearranged* takes each element
    from the most correlated one. A release of another shape can't have been moved only. Without
    ``thorough`` it is the first that fits.
    """
    found = []
    if clean.shape == released.shape:
        found.append(_shifted("moved", lambda f: f, clean, released))
    if are_maps(clean, released) and (thorough or not found):
        found.append(_shifted("filtered", filtered(clean, released), clean, released))
    if can_rearrange(clean, released) and (thorough or not found):
        found.append(_shifted("rearranged", rearranged(clean, released), clean, released))
    return found


def are_maps(inputs: Tensor, targets: Tensor) -> bool:
    """Whether both are maps (Q, C, h, w) of one height and width."""
    return inputs.dim() == targets.dim() == 4 and inputs.shape[2:] == targets.shape[2:]


def can_rearrange(inputs: Tensor, targets: Tensor) -> bool:
    """Whether comparing each element with each takes seconds, and there is something to compare."""
    return inputs[0].numel() * targets[0].numel() <= COMPARED and len(inputs) >= 3


def filtered(inputs: Tensor, targets: Tensor) -> Map:
    """A 3x3 convolution between maps (Q, C, h, w), as a correction where channels are as many."""
    same = inputs.shape == targets.shape
    local = LocalRidge.fit(inputs, targets - inputs if same else targets, side=3)
    return (lambda f: f + local(f)) if same else local


def rearranged(inputs: Tensor, targets: Tensor) -> Map:
    """Each element of the targets (Q, ...) as a line of one element of the inputs (Q, ...)."""
    matching, shape = Matching.fit(inputs, targets), targets.shape[1:]
    return lambda f: matching(f).view(-1, *shape)


def _shifted(label: str, expected: Map, clean: Tensor, released: Tensor) -> StandIn:
    offsets = released - expected(clean)
    mean = offsets.mean(0)
    return StandIn(label, lambda f: expected(f) + mean, offsets - mean)
