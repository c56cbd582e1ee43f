"""Pictures on disk, met with distrust: a folder is listed and each file decoded, or said why not.

Nothing here fails because of one picture; what can't be used comes back as a reason. Names of files
are data: they are kept as they are, and made printable only where a person reads them.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from leakaudit.core.errors import InputError, UsageError

if TYPE_CHECKING:
    from leakaudit.models.alignment import Aligner

MAX_PIXELS: Final = 50_000_000
MIN_SIDE: Final = 8
MARK: Final = 16
CUT_OFF: Final = 0.1
"""A crop of which more than this share lies outside its picture is counted."""
Crop = tuple[int, int, int, int]

_READ = frozenset(
    {"jpg", "jpeg", "jfif", "jpe", "png", "bmp", "webp", "tif", "tiff", "gif", "ppm", "pgm", "pnm"}
)
_KNOWN_BUT_NOT_READ = frozenset(
    {"heic", "heif", "avif", "jxl", "jp2", "svg", "psd", "raw", "dng", "cr2", "cr3", "nef", "arw"}
)
# Formats that Pillow hands to outside programs (EPS to Ghostscript) stay closed.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_GROUPS = 6


class UnusableError(Exception):
    """Why one picture can't be used, in a few words; caught by the loaders, never shown as such."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture as it was read.

    ``pixels`` are ``(size, size, 3)`` uint8 RGB. ``marks`` (2, 16, 16) are grey averages in [0, 1]
    of the picture's centred square and of the whole, by which copies are found whatever was cut.
    ``outside`` is the share of an aligned crop that lies outside of the picture; ``extent`` its
    width and height in pixels before it was cut.
    """

    pixels: np.ndarray
    marks: np.ndarray
    outside: float = 0.0
    extent: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class LoadReport:
    """What became of a folder's pictures: ``found = used + len(skipped) + left out by a limit``.

    ``skipped`` holds ``(name relative to the folder, reason)``; ``notes`` are sentences on limits
    and on what the layout was taken to mean. ``cut_off`` counts aligned pictures of which more than
    a tenth of the crop lies outside. ``extent`` is the width and height that most pictures have
    before they are cut, ``None`` where no one extent is that of most.
    """

    found: int
    used: int
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    cut_off: int = 0
    extent: tuple[int, int] | None = None

    def summary(self) -> str:
        """One line in words: counts, then the reasons with an example each, most frequent first."""
        parts = [f"{self.used} of {self.found} pictures used"]
        if self.skipped:
            counts = Counter(reason for _, reason in self.skipped)
            example = {reason: name for name, reason in reversed(self.skipped)}
            told = [
                f"{count} {reason} ({printable(example[reason])})"
                for reason, count in counts.most_common(_GROUPS)
            ]
            more = sum(counts.values()) - sum(n for _, n in counts.most_common(_GROUPS))
            rest = [f"{more} for other reasons"] if more else []
            parts.append(f"{len(self.skipped)} skipped: {'; '.join(told + rest)}")
        return ". ".join([*parts, *(note.rstrip(".") for note in self.notes)]) + "."


@dataclass(frozen=True)
class Listing:
    """The files under a folder: pictures by relative name, what was skipped, and other files."""

    root: Path
    pictures: dict[str, Path]
    skipped: tuple[tuple[str, str], ...]
    others: tuple[str, ...]

    def instead(self) -> str:
        """What lies there besides readable pictures, in words."""
        kinds = Counter(Path(name).suffix.lower() or "no extension" for name in self.others)
        words = [f"{count} x {printable(kind)}" for kind, count in kinds.most_common(5)]
        words += [f"{printable(name)}: {reason}" for name, reason in self.skipped[:3]]
        return ", ".join(words) or "nothing"


def printable(name: str) -> str:
    """The name without characters that could steer a terminal, at most 120 of them."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return text if len(text) <= 120 else text[:117] + "..."


def check_folder(folder: Path) -> None:
    """Raise `InputError` for a folder that is missing, is a file or can't be read."""
    try:
        exists = folder.exists()
    except OSError as error:
        raise InputError(
            f"The folder can't be read: {error.strerror}", where=str(folder)
        ) from error
    if not exists:
        raise InputError("There is no such folder", where=str(folder), todo="Check the path")
    if not folder.is_dir():
        raise InputError(
            "This is a file, not a folder of pictures", where=str(folder), todo="Give its folder"
        )


def list_folder(folder: Path) -> Listing:
    """All files under the folder, sorted by name; hidden ones are ignored, no link leads outside.

    A folder that is missing, is a file or can't be read is an `InputError`.
    """
    check_folder(folder)
    root = folder.resolve()
    pictures: dict[str, Path] = {}
    skipped: list[tuple[str, str]] = []
    others: list[str] = []
    for name, path, problem in sorted(_walk(root)):
        extension = path.suffix.lower().lstrip(".")
        if problem:
            skipped.append((name, problem))
        elif extension in _READ:
            pictures[name] = path
        elif extension in _KNOWN_BUT_NOT_READ:
            skipped.append((name, f".{extension} pictures are not read, save them as JPEG or PNG"))
        else:
            others.append(name)
    return Listing(root, pictures, tuple(skipped), tuple(others))


def read_picture(path: Path, *, size: int, crop: Crop | None = None) -> np.ndarray:
    """The pixels ``(size, size, 3)`` uint8 RGB of `load_picture`."""
    return load_picture(path, size=size, crop=crop).pixels


def load_picture(
    path: Path, *, size: int, crop: Crop | None = None, align: Aligner | None = None
) -> Picture:
    """The picture in a square of ``size`` pixels: upright, cropped or aligned, antialiased.

    ``crop`` is ``(left, top, right, bottom)`` in pixels of the upright picture; the centred square
    of what remains is kept. With ``align`` the square is laid after the face instead. Transparency
    is laid over white, the first frame of an animation is taken. Raises `UnusableError` with a
    reason.
    """
    try:
        with warnings.catch_warnings(), _open_regular(path) as file:
            warnings.simplefilter("ignore")  # broken EXIF and palettes: Pillow copes or raises
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            upright = _decoded(file)
    except UnusableError:
        raise
    except PermissionError:
        raise UnusableError("without permission to read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnusableError(_too_many_pixels()) from None
    except UnidentifiedImageError:
        raise UnusableError("not a picture of a kind that is read") from None
    except Exception as error:  # Pillow's decoders raise almost anything on hostile bytes
        reason = "truncated" if "truncated" in str(error) else "damaged"
        raise UnusableError(reason) from error
    square, outside = _cut(upright, size, crop, align)
    marks = np.stack([_mark(_square(upright, None)), _mark(upright)])
    return Picture(np.asarray(square, dtype=np.uint8), marks, outside, upright.size)


def _cut(
    picture: Image.Image, size: int, crop: Crop | None, align: Aligner | None
) -> tuple[Image.Image, float]:
    """The square of ``size`` pixels, and the share of it that lies outside of the picture."""
    if align is not None:
        return align.cut(picture, size)
    return _square(picture, crop).resize((size, size), Image.Resampling.BICUBIC), 0.0


def _mark(picture: Image.Image) -> np.ndarray:
    """Grey averages (16, 16) in [0, 1]."""
    small = picture.resize((MARK, MARK), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).mean(2) / 255


def fit_picture(
    pixels: np.ndarray, *, size: int, crop: Crop | None = None, align: Aligner | None = None
) -> np.ndarray:
    """An array (H, W, 3) of uint8 as ``(size, size, 3)``: its centred square, resized, antialiased.

    What `load_picture` makes of a file with these pixels. Raises `UnusableError` with a reason.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UnusableError(f"of {pixels.dtype}, {pixels.shape}, and not (H, W, 3) of uint8")
    if min(pixels.shape[:2]) < MIN_SIDE:
        raise UnusableError(f"smaller than {MIN_SIDE} pixels")
    square, _ = _cut(Image.fromarray(np.ascontiguousarray(pixels)), size, crop, align)
    return np.asarray(square, dtype=np.uint8)


def check_size(size: int, crop: Crop | None) -> None:
    """Raise `UsageError` where no picture could be read so."""
    if size < MIN_SIDE:
        raise UsageError(f"A picture size of {size} is below {MIN_SIDE} pixels")
    if crop is None:
        return
    left, top, right, bottom = crop
    if min(left, top) < 0 or right <= left or bottom <= top:
        raise UsageError(
            f"The crop {left},{top},{right},{bottom} holds no pixels",
            todo="Give left, top, right, bottom in pixels of the upright picture",
        )


def _walk(root: Path) -> Iterator[tuple[str, Path, str | None]]:
    """Name relative to the root, path and what is wrong with it, of all that isn't a folder."""
    waiting = [("", root)]
    while waiting:
        prefix, folder = waiting.pop()
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
            entries.sort(key=lambda entry: os.fsencode(entry.name))
        except OSError:
            yield prefix.rstrip("/"), folder, "in a folder that can't be read"
            continue
        spelled = set[str]()
        for entry in entries:
            # Bytes that aren't UTF-8 would break every file the name is written to later.
            name = prefix + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
            path = Path(entry.path)
            if name in spelled:
                yield name, path, "spelled like another one, whose bytes differ"
                continue
            spelled.add(name)
            if entry.is_symlink():
                yield name, path, _problem_of_link(path, root)
            elif entry.is_dir():
                waiting.append((name + "/", path))
            else:
                yield name, path, None


def _problem_of_link(path: Path, root: Path) -> str | None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a link that leads nowhere"
    if not target.is_relative_to(root):
        return "a link that leaves the folder"
    return "a link to a folder, which is not followed" if target.is_dir() else None


def _open_regular(path: Path) -> IO[bytes]:
    # Opening a named pipe would wait for ever, so the kind is asked first.
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        raise UnusableError("not a regular file")
    if info.st_size == 0:
        raise UnusableError("empty")
    return path.open("rb")


def _decoded(file: IO[bytes]) -> Image.Image:
    """The whole picture, upright, in RGB."""
    Image.init()  # Pillow knows formats by name only once all its readers are there
    with Image.open(file, formats=_FORMATS) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise UnusableError(_too_many_pixels())
        if min(width, height) < MIN_SIDE:
            raise UnusableError(f"smaller than {MIN_SIDE} pixels")
        return _rgb(ImageOps.exif_transpose(picture))


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # more than 8 bits a pixel, which convert() clips to white
        deep = np.asarray(picture).astype(np.float64)
        white = next((n for n in _WHITES if deep.max(initial=0) <= n), None)
        if white is None or deep.min(initial=0) < 0:
            raise UnusableError("of whole numbers beyond 16 bits, whose range is unknown")
        picture = Image.fromarray((deep * 255 / white).round().astype(np.uint8))
    if picture.mode == "F":
        raise UnusableError("of floating-point pixels, whose range is unknown")
    if picture.has_transparency_data:
        front = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return picture.convert("RGB")


_WHITES = (255, 1023, 4095, 65535)
"""White in 8, 10, 12 and 16 bits: cameras of 10 and 12 bits fill the lower ones of 16."""


def _square(picture: Image.Image, crop: Crop | None) -> Image.Image:
    if crop is not None:
        if crop[2] > picture.width or crop[3] > picture.height:
            raise UnusableError("smaller than the crop box")
        picture = picture.crop(crop)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _too_many_pixels() -> str:
    return f"above the limit of {MAX_PIXELS // 1_000_000} million pixels"
