"""LFW's pairs: read, refused where faulty, and split so that a pair's other half is enrolled."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leakaudit.core.errors import InputError
from leakaudit.core.rng import Rng
from leakaudit.models.faces import Faces, load_people
from leakaudit.models.pairs import Pairs, read_pairs, split_by_pairs

TEXT = (
    "1\t3\nAnn_Lee\t1\t4\nBob\t1\t2\nBob\t2\t3\nAnn_Lee\t1\tBob\t3\nBob\t1\tCy\t2\nCy\t1\tDi\t1\n"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "pairs.txt"
    path.write_text(text, encoding="utf-8")
    return path


def lfw(folder: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for k in range(1, count + 1):
            stem = f"{name}_{k:04d}"
            pixels = np.random.default_rng(zlib.crc32(stem.encode())).integers(0, 256, (20, 20, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{stem}.jpg")
    return folder


@pytest.fixture
def faces(tmp_path: Path) -> Faces:
    root = lfw(tmp_path / "lfw", {"Ann_Lee": 4, "Bob": 3, "Cy": 2, "Di": 1})
    return load_people(root, size=16)[0]


def stems(faces: Faces) -> set[str]:
    return {file.rpartition("/")[2].removesuffix(".jpg") for file in faces.files}


@pytest.mark.parametrize("first", ["1\t3\n", "3\n", ""])
def test_rows_of_both_kinds_are_read(tmp_path: Path, first: str) -> None:
    pairs = read_pairs(write(tmp_path, first + TEXT.split("\n", 1)[1]))
    assert pairs.same[0] == ("Ann_Lee/Ann_Lee_0001", "Ann_Lee/Ann_Lee_0004")
    assert pairs.different[1] == ("Bob/Bob_0001", "Cy/Cy_0002")
    assert (len(pairs.same), len(pairs.different)) == (3, 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "No pair"),
        ("2\t3\n" + TEXT.split("\n", 1)[1], "promises 6"),
        ("Ann 1\n", "Line 1 is no pair"),
        ("1\nAnn 1 2\nAnn 1 Ann 2\n", "Line 3 is no pair"),
        ("Ann one 2\n", "names no picture"),
        ("Ann 0 2\n", "names no picture"),
        (f"Ann 1 {'9' * 5000}\n", "names no picture"),
        (f"{'9' * 5000}\nAnn 1 2\n", "Line 1 is no pair"),
        ("../Ann 1 2\n", "names no picture"),
        ("Ann\t1\tBob\t1\n", "No pair shows one person"),
        ("\x1b[31m 1 2 3 4 5", r"\\x1b"),
    ],
)
def test_a_faulty_file_is_said(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_pairs(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"Jos\xe9 1 2\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_pairs(tmp_path / "latin.txt")


def test_only_pictures_that_pairs_name_are_read(tmp_path: Path) -> None:
    root = lfw(tmp_path / "lfw", {"Ann_Lee": 5, "Bob": 3, "Cy": 2, "Di": 1, "Eve": 2})
    pairs = read_pairs(write(tmp_path, TEXT))
    faces, told = load_people(root, size=16, only=pairs.stems)
    assert stems(faces) == {
        "Ann_Lee_0001", "Ann_Lee_0004", "Bob_0001", "Bob_0002", "Bob_0003", "Cy_0001", "Cy_0002",
        "Di_0001",
    }  # fmt: skip
    assert "5 pictures left out, which no pair names" in told.summary()


def test_a_folder_of_other_people_is_said(tmp_path: Path) -> None:
    root = lfw(tmp_path / "lfw", {"Eve": 3, "Flo": 2})
    with pytest.raises(InputError, match=r"None of the 5 pictures .* Eve/Eve_0001.jpg"):
        load_people(root, size=16, only=read_pairs(write(tmp_path, TEXT)).stems)


def test_one_half_of_a_pair_is_attacked_and_the_other_enrolled(
    faces: Faces, tmp_path: Path
) -> None:
    pairs = read_pairs(write(tmp_path, TEXT))
    for seed in range(5):
        (enrolled, attacked, few), partners, impostors, _ = vars(
            split_by_pairs(faces, pairs, Rng(seed), 1)
        ).values()
        taken = stems(attacked)
        assert len(taken) == 2 and {s.rpartition("_")[0] for s in taken} == {"Ann_Lee", "Bob"}
        assert not taken & stems(enrolled) and len(enrolled) == len(faces) - 2
        beside = {enrolled.files[i].rpartition("/")[2].removesuffix(".jpg") for i in partners}
        given = {frozenset(name.rpartition("/")[2] for name in pair) for pair in pairs.same}
        assert {frozenset((a, b)) for a in taken for b in beside} & given
        assert len(beside) == 2 and set(few) == {"Cy", "Di"}
        for a, b in impostors:
            assert enrolled.people[a] != enrolled.people[b]


def test_several_pictures_of_a_person_are_attacked_and_partners_stay_enrolled(
    faces: Faces, tmp_path: Path
) -> None:
    found = split_by_pairs(faces, read_pairs(write(tmp_path, TEXT)), Rng(0), 2)
    taken = stems(found.split.attacked)
    beside = {
        found.split.enrolment.files[i].rpartition("/")[2].removesuffix(".jpg")
        for i in found.partners
    }
    assert taken >= {"Bob_0001", "Bob_0003"} or len(taken & {f"Bob_000{k}" for k in (1, 2, 3)}) == 1
    assert not taken & beside


def test_the_number_of_people_is_limited_by_a_draw(faces: Faces, tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, TEXT))
    drawn = {
        next(iter(stems(split_by_pairs(faces, pairs, Rng(s), 1, attacked_people=1).split.attacked)))
        for s in range(12)
    }
    assert {name.rpartition("_")[0] for name in drawn} == {"Ann_Lee", "Bob"}


def test_pairs_of_which_half_is_missing_leave_nobody(faces: Faces) -> None:
    with pytest.raises(InputError, match="No pair of one person"):
        split_by_pairs(faces, Pairs((("Di/Di_0001", "Di/Di_0002"),), ()), Rng(0), 1)
