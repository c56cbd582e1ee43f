"""The last question before "safe": do releases depend on the person at all?

Where no attack names anybody, simple statistics of many releases may still tell two people apart.
If they do, the feature leaks something that no attack here explains.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from leakaudit.core.rng import Rng

PERMUTATIONS = 9999


def dependence(release: Callable[[Tensor, int], Tensor], images: Tensor, people: Tensor, rng: Rng,
               *, releases: int) -> float:  # fmt: skip
    """The p-value of "releases don't depend on the person", by permuting people, in (0, 1].

    ``images`` (M, 3, H, W) are pictures of ``people`` (M,), two or more each; ``release(x, k)``
    gives (k, M, ...). Every picture is told by the mean, the mean magnitude, the sorted values and
    the norms of its releases; pictures of one person must be nearer to each other than to others'.
    The least p-value of the four is multiplied by four (Bonferroni). Source: permutation test
    of distances, Mielke and Berry (MRPP, 1976).
    """
    told = _statistics(release(images, releases).flatten(2))
    same = people[:, None] == people[None, :]
    values = [_p_value(part, same, rng.derive(name)) for name, part in told.items()]
    return min(1.0, len(values) * min(values))


def _statistics(releases: Tensor) -> dict[str, Tensor]:
    """Statistics (M, s) of releases (K, M, d), by name."""
    norms = releases.norm(dim=2)
    return {
        "mean": releases.mean(0),
        "magnitude": releases.abs().mean(0),
        "rank": releases.sort(dim=2).values.mean(0)[:, :: max(1, releases.shape[2] // 256)],
        "norm": torch.stack([norms.mean(0), norms.amin(0), norms.amax(0)], 1),
    }


def _p_value(told: Tensor, same: Tensor, rng: Rng) -> float:
    """How often a random relabelling brings people as close together as they are."""
    scaled = (told - told.mean(0)) / told.std(0).clamp(min=1e-12)
    apart = torch.cdist(scaled.double(), scaled.double())
    upper = torch.ones_like(apart).triu(1).bool()
    within = (same & upper).double()
    seen = float((apart * within).sum())
    generator, hits = rng.torch(), 0
    for _ in range(PERMUTATIONS):
        order = torch.randperm(len(apart), generator=generator)
        hits += float((apart[order][:, order] * within).sum()) <= seen + 1e-9
    return (hits + 1) / (PERMUTATIONS + 1)
