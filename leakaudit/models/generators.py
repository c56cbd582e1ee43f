"""Generators of faces: their sizes, two architectures by name, and the networks that train them.

``shuffle`` doubles by pixel shuffle (Shi et al. 2016, arXiv 1609.05158). ``residual`` doubles by
copying pixels, with a second way around each block, as the generator of WGAN-GP does (Gulrajani et
al. 2017, arXiv 1704.00028). They share no layer but the first linear map.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.checks import at_least
from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.maths.chunks import in_chunks

Stage = Callable[[Tensor], Tensor]
SIDE_STEP = 16
"""Sides of pictures are multiples of this."""


@dataclass(frozen=True)
class PriorShape:
    """Sizes of a prior: picture side (pixels), latent length, channels; ``architecture`` by name.

    The side is a small one, 4 for powers of two and 4 to 15 otherwise, doubled ``stages`` times.
    """

    size: int = 64
    latent: int = 96
    width: int = 32
    architecture: str = "shuffle"

    @property
    def stages(self) -> int:
        """How often the picture doubles from ``start``."""
        return self._halved()[1]

    @property
    def start(self) -> int:
        """The side of the first map, pixels."""
        return self._halved()[0]

    def channels(self, stage: int) -> int:
        """Channels at side ``start * 2**stage``; halved a doubling, ``width`` at half size."""
        return min(self.width * 2 ** (self.stages - 1 - stage), 6 * self.width)

    def _halved(self) -> tuple[int, int]:
        side, times = self.size, 0
        while side % 2 == 0 and side >= 8:
            side, times = side // 2, times + 1
        return side, times


DEFAULTS = {
    "shuffle": PriorShape(),
    "residual": PriorShape(latent=128, width=24, architecture="residual"),
}
"""Each architecture with the widths that it is trained with."""


def default_shape(architecture: str) -> PriorShape:
    """The usual sizes of an architecture; `UnknownNameError` for one that isn't known."""
    if architecture not in DEFAULTS:
        raise UnknownNameError("architecture", architecture, DEFAULTS, where="--architecture")
    return DEFAULTS[architecture]


def check_side(size: int, *, least: int = 32, where: str = "--input-size") -> None:
    """`UsageError` unless pictures of this side can be generated, decoded and judged."""
    if size < least or size % SIDE_STEP:
        below = max(least, size // SIDE_STEP * SIDE_STEP)
        near = str(below) if size < below else f"{below} or {below + SIDE_STEP}"
        raise UsageError(
            f"A picture's side is a multiple of {SIDE_STEP} from {least} on, not {size}",
            where=where,
            todo=f"Take {near}",
        )


class FaceGenerator(nn.Module, ABC):
    """``G(z)``: latents (N, latent), standard normal, to faces (N, 3, size, size) in [0, 1].

    ``first`` is the linear map that latents enter by, so that a linear change of latents can be
    folded into it.
    """

    def __init__(self, shape: PriorShape) -> None:
        super().__init__()
        check_side(shape.size, least=SIDE_STEP, where="the prior's size")
        at_least("prior", 1, latent=shape.latent, width=shape.width)
        self.shape = shape
        self.first = nn.Linear(shape.latent, shape.channels(0) * shape.start**2)

    def forward(self, z: Tensor) -> Tensor:
        """Faces (N, 3, size, size) in [0, 1]."""
        x = z
        for stage in self.stages():
            x = stage(x)
        return x

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """``forward`` cut where activations can be searched: latent, 4x4, 8x8, ..., picture."""

    def _map(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, self.shape.start, self.shape.start)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8 if channels % 8 == 0 else 1, channels)


class _UpBlock(nn.Module):
    """Doubles the side: convolution to four times the channels, then pixel shuffle."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 3, padding=1)
        self.norm = _norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return fn.silu(self.norm(fn.pixel_shuffle(self.conv(x), 2)))


@final
class Generator(FaceGenerator):
    """``shuffle``: pixel shuffle all the way up, the picture from half its side."""

    def __init__(self, shape: PriorShape) -> None:
        super().__init__(shape)
        self.blocks = nn.ModuleList(
            _UpBlock(shape.channels(k), shape.channels(k + 1)) for k in range(shape.stages - 1)
        )
        last = shape.channels(shape.stages - 1)
        self.mix = nn.Conv2d(last, last, 3, padding=1)
        self.to_rgb = nn.Conv2d(last, 12, 3, padding=1)

    def stages(self) -> tuple[Stage, ...]:
        """Latent to the first map, each doubling, the picture."""
        return (self._opening, *self.blocks, self._picture)

    def _opening(self, z: Tensor) -> Tensor:
        return self._map(fn.silu(self.first(z)))

    def _picture(self, x: Tensor) -> Tensor:
        x = x + fn.silu(self.mix(x))
        return torch.sigmoid(fn.pixel_shuffle(self.to_rgb(x), 2))


class _ResidualUp(nn.Module):
    """Doubles the side by copying pixels; two convolutions correct what goes around them."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels_in), _norm(channels_out)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.around = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = fn.interpolate(fn.leaky_relu(self.norm1(x), 0.2), scale_factor=2.0, mode="nearest")
        y = self.conv2(fn.leaky_relu(self.norm2(self.conv1(y)), 0.2))
        # One by one, so that it may come before the copying, at a quarter of the cost.
        return y + fn.interpolate(self.around(x), scale_factor=2.0, mode="nearest")


@final
class ResidualGenerator(FaceGenerator):
    """``residual``: nearest-neighbour doubling in residual blocks, the picture at its own side."""

    def __init__(self, shape: PriorShape) -> None:
        super().__init__(shape)
        widths = [shape.channels(k) for k in range(shape.stages)]
        widths.append(max(8, shape.width // 2))
        self.blocks = nn.ModuleList(_ResidualUp(a, b) for a, b in itertools.pairwise(widths))
        self.norm = _norm(widths[-1])
        self.to_rgb = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def stages(self) -> tuple[Stage, ...]:
        """Latent to the first map, each doubling, the picture."""
        return (self._opening, *self.blocks, self._picture)

    def _opening(self, z: Tensor) -> Tensor:
        return self._map(self.first(z))

    def _picture(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.to_rgb(fn.leaky_relu(self.norm(x), 0.2)))


ARCHITECTURES: dict[str, type[FaceGenerator]] = {
    "shuffle": Generator,
    "residual": ResidualGenerator,
}


def make_generator(shape: PriorShape) -> FaceGenerator:
    """An untrained generator of this shape; `UnknownNameError` for an unknown architecture."""
    default_shape(shape.architecture)
    return ARCHITECTURES[shape.architecture](shape)


class Pyramid(nn.Module):
    """Strided convolutions from a picture to a vector of ``outputs`` numbers."""

    def __init__(self, shape: PriorShape, outputs: int) -> None:
        super().__init__()
        widths = [3, *(shape.channels(k) for k in reversed(range(shape.stages)))]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.last = nn.Linear(widths[-1] * shape.start**2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers (N, outputs) of pictures (N, 3, size, size) in [0, 1]."""
        x = 2 * x - 1
        for conv in self.convs:
            x = fn.leaky_relu(conv(x), 0.2)
        return self.last(x.flatten(1))


@final
class Critic(nn.Module):
    """``D(x)``: how much a picture (N, 3, size, size) looks like a public face, (N,)."""

    def __init__(self, shape: PriorShape) -> None:
        super().__init__()
        self.pyramid = Pyramid(PriorShape(shape.size, shape.latent, shape.width // 2), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,), larger for public faces."""
        return self.pyramid(x).squeeze(1)


@final
class Prior(nn.Module):
    """A generator with the standard normal on its latents, and the critic that trained it.

    ``generator`` is one of another make, such as a user's own; it comes without a critic. It maps
    latents to pictures and has ``stages()``.
    """

    generator: nn.Module

    def __init__(self, shape: PriorShape, generator: nn.Module | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.generator = make_generator(shape) if generator is None else generator
        self.critic = Critic(shape) if generator is None else None

    def forward(self, z: Tensor) -> Tensor:
        """Faces (N, 3, size, size) in [0, 1] for latents (N, latent)."""
        return self.generator(z)

    def stages(self) -> tuple[Stage, ...]:
        """``forward`` in stages, the latent's first; one of another make may have one only."""
        found: tuple[Stage, ...] = self.generator.stages()  # type: ignore[operator]
        return found

    def draw(self, count: int, rng: Rng) -> Tensor:
        """Latents (count, latent) from the standard normal."""
        like = next(itertools.chain(self.parameters(), self.buffers()), torch.zeros(()))
        kind = like.dtype if like.is_floating_point() else torch.float32
        z = rng.normal(count, self.shape.latent)
        return z.to(device=like.device, dtype=kind)

    @torch.no_grad()
    def sample(self, count: int, rng: Rng, *, batch: int = 128) -> Tensor:
        """Faces (count, 3, size, size) from the prior."""
        return in_chunks(self, self.draw(count, rng), batch)
