"""A second architecture of decoder: every element of the feature may reach every pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.rng import Rng
from leakaudit.models.eigenfaces import Eigenfaces

PATCH = 4
"""Pixels across that the correction sees as one position."""


@final
class MixingDecoder(nn.Module):
    """Features of any shape to pictures (N, 3, H, W) in [0, 1].

    A stem, such as a dense regression in closed form, maps features (N, ...) to latents (N, k) of
    eigenfaces; they make a first picture. A few convolutions at a quarter of its side correct it
    through nearest-neighbour upsampling; before training they correct nothing. It shares no layer
    with :class:`leakaudit.models.decoder.Decoder` and, where the stem is dense, no locality, so
    that noise made against one misses the other.
    """

    def __init__(
        self, stem: Callable[[Tensor], Tensor], faces: Eigenfaces, *, width: int = 48
    ) -> None:
        super().__init__()

        @torch.no_grad()
        def first(features: Tensor) -> Tensor:
            return faces.unclamped(stem(features))

        self._first = first  # a closure, so that a copy to be trained shares the stem
        self.look = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.think = nn.Conv2d(width, width, 3, padding=1)
        self.fine = nn.Conv2d(width, width // 2, 3, padding=1)
        self.last = nn.Conv2d(width // 2, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Pictures (N, 3, H, W)."""
        first = self._first(features)
        height, width = first.shape[-2:]
        x = fn.pad(first - 0.5, (0, -width % PATCH, 0, -height % PATCH))
        x = fn.gelu(self.look(x))
        x = x + fn.gelu(self.think(x))
        x = fn.gelu(self.fine(fn.interpolate(x, scale_factor=2.0, mode="nearest")))
        x = self.last(fn.interpolate(x, scale_factor=2.0, mode="nearest"))
        return (first + x[..., :height, :width]).clamp(0, 1)


def mixing_decoder(
    stem: Callable[[Tensor], Tensor], faces: Eigenfaces, *, rng: Rng
) -> MixingDecoder:
    """One with this stem, on the device of ``faces``; its correction is untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.state)
        return MixingDecoder(stem, faces).to(faces.mean.device)
