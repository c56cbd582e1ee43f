"""How good a prior is, held against public faces that it was not trained on.

Pictures are averaged to 8 x 8 and compared by the earth mover's distance E. A plain E(samples,
faces) can't tell a good prior: with some hundred faces in 192 dimensions one mean face lies nearer
to all of them than fresh real faces do. So what a sample owes to its own spread is taken off, as in
the energy distance (Szekely and Rizzo 2013) and Sinkhorn divergences (Genevay et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.maths.emd import emd
from leakaudit.models.best_response import LatentSearch, search
from leakaudit.models.generators import Prior

Draw = Callable[[int, Rng], Tensor]
POOLED = 8
LEAST = 16
MOST = 256
COLLAPSED, NARROW, FAR = 0.5, 0.8, 0.35
"""Diversity below the first is a collapse, below the second narrow; a gap above the third far."""
RECONSTRUCTION = LatentSearch(steps=60, rate=0.05, prior_weight=2e-3)


@dataclass(frozen=True)
class Quality:
    """A prior against held-out faces; all numbers without unit but the two errors.

    With samples S, S', real faces R that were trained on and held-out ones H, ``gap`` is
    ``(2 E(S, H) - E(S, S') - E(R, H)) / E(R, H)``: 0 for more real faces, up to sampling, and
    larger the worse. ``diversity`` is ``E(S, S') / E(R, H)``: 1 where samples differ as real faces
    do, 0 where they are all one. ``error`` and ``mean_error`` are the RMSE a pixel of the best
    reconstructions of held-out faces, and of the mean public face in their place. ``faces`` are on
    each side of a distance.
    """

    gap: float
    diversity: float
    error: float
    mean_error: float
    faces: int

    @property
    def verdict(self) -> str:
        """What the numbers say, in words."""
        if self.has_collapsed:
            return "collapsed: its samples are much more alike than real faces are"
        if self.diversity < NARROW:
            return "narrow: its samples are more alike than real faces are"
        if self.gap > FAR:
            return "far: its samples differ among themselves, and from real faces"
        if self.error > 0.8 * self.mean_error:
            return "blind: it hardly shows a face that it was not trained on"
        return "good: its samples spread as real faces do, and unseen faces are in reach"

    @property
    def has_collapsed(self) -> bool:
        """Whether its samples are hardly different from each other."""
        return self.diversity < COLLAPSED

    @property
    def is_good(self) -> bool:
        """Whether nothing was found wanting."""
        return self.verdict.startswith("good")

    def words(self) -> str:
        """The figures in a line."""
        return (
            f"{self.verdict} (gap {self.gap:.2f}, 0 is best; diversity {self.diversity:.2f}, 1 is "
            f"best; RMSE {self.error:.3f} on held-out faces, {self.mean_error:.3f} by the mean "
            f"face; {self.faces} faces a side)"
        )


def hold_out(images: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
    """Public pictures to train on, and a tenth (16 to 256) that is held out.

    UsageError under 64 pictures.
    """
    if len(images) < 4 * LEAST:
        raise UsageError(
            f"Only {len(images)} public pictures, and a prior needs {4 * LEAST} or more",
            where="--public",
            todo="Give more faces; several hundred people make a usable prior",
        )
    count = min(MOST, max(LEAST, len(images) // 10))
    order = torch.randperm(len(images), generator=rng.torch())
    return images[order[count:].sort().values], images[order[:count].sort().values]


def measure(draw: Draw, rebuilt: Tensor, fit: Tensor, held_out: Tensor, rng: Rng) -> Quality:
    """The figures of a generator that ``draw`` samples from.

    ``fit`` (M, 3, H, W) are what it was trained on, ``held_out`` (K, 3, H, W) what it was not;
    ``rebuilt`` are its best reconstructions of the first of these. M must be K or more.
    """
    count = len(held_out)
    pick = torch.randperm(len(fit), generator=rng.derive("real").torch())[:count]
    real, faces = _pooled(fit[pick]), _pooled(held_out)
    one, other = (_pooled(draw(count, rng.derive("samples", k))) for k in range(2))
    own = float(emd(real, faces))
    spread = float(emd(one, other))
    across = (float(emd(one, faces)) + float(emd(other, faces))) / 2
    few = held_out[: len(rebuilt)]
    error = float((rebuilt - few).square().mean().sqrt())
    mean_error = float((fit.mean(0) - few).square().mean().sqrt())
    gap = (2 * across - spread - own) / own
    return Quality(
        gap=round(gap, 4),
        diversity=round(spread / own, 4),
        error=round(error, 4),
        mean_error=round(mean_error, 4),
        faces=count,
    )


def best_reconstructions(
    prior: Prior, pictures: Tensor, start: Tensor, *, how: LatentSearch = RECONSTRUCTION
) -> Tensor:
    """What the prior can show of pictures (N, 3, H, W), searched from latents (N, latent)."""
    scale = float(pictures.flatten(1).var(0).sum().clamp(min=1e-6))
    found = search(prior, pictures, start, scale=scale, how=how)
    with torch.no_grad():
        made: Tensor = prior(found.latents)
    return made


def _pooled(pictures: Tensor) -> Tensor:
    return fn.adaptive_avg_pool2d(pictures.detach().cpu().float(), POOLED).flatten(1)
