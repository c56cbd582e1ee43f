"""Where pictures to protect come from: a folder of any layout, or tensors that are there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final

import torch
from torch import Tensor

from leakaudit.models.faces import listing_with_pictures
from leakaudit.models.pictures import (
    Crop,
    UnusableError,
    check_size,
    load_picture,
)

if TYPE_CHECKING:
    from leakaudit.models.alignment import Aligner


class Source(Protocol):
    """Pictures by name, in a fixed order; ``skipped`` are files that are none, with reasons."""

    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]

    def read(self, name: str) -> Tensor:
        """The picture (3, H, W) in [0, 1]; UnusableError says why there is none."""

    def stamp(self, name: str) -> bytes:
        """A hash of what the picture is read from."""


@final
class FolderSource:
    """The pictures under a folder, sorted by name; raises InputError where there are none.

    With ``align`` a picture is cut after the face in it, and one without a face can't be used.
    """

    def __init__(
        self, folder: Path, *, size: int, crop: Crop | None = None, align: Aligner | None = None
    ) -> None:
        check_size(size, crop)
        listing = listing_with_pictures(folder)
        self.folder, self._size, self._crop, self.align = folder, size, crop, align
        self._paths = listing.pictures
        self.names = tuple(listing.pictures)
        self.skipped = listing.skipped

    def read(self, name: str) -> Tensor:
        """The picture (3, size, size), upright, cropped or aligned, square and resized."""
        found = load_picture(self._paths[name], size=self._size, crop=self._crop, align=self.align)
        pixels = found.pixels
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(255).contiguous()

    def stamp(self, name: str) -> bytes:
        """The SHA-256 of the file's bytes; of nothing where it can't be read."""
        try:
            with self._paths[name].open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError:
            return hashlib.sha256(b"").digest()


@final
class TensorSource:
    """Pictures (N, 3, H, W) in [0, 1] that are in memory, by the names of their rows."""

    def __init__(self, images: Tensor, names: tuple[str, ...]) -> None:
        self._images, self.names = images, names
        self._rows = {name: row for row, name in enumerate(names)}
        self.skipped: tuple[tuple[str, str], ...] = ()

    def read(self, name: str) -> Tensor:
        """The picture (3, H, W)."""
        image = self._images[self._rows[name]]
        if not bool(image.isfinite().all()):
            raise UnusableError("of pixels that are not finite")
        return image

    def stamp(self, name: str) -> bytes:
        """The SHA-256 of its pixels."""
        pixels = self._images[self._rows[name]].cpu().contiguous().numpy()
        return hashlib.sha256(pixels.tobytes()).digest()
