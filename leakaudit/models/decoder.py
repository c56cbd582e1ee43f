"""The decoder of the black-box attack: from features back to pictures, trained on public pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.errors import UnknownNameError
from leakaudit.core.rng import Rng
from leakaudit.maths.chunks import bounded
from leakaudit.models.devices import half_precision

Draw = Callable[[], tuple[Tensor, Tensor]]
"""Gives a batch of features (B, ...) and their pictures (B, 3, H, W)."""
Architecture = Callable[..., nn.Module]
"""Builds a decoder from ``mean``, ``deviation`` of a feature and ``size=``, a picture's side."""
LOSSES = ("l2+ssim", "l1")
PRECISIONS = ("full", "half")


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
    """How a decoder is trained: Adam, cosine rate, and the loss a picture.

    ``loss`` is ``l2+ssim``, the squared error plus ``ssim_weight`` times (1 - SSIM), or ``l1``, the
    absolute error. Ten times within ``steps`` a ``held_out`` share of the pictures is looked at.
    With ``patience`` the best of these looks is kept, one before the first step among them, and
    that many looks without a gain end the training; without it, the last step is kept.
    ``precision`` ``half`` trains with convolutions in bfloat16, weights and loss in float32, where
    the device is made for it: quicker, but blind to what is much smaller than the feature it is
    added to. The looks, and the trained decoder's pictures, are always in float32.
    """

    steps: int = 300
    batch: int = 48
    rate: float = 2e-3
    ssim_weight: float = 0.1
    held_out: float = 0.05
    loss: str = "l2+ssim"
    patience: int = 0
    precision: str = "full"

    def __post_init__(self) -> None:
        at_least("decoder training", 1, steps=self.steps, batch=self.batch)
        at_least("decoder training", 0, ssim_weight=self.ssim_weight, held_out=self.held_out)
        at_least("decoder training", 0, patience=self.patience)
        above_zero("decoder training", rate=self.rate)
        if self.loss not in LOSSES:
            raise UnknownNameError("decoder loss", self.loss, LOSSES)
        if self.precision not in PRECISIONS:
            raise UnknownNameError("decoder precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class DecoderLog:
    """Curves of a training: training loss, held-out loss at each look; ``kept`` is the kept one."""

    curve: tuple[float, ...]
    held_out: tuple[float, ...]
    kept: float


def decoder_loss(made: Tensor, true: Tensor, *, ssim_weight: float) -> Tensor:
    """Mean squared error plus the structural term, one number a picture (N,)."""
    mse = (made - true).square().flatten(1).mean(1)
    return mse + ssim_weight * (1 - ssim_map(made, true).flatten(1).mean(1))


def picture_loss(made: Tensor, true: Tensor, training: DecoderTraining) -> Tensor:
    """The loss that ``training`` names, one number a picture (N,)."""
    if training.loss == "l1":
        return (made - true).abs().flatten(1).mean(1)
    return decoder_loss(made, true, ssim_weight=training.ssim_weight)


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) a pixel and channel, 11-tap Gaussian, sigma 1.5."""
    down, across = (_gaussian(side, a) for side in a.shape[-2:])

    def smooth(x: Tensor) -> Tensor:
        return down.mT @ (x @ across)

    ma, mb = smooth(a), smooth(b)
    va, vb = smooth(a * a) - ma * ma, smooth(b * b) - mb * mb
    cov = smooth(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))


def _gaussian(side: int, like: Tensor) -> Tensor:
    """Eleven taps of a Gaussian, sigma 1.5, at each place they fit: a band (side, side - 10).

    Two products with bands take less time than two convolutions a channel on a CPU.
    """
    places = torch.arange(side, device=like.device, dtype=like.dtype)
    steps = places[:, None] - places[: side - 10]  # how far down the window of each column
    band = torch.exp(-((steps - 5) ** 2) / (2 * 1.5**2)) * ((steps >= 0) & (steps < 11))
    return band / band[:11, :1].sum()


def train_decoder(
    features: Tensor,
    images: Tensor,
    *,
    training: DecoderTraining,
    rng: Rng,
    report: Callable[[int], None] = lambda step: None,
    make: Architecture = Decoder,
) -> tuple[nn.Module, DecoderLog]:
    """A decoder trained on public pairs: features (M, ...) of images (M, 3, H, W).

    ``make`` builds it from the mean and deviation of a feature and the picture's side.
    """
    generator = rng.torch()
    order = torch.randperm(len(images), generator=generator)
    held = max(1, int(training.held_out * len(images)))
    held_out, fit = order[:held], order[held:] if len(order) > held else order
    decoder = new_decoder(features, size=images.shape[-1], rng=rng.derive("init"), make=make)

    def draw() -> tuple[Tensor, Tensor]:
        pick = torch.randint(len(fit), (training.batch,), generator=generator)
        index = fit[pick].to(images.device)
        return features[index], images[index]

    seen = held_out[:128].to(images.device)
    log = fit_decoder(decoder, draw, features[seen], images[seen], training=training, report=report)
    return decoder, log


def new_decoder(
    features: Tensor, *, size: int, rng: Rng, make: Architecture = Decoder
) -> nn.Module:
    """An untrained decoder that standardises by these features (M, ...), on their device."""
    mean, deviation = moments(features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.state)
        decoder = make(mean.cpu(), deviation.cpu(), size=size)
    return decoder.to(features.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation an element over features (M, ...); the deviation is never near zero."""
    return features.mean(0), features.std(0).clamp(min=1e-2 * float(features.std()) + 1e-8)


def fit_decoder(
    decoder: nn.Module,
    draw: Draw,
    features: Tensor,
    images: Tensor,
    *,
    training: DecoderTraining,
    report: Callable[[int], None] = lambda step: None,
) -> DecoderLog:
    """Trains a decoder in place on the batches that ``draw`` gives; leaves it frozen.

    Held-out ``features`` (M, ...) of ``images`` (M, 3, H, W) are only looked at, never fitted.
    """
    decoder.train().requires_grad_(True)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=training.rate)
    curve: list[float] = []
    looks = _Looks(decoder, features, images, training)
    if training.patience:
        looks.take()
    for step in range(training.steps):
        _set_rate(optimiser, training, step)
        seen, true = draw()
        with _computing(training.precision, seen.device):
            made = decoder(seen)
        loss = picture_loss(made.to(true.dtype), true, training).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        curve.append(float(loss.detach()))
        if step % max(1, training.steps // 10) == 0 or step == training.steps - 1:
            looks.take()
        report(step + 1)
        if looks.over:
            break
    kept = looks.keep()
    decoder.eval().requires_grad_(False)
    return DecoderLog(tuple(curve), tuple(looks.losses), kept)


def _computing(precision: str, device: torch.device) -> AbstractContextManager[object]:
    if precision == "full":
        return nullcontext()
    return half_precision(device)


def _set_rate(optimiser: torch.optim.Optimizer, training: DecoderTraining, step: int) -> None:
    warm = min(1.0, (step + 1) / 20)
    share = 0.5 * (1 + math.cos(math.pi * step / training.steps))
    for group in optimiser.param_groups:
        group["lr"] = training.rate * warm * max(0.01, share)


@final
class _Looks:
    """Held-out losses along a training, and the state at the best of them."""

    def __init__(
        self, decoder: nn.Module, features: Tensor, images: Tensor, training: DecoderTraining
    ) -> None:
        self._decoder, self._training = decoder, training
        self._features, self._images = features, images
        self._best: dict[str, Tensor] = {}
        self.losses: list[float] = []

    def take(self) -> None:
        """Looks once; where patience is asked for, remembers the state if it is the best."""
        loss = float(
            held_out_loss(self._decoder, self._features, self._images, self._training).mean()
        )
        self.losses.append(loss)
        if self._training.patience and loss <= min(self.losses):
            self._best = {k: v.clone() for k, v in self._decoder.state_dict().items()}

    @property
    def over(self) -> bool:
        """Whether the last ``patience`` looks gained nothing."""
        patience = self._training.patience
        if not patience or len(self.losses) <= patience:
            return False
        return min(self.losses[-patience:]) >= min(self.losses[:-patience])

    def keep(self) -> float:
        """Puts the best state back where it is remembered; the held-out loss of what is kept."""
        if not self._best:
            return self.losses[-1]
        self._decoder.load_state_dict(self._best)
        return min(self.losses)


@torch.no_grad()
def held_out_loss(
    decoder: nn.Module, features: Tensor, images: Tensor, training: DecoderTraining
) -> Tensor:
    """The loss of each picture (M,) of features (M, ...) under a decoder."""
    size = bounded(64)
    parts = zip(features.split(size), images.split(size), strict=True)
    return torch.cat([picture_loss(decoder(f), x, training) for f, x in parts])
