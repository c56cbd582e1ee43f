"""whitebox-dip: an untrained network a face, whose picture is made to have the feature seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.attacks.base import Attack, Guess, ReadyAttack
from leakaudit.attacks.image_space import MEASURED_ON, FeatureMatch, effort_of
from leakaudit.core.checks import at_least
from leakaudit.core.rng import Rng
from leakaudit.core.threats import ThreatModel, WhiteBox
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.descent import Descent, descend

NOISE, SKIPPED = 16, 4  # channels of the fixed input, and of a skip connection


@final
@dataclass(frozen=True)
class WhiteBoxDip(Attack):
    """A picture's likelihood with a deep image prior: ``min_w |Enc(net_w(noise)) - F|²``.

    The network is a small U-Net with skip connections, ``width`` channels and ``levels`` halvings
    of the side; its input is fixed noise and its first picture about the mean public face. Each
    face has weights of its own, the same ones at the start. Needs neither prior nor training.
    Source: Ulyanov et al. 2018 (CVPR), "Deep image prior".
    """

    name: ClassVar[str] = "whitebox-dip"
    holds: ClassVar[type[ThreatModel]] = WhiteBox
    source: ClassVar[str] = "Ulyanov et al. 2018"

    descent: Descent = field(default_factory=lambda: Descent(steps=300, rate=0.01))
    width: int = 16
    levels: int = 3
    batch: int = 16

    def __post_init__(self) -> None:
        at_least(self.name, 1, width=self.width, levels=self.levels, batch=self.batch)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Draws the noise and the first weights, and measures the scale of features."""
        assert isinstance(held, WhiteBox)
        net = DeepImagePrior(held.public.mean(0), rng, width=self.width, levels=self.levels)
        return _Ready(FeatureMatch.of(held), net, self)

    def passes_ahead(self, faces: int) -> int:
        """The scale once, then three (forward and backward) a step and face, at most."""
        return MEASURED_ON + 3 * faces * (self.descent.steps + 1)


@final
class _Ready(ReadyAttack):
    def __init__(self, match: FeatureMatch, net: DeepImagePrior, how: WhiteBoxDip) -> None:
        self._match, self._net, self._how = match, net, how

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Pictures (N, 3, H, W) and their gaps to the features."""

        def loss(weights: Tensor, rows: Tensor) -> Tensor:
            return self._match(self._net(weights), features[rows])

        start = self._net.first.expand(len(features), -1)
        done = descend(loss, start, how=self._how.descent, batch=self._how.batch)
        with torch.no_grad():
            images = in_chunks(self._net, done.points, self._how.batch)
        note = f"{self._net.first.numel()} weights a face"
        return Guess(images, done.loss, effort_of(done, passes=self._match.passes, note=note))


@final
class DeepImagePrior:
    """Pictures (N, 3, H, W) in [0, 1] of N networks, from their weights (N, width).

    ``first`` (width,) are the weights at the start. Normalisation is a network's and channel's own,
    so that no face feels another. On a GPU all networks run as one grouped convolution; on a CPU,
    where that is no faster, one after another, so that not even rounding depends on the batch.
    """

    def __init__(self, mean: Tensor, rng: Rng, *, width: int, levels: int) -> None:
        # As deep as the picture's side allows: the coarsest map keeps 4 pixels.
        self.levels = max(1, min(levels, int(math.log2(min(mean.shape[-2:]) / 4))))
        self._base = torch.logit(mean.clamp(0.02, 0.98))
        self._shapes = _shapes(width, self.levels)
        generator = rng.torch()
        self._noise = torch.randn(1, NOISE, *mean.shape[-2:], generator=generator).to(mean)
        first = []
        for name, (out, into, side) in self._shapes.items():
            gain = 0.1 if name == "last" else 1.0  # so that the first picture is about the mean
            count = into * side * side
            first.append(
                gain * math.sqrt(2 / count) * torch.randn(out * count, generator=generator)
            )
            first.append(torch.zeros(out))
        self.first = torch.cat(first).to(mean)

    def __call__(self, weights: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) for weights (N, width)."""
        if weights.device.type == "cpu":
            return torch.cat([self.together(one) for one in weights.split(1)])
        return self.together(weights)

    def together(self, weights: Tensor) -> Tensor:
        """The same, all networks as one."""
        layers, count = self._layers(weights), len(weights)
        x, skips = self._noise.repeat(1, count, 1, 1), []
        for level in range(self.levels):
            skips.append(_active(layers[f"skip{level}"](x)))
            x = _active(layers[f"down{level}"](x))
            x = _active(layers[f"mix{level}"](x))
        for level in reversed(range(self.levels)):
            skip = skips[level]
            side = skip.shape[-2:]
            x = fn.interpolate(x, size=side, mode="bilinear").view(count, -1, *side)
            x = torch.cat([x, skip.view(count, -1, *side)], dim=1).view(1, -1, *side)
            x = _active(layers[f"up{level}"](x))
        return torch.sigmoid(self._base + layers["last"](x).view(count, *self._base.shape))

    def _layers(self, weights: Tensor) -> dict[str, _Convolution]:
        layers, at, count = {}, 0, len(weights)
        for name, (out, into, side) in self._shapes.items():
            size = out * into * side * side
            kernel = weights[:, at : at + size].reshape(count * out, into, side, side)
            bias = weights[:, at + size : at + size + out].reshape(count * out)
            layers[name] = _Convolution(kernel, bias, count, 2 if name.startswith("down") else 1)
            at += size + out
        return layers


@dataclass(frozen=True, eq=False)
class _Convolution:
    kernel: Tensor
    bias: Tensor
    groups: int
    stride: int

    def __call__(self, x: Tensor) -> Tensor:
        return fn.conv2d(
            x,
            self.kernel,
            self.bias,
            stride=self.stride,
            padding=self.kernel.shape[-1] // 2,
            groups=self.groups,
        )


def _active(x: Tensor) -> Tensor:
    return fn.silu(fn.instance_norm(x))


def _shapes(width: int, levels: int) -> dict[str, tuple[int, int, int]]:
    """Channels out and in, and the side of the kernel, of each convolution by name."""
    shapes, into = {}, NOISE
    for level in range(levels):
        shapes[f"skip{level}"] = (SKIPPED, into, 1)
        shapes[f"down{level}"] = (width, into, 3)
        shapes[f"mix{level}"] = (width, width, 3)
        into = width
    for level in range(levels):
        shapes[f"up{level}"] = (width, width + SKIPPED, 3)
    return shapes | {"last": (3, width, 1)}
