"""A face is searched for once, whatever run asks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakaudit.models.landmarks import KeptLandmarks, kept_landmarks

POINTS = np.array([[1.0, 2.0], [1 / 3, 4.0], [5.0, 6.5], [7.0, 8.0], [9.0, 1e-17]])


class Search:
    """Finds the same face in every picture that isn't black, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, picture: Image.Image) -> np.ndarray | None:
        self.asked += 1
        return POINTS if picture.getbbox() else None


def grey(level: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


@pytest.mark.parametrize("level", [0, 200])
def test_what_was_found_once_is_given_again_to_the_bit_in_a_later_run(
    tmp_path: Path, level: int
) -> None:
    first, second = Search(), Search()
    found = KeptLandmarks(first, tmp_path / "kept")(grey(level))
    again = KeptLandmarks(second, tmp_path / "kept")(grey(level))
    assert (first.asked, second.asked) == (1, 0)
    assert (found is None) == (level == 0) and np.array_equal(found, again)


def test_other_pixels_or_another_shape_are_another_picture(tmp_path: Path) -> None:
    search = Search()
    find = KeptLandmarks(search, tmp_path / "kept")
    for picture in (grey(9), grey(8), grey(9, (6, 8)), grey(9)):
        find(picture)
    assert search.asked == 3


@pytest.mark.parametrize("torn", [b'["ab', b'["ab", [[1, 2]]]\n', b"\xff\xfe", b"{}\n7\n"])
def test_a_file_with_torn_lines_gives_what_is_whole_and_takes_more(
    tmp_path: Path, torn: bytes
) -> None:
    file = tmp_path / "kept"
    KeptLandmarks(Search(), file)(grey(1))
    with file.open("ab") as handle:
        handle.write(torn)
    search = Search()
    find = KeptLandmarks(search, file)
    find(grey(1)), find(grey(2))
    assert search.asked == 1
    last = Search()
    KeptLandmarks(last, file)(grey(2))
    assert last.asked == 0


def test_neither_name_nor_picture_is_kept_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    KeptLandmarks(Search(), file)(grey(3))
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert len(file.read_bytes()) < 300


def test_where_nothing_can_be_written_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search()
    assert KeptLandmarks(search, tmp_path / "no" / "folder")(grey(4)) is not None
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path / "file"))
    assert kept_landmarks(search) is search
