"""Overlap of private and public: copies however they were cut, and people by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leakaudit.core.rng import Rng
from leakaudit.demo.people import draw_people, portraits
from leakaudit.models.faces import Faces, load_crowd, load_people
from leakaudit.models.overlap import overlap, shared_people


def pictures(folder: Path, count: int, seed: int) -> list[Image.Image]:
    """So many smooth pictures of 160 x 200, two of each person in the folder."""
    made = []
    draw = np.random.default_rng(seed)
    for k in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (10, 8, 3), dtype=np.uint8))
        made.append(coarse.resize((160, 200), Image.Resampling.BICUBIC))
        (folder / f"ann{k // 2}").mkdir(parents=True, exist_ok=True)
        made[-1].save(folder / f"ann{k // 2}/{k}.png")
    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.resize((80, 100)),
        lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda p: p.crop((0, 20, 160, 180)),
        lambda p: p.crop((30, 60, 130, 160)),
        lambda p: p.resize((64, 64)),
        lambda p: p.crop((30, 60, 130, 160)).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ],
    ids=["rescaled", "mirrored", "its square", "the audited crop", "squeezed", "crop mirrored"],
)
def test_a_copy_is_found_however_it_was_cut(tmp_path: Path, change) -> None:
    private = pictures(tmp_path / "private", 6, 0)
    pictures(tmp_path / "public", 6, 1)
    change(private[3]).save(tmp_path / "public/copy.jpg", quality=85)
    faces, _ = load_people(tmp_path / "private", size=32, crop=(30, 60, 130, 160))
    crowd, _ = load_crowd(tmp_path / "public", size=32, rng=Rng(0))
    twins = overlap(faces, crowd.images, public_marks=crowd.marks)
    assert [(t.private, crowd.files[t.public]) for t in twins] == [(3, "copy.jpg")]


def test_other_pictures_of_the_same_people_are_no_copies() -> None:
    made = portraits(draw_people(6, Rng(0)), 4, Rng(1))
    one, other = made.images[::2], made.images[1::2]
    faces = Faces(one, made.people[::2], tuple("abcdef"))
    assert overlap(faces, other) == []
    assert len(overlap(faces, one.flip(3))) == len(one)


def named(*names: str) -> Faces:
    return Faces(torch.zeros(len(names), 3, 8, 8), torch.arange(len(names)), names)


def test_people_are_found_by_folder_and_by_numbered_files() -> None:
    faces = named("Ann_Lee", "Bob Ray", "Cy", "Di")
    files = ("train/ann-lee/1.jpg", "Bob_Ray_0001.jpg", "Cyd_0001.jpg", "di.jpg")
    shared = shared_people(faces, files)
    assert shared.named == ("Ann_Lee", "Bob Ray") and shared.numbered == ()


def test_people_are_found_however_their_names_are_spelt() -> None:
    """Accents in one character or two, other cases, and counts of any length behind the name."""
    faces = named("Jos\u00e9 Ruiz", "ann_lee", "Zo\u00eb")
    files = ("JOSE\u0301-RUIZ/1.jpg", "Ann Lee 7.jpg", "Zo\u00eba_1.jpg", "x/Zoe_1.jpg")
    assert shared_people(faces, files).named == ("Jos\u00e9 Ruiz", "ann_lee")


def test_mere_numbers_are_told_apart() -> None:
    shared = shared_people(named("00234", "s12", "Ann"), ("00234/a.jpg", "S12/b.jpg", "x/c.jpg"))
    assert shared.named == () and shared.numbered == ("00234", "s12")


def test_people_who_were_left_out_do_not_count() -> None:
    faces = Faces(torch.zeros(1, 3, 8, 8), torch.tensor([1]), ("Ann", "Bob"))
    assert shared_people(faces, ("Ann/1.jpg",)).named == ()
