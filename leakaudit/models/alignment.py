"""Faces brought to one geometry: five landmarks found, the picture turned and cut after them.

The same rule for private and public pictures, so that a prior learnt on one fits the other.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from PIL import Image

from leakaudit.core.errors import UsageError
from leakaudit.models.pictures import UnusableError

TEMPLATE: Final = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Where eyes, nose and corners of the mouth lie (x, y) in a frame of 112 x 112 pixels.

Those of SphereFace (Liu et al., CVPR 2017) for 96 x 112, moved to the right by 8, as ArcFace (Deng
et al., CVPR 2019) does.
"""
FRAME: Final = 112.0
CLOSEST: Final = 2.0
LONGEST_SIDE: Final = 512
"""Larger pictures are made smaller, down to this side, for the search only."""
SURE: Final = 0.9
"""The probability from which a face counts as found."""
SMALLEST_FACE: Final = 20
FINEST: Final = 4096

Landmarks = Callable[[Image.Image], "np.ndarray | None"]
"""Five points (5, 2) of the face in an RGB picture, in its pixels, or ``None`` where none is."""
Remember = Callable[[Landmarks], Landmarks]


@final
@dataclass(frozen=True)
class Aligner:
    """Cuts out a face so that its landmarks lie on `TEMPLATE`, as nearly as they can.

    ``closer`` enlarges the template so many times about the middle of its lower edge: 1 is
    ArcFace's frame, and more of it cuts off hair and surroundings. ``name`` tells it in a report.
    """

    landmarks: Landmarks
    name: str = "mtcnn"
    closer: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.closer <= CLOSEST:
            raise UsageError(
                f"--align takes a frame from 1 to {CLOSEST:g} times closer, not {self.closer:g}"
            )

    @property
    def template(self) -> np.ndarray:
        """The five places (x, y) in a frame of side 1."""
        foot = np.array([FRAME / 2, FRAME])
        return (foot + self.closer * (TEMPLATE - foot)) / FRAME

    def cut(self, picture: Image.Image, size: int) -> tuple[Image.Image, float]:
        """The face in a square of ``size`` pixels, and the share of it that lies outside.

        Outside the picture its edge is continued. Raises `UnusableError` without a face.
        """
        points = self.landmarks(picture)
        if points is None:
            raise UnusableError("without a face that was found")
        turn, shift = similarity(points, size * self.template)
        return _warped(picture, turn, shift, size)


def similarity(points: np.ndarray, places: np.ndarray) -> tuple[complex, complex]:
    """Turn ``a`` and shift ``b`` with ``a p + b`` nearest to the places, as complex numbers.

    Least squares over turns, scales and shifts, without mirroring (Umeyama, PAMI 1991); in the
    plane such a map is a complex multiplication, so that there is a closed form.
    """
    p, q = (array[:, 0] + 1j * array[:, 1] for array in (points, places))
    centred = p - p.mean()
    a = np.vdot(centred, q - q.mean()) / np.vdot(centred, centred).real
    return complex(a), complex(q.mean() - a * p.mean())


def _warped(
    picture: Image.Image, turn: complex, shift: complex, size: int
) -> tuple[Image.Image, float]:
    finer = min(max(1, math.ceil(1 / abs(turn))), max(1, FINEST // size))
    side = finer * size
    back = 1 / (finer * turn)  # from the finer crop's pixels to the picture's
    origin = -shift / turn
    corners = [origin + back * complex(x, y) for x in (0, side) for y in (0, side)]
    picture, moved = _with_edges(picture, corners)
    origin += moved
    # Pillow wants x' = a x + b y + c, y' = d x + e y + f from the crop to the picture.
    rows = (back.real, -back.imag, origin.real, back.imag, back.real, origin.imag)
    found = picture.transform((side, side), Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC)
    outside = _outside(picture.info["inside"], rows, side)
    return found.resize((size, size), Image.Resampling.BICUBIC), outside


def _with_edges(picture: Image.Image, corners: list[complex]) -> tuple[Image.Image, complex]:
    """The part of the picture that the corners span, its edges continued, and how it was moved."""
    xs, ys = [c.real for c in corners], [c.imag for c in corners]
    box = [math.floor(min(xs)) - 2, math.floor(min(ys)) - 2]
    box += [math.ceil(max(xs)) + 2, math.ceil(max(ys)) + 2]
    width, height = picture.size
    columns = np.arange(box[0], box[2]).clip(0, width - 1)
    lines = np.arange(box[1], box[3]).clip(0, height - 1)
    part = Image.fromarray(np.asarray(picture)[np.ix_(lines, columns)])
    part.info["inside"] = (-box[0], -box[1], width - box[0], height - box[1])
    return part, complex(-box[0], -box[1])


def _outside(inside: tuple[int, int, int, int], rows: tuple[float, ...], side: int) -> float:
    """The share of the crop's pixels that the picture doesn't hold, on a grid of 32 x 32."""
    steps = (np.arange(32) + 0.5) * side / 32
    x, y = np.meshgrid(steps, steps)
    a, b, c, d, e, f = rows
    u, v = a * x + b * y + c, d * x + e * y + f
    left, top, right, bottom = inside
    return float(1 - ((u >= left) & (u <= right) & (v >= top) & (v <= bottom)).mean())


def aligner_of(text: str | None, *, remember: Remember | None = None) -> Aligner | None:
    """``none``, ``mtcnn`` or ``mtcnn:1.4`` (so many times closer); UsageError for anything else.

    ``remember`` puts a memory before the search, `landmarks.kept_landmarks` for one.
    """
    name, _, closer = (text or "none").partition(":")
    if name == "none" and not closer:
        return None
    try:
        factor = float(closer) if closer else 1.0
    except ValueError:
        factor = math.nan
    if name != "mtcnn" or not math.isfinite(factor):
        raise UsageError(
            f"'{text}' is no way of aligning faces",
            where="--align",
            todo="Say none, mtcnn, or mtcnn:1.4 for a frame that is 1.4 times closer",
        )
    search = mtcnn()
    return Aligner(remember(search) if remember else search, name=str(text), closer=factor)


def mtcnn() -> Landmarks:
    """The five landmarks by MTCNN (Zhang et al., IEEE SPL 2016) of facenet-pytorch, on the CPU.

    Of several faces that are found with a probability of 0.9 or more, it's the one whose box has
    the largest area less twice the squared distance of its middle from the picture's (facenet's
    rule for LFW). Raises UsageError where facenet-pytorch is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from facenet_pytorch import MTCNN

            network: Any = MTCNN(min_face_size=SMALLEST_FACE, device="cpu")
    except ImportError as error:
        raise UsageError(
            "Aligning faces needs facenet-pytorch, which isn't installed",
            where="--align mtcnn",
            todo="pip install 'facenet-pytorch>=2.5.3,<2.6'",
        ) from error

    def landmarks(picture: Image.Image) -> np.ndarray | None:
        scale = min(1.0, LONGEST_SIDE / max(picture.size))
        small = picture.resize([max(1, round(scale * n)) for n in picture.size])
        if min(small.size) < SMALLEST_FACE:  # the search fails on what can hold no face
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            boxes, sure, points = network.detect(small, landmarks=True)
        if boxes is None:
            return None
        kept = np.asarray(sure, dtype=float) >= SURE
        if not kept.any():
            return None
        found = np.asarray(points, dtype=float)[kept]
        chosen = found[_foremost(np.asarray(boxes, dtype=float)[kept], small.size)]
        there: np.ndarray = chosen * np.array(picture.size) / np.array(small.size)
        return there

    return landmarks


def _foremost(boxes: np.ndarray, size: tuple[int, int]) -> int:
    """Which box (K, 4) shows the person whom the picture is of."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    middle = (boxes[:, :2] + boxes[:, 2:4]) / 2 - np.array(size) / 2
    return int((area - 2 * (middle**2).sum(1)).argmax())
