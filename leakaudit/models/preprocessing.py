"""What happens to a picture before a network's first layer, and who decides it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, final

import torch
from torch import Tensor, nn

from leakaudit.core.errors import UnknownNameError, UsageError

Three = tuple[float, float, float]
Channels = Literal["rgb", "bgr"]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
WIDEST: Final = 10.0
"""A mean or deviation beyond it is of pictures from 0 to 255."""


@dataclass(frozen=True)
class Preprocessing:
    """What the network does to a picture in [0, 1] before its first layer.

    ``input_size`` is a side or (height, width) in pixels; a picture of another size is cut to that
    shape about its centre and resized. ``channels`` is the network's order; ``mean`` and ``std``
    are in that order and on the scale of [0, 1]: ``(x - mean) / std``.
    """

    input_size: int | tuple[int, int]
    mean: Three = (0.0, 0.0, 0.0)
    std: Three = (1.0, 1.0, 1.0)
    channels: Channels = "rgb"

    _orders: ClassVar = ("rgb", "bgr")

    def __post_init__(self) -> None:
        if min(self.height_width) < 1:
            raise UsageError(f"An input size of {self.input_size} holds no pixels")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise UsageError("Mean and std need one number for each of the three channels")
        if not all(math.isfinite(number) for number in (*self.mean, *self.std)):
            raise UsageError(f"Mean {self.mean} and std {self.std} must be finite numbers")
        if not all(deviation > 0 for deviation in self.std):
            raise UsageError(f"Every std must be above zero, not {self.std}")
        if max(map(abs, self.mean)) > WIDEST or max(self.std) > WIDEST:
            raise UsageError(
                f"Mean {self.mean} and std {self.std} are not on the scale of [0, 1]",
                todo="Give them for pictures in [0, 1]: 127.5 of 255 is 0.5",
            )
        if self.channels not in self._orders:
            raise UnknownNameError("order of channels", self.channels, self._orders)

    @property
    def height_width(self) -> tuple[int, int]:
        """The input's height and width in pixels."""
        size = self.input_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass(frozen=True)
class Native:
    """What a network's own publication or file says of its preprocessing; ``None``: nothing."""

    input_size: tuple[int, int] | None = None
    mean: Three | None = None
    std: Three | None = None


@dataclass(frozen=True)
class Wishes:
    """What the user says of the preprocessing; what he leaves out is the network's own.

    ``size`` is the side of his pictures: the network's input too, unless it has its own. Where
    neither says mean and std, they are ImageNet's.
    """

    size: int
    mean: Three | None = None
    std: Three | None = None
    channels: Channels = "rgb"

    def over(self, native: Native) -> Preprocessing:
        """The preprocessing that these wishes and the network's own make together."""
        return Preprocessing(
            input_size=native.input_size or self.size,
            mean=self.mean or native.mean or IMAGENET_MEAN,
            std=self.std or native.std or IMAGENET_STD,
            channels=self.channels,
        )

    def notes(self, native: Native) -> tuple[str, ...]:
        """Sentences on what was taken from the network itself."""
        notes = []
        if native.input_size and native.input_size != (self.size, self.size):
            height, width = native.input_size
            notes.append(
                f"The network takes pictures of {height} x {width}; the audit's pictures of "
                f"{self.size} x {self.size} are resized to it"
            )
        if native.mean and native.std and (self.mean, self.std) == (None, None):
            notes.append(f"Mean {native.mean} and std {native.std} are the network's own")
        elif None in (self.mean, self.std):
            both = self.over(native)
            parts = (("mean", self.mean, both.mean), ("std", self.std, both.std))
            lacking = [f"{name} {value}" for name, said, value in parts if said is None]
            taken = f"{' and '.join(lacking)} {'are' if len(lacking) > 1 else 'is'}"
            whose = "the network's own" if native.mean and native.std else "ImageNet's"
            notes.append(
                f"As none was given, {taken} {whose}. Where the network was trained otherwise "
                "or scales pictures itself, say --mean and --std (0,0,0 and 1,1,1: as they are)"
            )
        return tuple(notes)


@final
class Prepare(nn.Module):
    """Pictures (N, 3, H, W) in [0, 1] as a network wants them, in shape, order and scale."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, height, width) of the network's own kind of number."""
        height, width = self.preprocessing.height_width
        if images.shape[-2:] != (height, width):
            images = _cut_to_shape(images, height, width)
            images = nn.functional.interpolate(
                images, (height, width), mode="bilinear", align_corners=False, antialias=True
            )
        if self.preprocessing.channels == "bgr":
            images = images.flip(-3)
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def grey(self, count: int) -> Tensor:
        """So many grey pictures, prepared: enough to see shapes."""
        height, width = self.preprocessing.height_width
        return self(self.mean.new_full((count, 3, height, width), 0.5))


@final
class Prepared(nn.Module):
    """A network with its preprocessing: from pictures (N, 3, H, W) in [0, 1]."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.prepare = Prepare(preprocessing)

    def forward(self, images: Tensor) -> Tensor:
        """What the network gives for these pictures."""
        answer: Tensor = self.network(self.prepare(images))
        return answer


def _cut_to_shape(images: Tensor, height: int, width: int) -> Tensor:
    """The largest centred part with the proportions of height and width."""
    h, w = images.shape[-2:]
    if h * width == w * height:
        return images
    new_h = min(h, max(1, round(w * height / width)))
    new_w = min(w, max(1, round(h * width / height)))
    top, left = (h - new_h) // 2, (w - new_w) // 2
    return images[..., top : top + new_h, left : left + new_w]
