"""What an adaptive adversary learns from: his public pictures, and their releases."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, AdaptiveWhiteBox, Informed
from leakaudit.maths.chunks import in_chunks

Adaptive = AdaptiveBlackBox | AdaptiveWhiteBox | Informed
ORDER = Rng(0, ("attacks", "queries"))
"""One order of the public pictures for all adaptive attacks, so that they share their queries."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Public pictures, their clean features, and their releases.

    ``images`` (Q, 3, H, W), ``clean`` (Q, ...), ``released`` (K, Q, ...); ``fit`` and ``held_out``
    split the Q rows: fit on the first, choose and stop by the others.
    """

    images: Tensor
    clean: Tensor
    released: Tensor
    fit: Tensor
    held_out: Tensor


def released_pairs(held: Adaptive, count: int, *, releases: int = 1, batch: int = 64) -> Pairs:
    """``count`` public pictures (or all there are) sent through the defence ``releases`` times.

    A fifth of them, from 4 to 64, is held out. Raises UsageError under eight public pictures.
    """
    if min(count, len(held.public)) < 8:
        raise UsageError("An adaptive attack needs at least 8 public pictures to query with")
    images = queried(held.public, count)
    with torch.no_grad():
        ask = held.encoder if isinstance(held, AdaptiveWhiteBox) else held.query
        clean = in_chunks(ask, images, batch)
        released = held.release(images, releases)
    index = torch.arange(len(images), device=images.device)
    kept = held_out(len(images))
    return Pairs(images, clean, released, index[kept:], index[:kept])


def queried(public: Tensor, count: int) -> Tensor:
    """The first ``count`` public pictures in the order in which all adaptive attacks ask."""
    order = torch.randperm(len(public), generator=ORDER.torch())[:count]
    return public[order.to(public.device)]


MOST_HELD_OUT = 64
"""No more pictures than these need to judge."""
APART = 8
"""At most one public picture of this many is kept from networks that learn from clean ones."""


def held_out(count: int) -> int:
    """How many of ``count`` queried pictures, the first ones, nothing is fitted on."""
    return max(4, min(MOST_HELD_OUT, count // 5))


def learnable(public: Tensor) -> Tensor:
    """Public pictures (M, 3, H, W) without the first ones in the order of queries.

    They judge adaptive attacks, which start from what learnt from these: a network's pictures of
    what it was trained on say too much for it. At most an eighth is kept out.
    """
    order = torch.randperm(len(public), generator=ORDER.torch())
    count = min(MOST_HELD_OUT, len(public) // APART)
    return public[order[count:].sort().values.to(public.device)]
