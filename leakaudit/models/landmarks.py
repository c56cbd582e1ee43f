"""Landmarks that were found before, kept by the picture's content: a second run needs no search."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final, final

import numpy as np
from PIL import Image

from leakaudit.core.cache import cache_folder
from leakaudit.core.errors import LeakauditError
from leakaudit.models.alignment import LONGEST_SIDE, SMALLEST_FACE, SURE, Landmarks

KIND: Final = "landmarks"


@final
class KeptLandmarks:
    """A search for landmarks that looks into ``file`` first, and writes there what it finds.

    A line of JSON a picture: a hash of its pixels, and five points or null. No picture and no name
    is kept. Several processes may add lines at once. A line that was cut off is skipped, and where
    the file can't be written the search goes on without.
    """

    def __init__(self, search: Landmarks, file: Path) -> None:
        self._search, self._file = search, file
        self._found = dict(_lines(file))

    def __call__(self, picture: Image.Image) -> np.ndarray | None:
        """Five points (5, 2) in the picture's pixels, or ``None`` where no face is."""
        key = _hash(picture)
        if key not in self._found:
            points = self._search(picture)
            self._found[key] = points
            self._add(key, points)
        return self._found[key]

    def _add(self, key: str, points: np.ndarray | None) -> None:
        told = json.dumps([key, None if points is None else points.tolist()])
        try:
            handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                # A line break ahead ends what a killed process may have left unfinished.
                os.write(handle, f"\n{told}\n".encode())
            finally:
                os.close(handle)
        except OSError:
            return


def kept_landmarks(search: Landmarks) -> Landmarks:
    """``search`` with a memory in the cache; without one where the cache can't be had."""
    try:
        return KeptLandmarks(search, cache_folder(KIND) / f"{_recipe()}.jsonl")
    except LeakauditError:
        return search


def _recipe() -> str:
    """What moves a found point: MTCNN's weights, which come with its package, and our settings."""
    told = ("mtcnn", version("facenet-pytorch"), LONGEST_SIDE, SURE, SMALLEST_FACE)
    return "-".join(map(str, told))


def _hash(picture: Image.Image) -> str:
    told = f"{picture.mode} {picture.size} ".encode()
    return hashlib.sha256(told + picture.tobytes()).hexdigest()


def _lines(file: Path) -> Iterator[tuple[str, np.ndarray | None]]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            key, points = json.loads(line)
            found = None if points is None else np.asarray(points, dtype=float)
        except (ValueError, TypeError):
            continue
        if isinstance(key, str) and (found is None or _sound(found)):
            yield key, found


def _sound(points: np.ndarray) -> bool:
    return points.shape == (5, 2) and bool(np.isfinite(points).all())
