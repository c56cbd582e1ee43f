"""The decoder of the black-box attack: from features back to pictures, trained on public pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.rng import Rng


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(fn.silu(self.conv1(fn.silu(x))))


@final
class Decoder(nn.Module):
    """Features to pictures (N, 3, size, size) in [0, 1].

    Spatial features (C, h, w) pass a residual block and then double (pixel shuffle) until the
    picture's side; vectors (d,) first become a 4x4 map. Features are standardised per element
    by the mean and deviation over public features.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, *, size: int, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        shape = tuple(mean.shape)
        side = shape[-1] if len(shape) == 3 else 4
        self.vector = None if len(shape) == 3 else nn.Linear(mean.numel(), 2 * width * 16)
        channels = shape[0] if len(shape) == 3 else 2 * width
        doublings = max(0, math.ceil(math.log2(size / side)))
        self.start = nn.Conv2d(channels, width, 3, padding=1)
        self.body = _Residual(width)
        ups: list[nn.Module] = []
        for k in range(doublings):
            out = 12 if k == doublings - 1 else 4 * max(width // 2 ** (k + 1), 24)
            ups += [nn.SiLU(), nn.Conv2d(width, out, 3, padding=1), nn.PixelShuffle(2)]
            width = out // 4
        if doublings == 0:
            ups = [nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1)]
        self.ups = nn.Sequential(*ups)
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """Pictures (N, 3, size, size)."""
        x = (features - self.mean) / self.deviation
        if self.vector is not None:
            x = self.vector(x.flatten(1)).view(len(x), -1, 4, 4)
        x = self.ups(self.body(self.start(x)))
        if x.shape[-1] != self.size:
            x = fn.interpolate(x, size=(self.size, self.size), mode="bilinear")
        return torch.sigmoid(x)


@dataclass(frozen=True)
class DecoderTraining:
    """How a decoder is trained: Adam, cosine rate, MSE plus ``ssim_weight`` times (1 - SSIM)."""

    steps: int = 300
    batch: int = 48
    rate: float = 2e-3
    ssim_weight: float = 0.1
    held_out: float = 0.05

    def __post_init__(self) -> None:
        at_least("decoder training", 1, steps=self.steps, batch=self.batch)
        at_least("decoder training", 0, ssim_weight=self.ssim_weight, held_out=self.held_out)
        above_zero("decoder training", rate=self.rate)


@dataclass(frozen=True)
class DecoderLog:
    """Curves of a training: training loss, and held-out loss before and after."""

    curve: tuple[float, ...]
    held_out: tuple[float, ...]


def decoder_loss(made: Tensor, true: Tensor, *, ssim_weight: float) -> Tensor:
    """Mean squared error plus the structural term, one number a picture (N,)."""
    mse = (made - true).square().flatten(1).mean(1)
    return mse + ssim_weight * (1 - ssim_map(made, true).flatten(1).mean(1))


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) a pixel and channel, 11-tap Gaussian, sigma 1.5."""
    taps = torch.arange(-5, 6, dtype=a.dtype, device=a.device)
    kernel = torch.exp(-(taps**2) / (2 * 1.5**2))
    kernel = kernel / kernel.sum()
    channels = a.shape[1]

    def smooth(x: Tensor) -> Tensor:
        x = fn.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        return fn.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)

    ma, mb = smooth(a), smooth(b)
    va, vb = smooth(a * a) - ma * ma, smooth(b * b) - mb * mb
    cov = smooth(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))


def train_decoder(
    features: Tensor,
    images: Tensor,
    *,
    training: DecoderTraining,
    rng: Rng,
    report: Callable[[int], None] = lambda step: None,
) -> tuple[Decoder, DecoderLog]:
    """A decoder trained on public pairs: features (M, ...) of images (M, 3, H, W)."""
    generator = rng.torch()
    order = torch.randperm(len(images), generator=generator)
    held = max(1, int(training.held_out * len(images)))
    held_index, train_index = order[:held], order[held:] if len(order) > held else order
    mean = features.mean(0)
    deviation = features.std(0).clamp(min=1e-2 * float(features.std()) + 1e-8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive("init").state)
        decoder = Decoder(mean.cpu(), deviation.cpu(), size=images.shape[-1])
    decoder.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(decoder.parameters(), lr=training.rate)
    curve: list[float] = []
    checks: list[float] = []
    for step in range(training.steps):
        share = step / training.steps
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / 20)
            group["lr"] = training.rate * warm * max(0.01, 0.5 * (1 + math.cos(math.pi * share)))
        pick = torch.randint(len(train_index), (training.batch,), generator=generator)
        index = train_index[pick].to(images.device)
        loss = decoder_loss(
            decoder(features[index]), images[index], ssim_weight=training.ssim_weight
        ).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        curve.append(float(loss.detach()))
        if step % max(1, training.steps // 10) == 0 or step == training.steps - 1:
            checks.append(_held_out(decoder, features, images, held_index, training))
        report(step + 1)
    return decoder.eval().requires_grad_(False), DecoderLog(tuple(curve), tuple(checks))


@torch.no_grad()
def _held_out(
    decoder: Decoder, features: Tensor, images: Tensor, index: Tensor, training: DecoderTraining
) -> float:
    losses = [
        decoder_loss(decoder(features[i]), images[i], ssim_weight=training.ssim_weight)
        for i in index[:128].to(images.device).split(64)
    ]
    return float(torch.cat(losses).mean())
