"""What is known of pictures before any feature is seen: smoothness, and how public ones vary.

Letters: x = m + V diag(d) c + A r, with m the mean public picture, V and d the directions and
deviations in which public pictures vary most, and A a filter with the spectrum of what V leaves. In
the coordinates u = (c, r) public pictures are white, so that |u|² is a Gaussian prior on x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

FITTED, HELD_OUT = 1200, 300  # pictures at most: beyond that directions hardly change
LEAST = 1e-3  # deviation of a pixel that public pictures have at least
FLOOR = 0.005  # least deviation of a direction or frequency, as a share of a pixel's deviation


def total_variation(images: Tensor) -> Tensor:
    """Mean length of the step from a pixel to its right and lower neighbours, a face (N,).

    ``images`` (N, C, H, W); the unit is theirs. Source: Rudin, Osher and Fatemi 1992, isotropic,
    with a corner of a thousandth made round.
    """
    right = images.diff(dim=-1)[..., :-1, :]
    down = images.diff(dim=-2)[..., :, :-1]
    return (right.square() + down.square() + 1e-6).sqrt().flatten(1).mean(1)


@final
@dataclass(frozen=True, eq=False)
class PublicSpace:
    """Coordinates (N, width) of pictures (N, C, H, W) in which public ones are white.

    ``mean`` (C, H, W); ``directions`` (k, C·H·W) have unit length, ``deviation`` (k,); ``spectrum``
    (H, W // 2 + 1) is the deviation of the rest at each frequency of the real Fourier transform.
    Source: eigenfaces (Turk and Pentland 1991) and a stationary remainder, as in Wiener's filter.
    """

    mean: Tensor
    directions: Tensor
    deviation: Tensor
    spectrum: Tensor

    @staticmethod
    def fit(public: Tensor, *, directions: int = 400) -> PublicSpace:
        """From public pictures (M, C, H, W); the remainder is what the last fifth of them tells.

        At most a third as many directions as pictures, and none in which they don't vary.
        """
        held = max(1, len(public) // 5)
        fitted = _at_most(public[:-held] if len(public) > held else public, FITTED)
        mean = fitted.mean(0)
        gaps = (fitted - mean).flatten(1)
        typical = max(float(gaps.square().mean().sqrt()), LEAST)
        values, vectors = torch.linalg.eigh((gaps @ gaps.T).double())
        kept = values.flip(0)[: min(directions, len(fitted) // 3)]
        # Rounding leaves directions that aren't there, about 1e-3 of the widest one.
        least = max(FLOOR * typical, 1e-3 * math.sqrt(max(float(values[-1]), 0) / len(gaps)))
        kept = kept[kept > len(gaps) * least**2]
        turned = vectors.flip(1)[:, : len(kept)].to(gaps)
        axes = (turned.T @ gaps) / kept.sqrt().to(gaps)[:, None]
        unseen = (_at_most(public[-held:], HELD_OUT) - mean).flatten(1)
        rest = (unseen - (unseen @ axes.T) @ axes).view(-1, *mean.shape)
        power = torch.fft.rfft2(rest, norm="ortho").abs().square().mean((0, 1))
        spectrum = power.sqrt().clamp(min=FLOOR * typical)
        return PublicSpace(mean, axes, (kept / len(gaps)).sqrt().to(gaps), spectrum)

    @property
    def width(self) -> int:
        """How many coordinates a picture has: more than pixels, so that each can be reached."""
        return len(self.deviation) + self.mean.numel()

    def pictures(self, coordinates: Tensor) -> Tensor:
        """Pictures for coordinates (N, width); they may leave [0, 1]."""
        c, r = coordinates.split([len(self.deviation), self.mean.numel()], dim=1)
        shape = (-1, *self.mean.shape)
        main = _product(c * self.deviation, self.directions).view(shape)
        return self.mean + main + self._filtered(r.reshape(shape), self.spectrum)

    def coordinates(self, images: Tensor) -> Tensor:
        """Coordinates of pictures, so that ``pictures(coordinates(x)) == x``."""
        gaps = (images - self.mean).flatten(1)
        parts = _product(gaps, self.directions.T)
        rest = (gaps - _product(parts, self.directions)).view_as(images)
        return torch.cat(
            [parts / self.deviation, self._filtered(rest, 1 / self.spectrum).flatten(1)], dim=1
        )

    def _filtered(self, images: Tensor, gain: Tensor) -> Tensor:
        waves = torch.fft.rfft2(images, norm="ortho") * gain
        return torch.fft.irfft2(waves, s=self.mean.shape[-2:], norm="ortho")


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """``rows @ matrix``, in products of eight rows each.

    Libraries choose another kernel for another number of rows, with another rounding; a search of a
    hundred steps would make a difference of it between one face and many.
    """
    spare = rows.new_zeros(-len(rows) % 8, rows.shape[1])
    blocks = torch.cat([rows, spare]).split(8)
    return torch.cat([block @ matrix for block in blocks])[: len(rows)]


def _at_most(images: Tensor, count: int) -> Tensor:
    """``count`` pictures spread evenly over all."""
    return images[:: max(1, -(-len(images) // count))]
