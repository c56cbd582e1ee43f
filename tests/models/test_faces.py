"""Faces from folders: hostile pictures are skipped and said, faulty tables are explained."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leakaudit.core.errors import InputError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.models import pictures
from leakaudit.models.faces import Faces, load_people, load_public
from leakaudit.models.overlap import overlap
from leakaudit.models.pictures import list_folder


def noise(seed: int, *, width: int = 40, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise(zlib.crc32(name.encode())).save(folder / name)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    add(folder, *(f"{who}/{i}.png" for who in ("ann", "bob", "cy") for i in range(3)))
    return folder


def reasons(folder: Path) -> dict[str, str]:
    return dict(load_people(folder, size=16)[1].skipped)


def made(n_people: int, each: int) -> Faces:
    n = n_people * each
    return Faces(
        images=torch.rand(n, 3, 8, 8, generator=Rng(0).torch()),
        people=torch.arange(n) // each,
        names=tuple(f"p{i}" for i in range(n_people)),
        attributes=torch.arange(n, dtype=torch.float32)[:, None].remainder(2),
        attribute_names=("smile",),
        files=tuple(f"{i:03}.png" for i in range(n)),
    )


# What is read


def test_one_folder_per_person_becomes_faces_in_sorted_order(people: Path) -> None:
    faces, report = load_people(people, size=16)
    assert faces.images.shape == (9, 3, 16, 16) and faces.images.dtype == torch.float32
    assert float(faces.images.min()) >= 0 and float(faces.images.max()) <= 1
    assert faces.names == ("ann", "bob", "cy") and faces.n_people == 3 and len(faces) == 9
    assert faces.people.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert faces.files[:2] == ("ann/0.png", "ann/1.png")
    assert (report.found, report.used, report.skipped) == (9, 9, ())
    assert report.summary() == "9 of 9 pictures used."


def test_pixels_keep_their_values_and_channels(tmp_path: Path) -> None:
    for who, colour in (("a", (255, 0, 51)), ("b", (0, 102, 255))):
        (tmp_path / who).mkdir()
        Image.new("RGB", (30, 20), colour).save(tmp_path / who / "x.png")
    faces, _ = load_people(tmp_path, size=8)
    assert torch.allclose(faces.images[0, :, 3, 3], torch.tensor([1.0, 0.0, 0.2]))
    assert torch.allclose(faces.images[1, :, 3, 3], torch.tensor([0.0, 0.4, 1.0]))


def test_the_centred_square_is_kept_and_the_crop_box_comes_first(tmp_path: Path) -> None:
    picture = Image.new("RGB", (60, 40), "black")
    picture.paste("white", (10, 0, 50, 40))
    picture.save(tmp_path / "x.png")
    assert pictures.read_picture(tmp_path / "x.png", size=8).min() == 255
    assert pictures.read_picture(tmp_path / "x.png", size=8, crop=(0, 0, 10, 40)).max() == 0


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[::2] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    small = pictures.read_picture(tmp_path / "x.png", size=8).astype(int)
    assert abs(small - 127).max() < 20


def test_an_exif_rotation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 40), "black")
    picture.paste("white", (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    picture.save(tmp_path / "x.jpg", exif=exif, quality=95)
    upright = pictures.read_picture(tmp_path / "x.jpg", size=8)
    assert upright[:, 7].min() > 200 and upright[:, 0].max() < 50


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "x.png"), ("P", "x.gif"), ("CMYK", "x.jpg"), ("1", "x.png"), ("LA", "x.png"),
     ("L", "x.pgm"), ("RGB", "x.webp"), ("RGB", "x.tif"), ("RGB", "x.bmp")],
)  # fmt: skip
def test_other_modes_and_formats_become_rgb(tmp_path: Path, mode: str, name: str) -> None:
    Image.new("RGB", (20, 20), "white").convert(mode).save(tmp_path / name)
    assert pictures.read_picture(tmp_path / name, size=8).min() > 250


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert pictures.read_picture(tmp_path / "x.png", size=8).min() == 255
    palette = Image.new("P", (20, 20), 0)
    palette.save(tmp_path / "x.gif", transparency=0)
    assert pictures.read_picture(tmp_path / "x.gif", size=8).min() == 255


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 128 * 257, dtype=np.uint16)).save(tmp_path / "x.png")
    assert set(pictures.read_picture(tmp_path / "x.png", size=8).ravel()) == {128}


def ramp() -> np.ndarray:
    """Grey from left to right, 16 bits."""
    return np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))


@pytest.mark.parametrize(
    "name", ["L.png", "LA.png", "P.png", "RGBA.png", "CMYK.jpg", "16.png", "16.tif", "be.tif"]
)
def test_one_ramp_is_the_same_in_every_mode(tmp_path: Path, name: str) -> None:
    mode = name.partition(".")[0]
    eight = Image.fromarray((ramp() // 257).astype(np.uint8))
    deep = {"16": ramp(), "be": ramp().astype(">u2")}
    grey = Image.fromarray(deep[mode]) if mode in deep else eight
    picture = eight.convert("RGB").quantize(128) if mode == "P" else grey
    (picture.convert(mode) if mode in ("LA", "RGBA", "CMYK") else picture).save(tmp_path / name)
    read = pictures.read_picture(tmp_path / name, size=16).astype(int)
    wanted = np.asarray(eight.resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    assert abs(read - wanted[:, :, None]).max() <= 3


@pytest.mark.parametrize("bits", [10, 12])
def test_a_camera_of_fewer_bits_than_its_file_is_not_dark(tmp_path: Path, bits: int) -> None:
    Image.fromarray(ramp() >> (16 - bits)).save(tmp_path / "x.png")
    Image.fromarray(ramp()).save(tmp_path / "whole.png")
    read, wanted = (
        pictures.read_picture(tmp_path / name, size=16).astype(int)
        for name in ("x.png", "whole.png")
    )
    assert abs(read - wanted).max() <= 2


def test_whole_numbers_beyond_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(ramp().astype(np.int32) * 1000).save(tmp_path / "x.tif")
    with pytest.raises(pictures.UnusableError, match="beyond 16 bits"):
        pictures.read_picture(tmp_path / "x.tif", size=16)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_of_the_eight_orientations_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (48, 48), "black")
    upright.paste("white", (0, 0, 24, 24))
    upright.paste((128, 128, 128), (24, 0, 48, 24))
    turn = Image.Transpose
    stored = {  # how a camera that is held so writes the upright picture
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE,
        6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270,
    }  # fmt: skip
    picture = upright.transpose(stored[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "x.png", exif=exif)
    read = pictures.read_picture(tmp_path / "x.png", size=8).astype(int)
    assert read[1, 1, 0] > 230 and abs(read[1, 6, 0] - 128) < 20 and read[6].max() < 20


# What is skipped, and why


def test_a_truncated_picture_is_skipped_and_said(people: Path) -> None:
    noise(1, width=200, height=200).save(people / "ann/t.jpg")
    whole = (people / "ann/t.jpg").read_bytes()
    (people / "ann/t.jpg").write_bytes(whole[: len(whole) // 2])
    assert reasons(people) == {"ann/t.jpg": "truncated"}


def test_a_text_file_named_jpg_is_skipped_and_said(people: Path) -> None:
    (people / "ann/t.jpg").write_text("not a picture")
    assert reasons(people) == {"ann/t.jpg": "not a picture of a kind that is read"}


def test_an_empty_file_is_skipped_and_said(people: Path) -> None:
    (people / "ann/t.png").touch()
    assert reasons(people) == {"ann/t.png": "empty"}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [7_100, 10_000, 60_000])
def test_a_decompression_bomb_is_skipped_without_decoding_or_warning(
    people: Path, side: int
) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))
    (people / "ann/t.png").write_bytes(bomb)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert reasons(people) == {"ann/t.png": "above the limit of 50 million pixels"}
    assert caught == []


def test_absurd_dimensions_are_skipped_and_said(people: Path) -> None:
    Image.new("RGB", (5000, 2)).save(people / "ann/t.png")
    assert reasons(people) == {"ann/t.png": "smaller than 8 pixels"}


def test_a_picture_smaller_than_the_crop_box_is_skipped_and_said(people: Path) -> None:
    noise(1, width=80, height=80).save(people / "bob/large.png")
    noise(2, width=80, height=80).save(people / "ann/large.png")
    faces, report = load_people(people, size=16, crop=(0, 0, 60, 60))
    assert len(faces) == 2 and len(report.skipped) == 9
    assert report.skipped[0][1] == "smaller than the crop box"


def test_broken_chunks_are_skipped_and_said(people: Path) -> None:
    whole = bytearray((people / "ann/0.png").read_bytes())
    whole[60:400] = b"\xff" * 340
    (people / "ann/t.png").write_bytes(whole)
    assert reasons(people)["ann/t.png"] in ("damaged", "truncated")


def test_a_picture_without_permission_is_skipped_and_said(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def refuse(path: Path, mode: str) -> object:
        if path.name == "0.png" and path.parent.name == "ann":
            raise PermissionError(13, "Permission denied")
        return real(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    assert reasons(people) == {"ann/0.png": "without permission to read"}


def test_a_named_pipe_does_not_stop_the_audit(people: Path) -> None:
    os.mkfifo(people / "ann/t.png")
    assert reasons(people) == {"ann/t.png": "not a regular file"}


def test_links_that_leave_the_folder_are_skipped_and_said(people: Path, tmp_path: Path) -> None:
    add(tmp_path / "elsewhere", "x.png")
    (people / "ann/out.png").symlink_to(tmp_path / "elsewhere/x.png")
    (people / "dora").symlink_to(tmp_path / "elsewhere")
    (people / "ann/none.png").symlink_to("nothing.png")
    (people / "bob/loop").symlink_to(people)
    told = reasons(people)
    assert told["ann/out.png"] == told["dora"] == "a link that leaves the folder"
    assert told["ann/none.png"] == "a link that leads nowhere"
    assert told["bob/loop"] == "a link to a folder, which is not followed"


def test_a_link_inside_the_folder_is_read(people: Path) -> None:
    (people / "dora").mkdir()
    add(people, ".store/x.png")
    (people / "dora/x.png").symlink_to(people / ".store/x.png")
    assert "dora" in load_people(people, size=16)[0].names


def test_hidden_files_and_other_kinds_are_ignored(people: Path) -> None:
    add(people, ".hidden/x.png", "ann/._0.png")
    (people / "ann/notes.txt").write_text("x")
    assert load_people(people, size=16)[1].found == 9


def test_a_kind_of_picture_that_is_not_read_is_said(people: Path) -> None:
    (people / "ann/x.HEIC").write_bytes(b"x")
    assert ".heic pictures are not read" in reasons(people)["ann/x.HEIC"]


def test_an_exact_copy_is_skipped_so_that_it_cannot_be_enrolled(people: Path) -> None:
    (people / "bob/9.png").write_bytes((people / "ann/0.png").read_bytes())
    assert reasons(people) == {"bob/9.png": "the same picture as an earlier one"}


def test_hostile_names_are_kept_as_data_and_shown_harmlessly(people: Path) -> None:
    script, escape = "<script>alert(1)</script>", "\x1b[2Jgone\n"
    add(people, f"{escape}/{{{{x}}}}.png", f"ann/{script.replace('/', '_')}.png")
    (people / escape / "bad.png").touch()
    faces, report = load_people(people, size=16)
    assert escape in faces.names and f"{escape}/{{{{x}}}}.png" in faces.files
    assert "\x1b" not in report.summary() and "\n" not in report.summary()
    assert "\\x1b[2Jgone" in report.summary()


def test_names_that_are_not_utf8_can_be_written_down(people: Path) -> None:
    raw = os.fsencode(people / "ann") + b"/\xff.png"
    with open(raw, "wb") as file:
        noise(5).save(file, "PNG")
    faces, _ = load_people(people, size=16)
    assert "ann/\\xff.png" in faces.files
    assert "".join(faces.files).encode("utf-8")


def test_two_names_that_are_spelled_alike_lose_no_picture_silently(tmp_path: Path) -> None:
    noise(1).save(tmp_path / "bad\\xff.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png")).write_bytes(
        (tmp_path / "bad\\xff.png").read_bytes()
    )
    found = list_folder(tmp_path)
    assert list(found.pictures) == ["bad\\xff.png"]
    assert [name for name, _ in found.skipped] == ["bad\\xff.png"]
    assert found.skipped[0][1] == "spelled like another one, whose bytes differ"


def test_two_people_whose_names_are_spelled_alike_do_not_become_one(people: Path) -> None:
    odd = [people / "p\\xff", Path(os.fsdecode(os.fsencode(people) + b"/p\xff"))]
    for place, folder in enumerate(odd):
        folder.mkdir()
        for k in range(3):
            noise(10 * place + k).save(folder / f"{place}-{k}.png")
    faces, report = load_people(people, size=16)
    assert faces.names.count("p\\xff") == 1
    assert sum(file.startswith("p\\xff/") for file in faces.files) == 3
    assert "spelled like another one" in report.summary()


def test_the_summary_counts_reasons_with_an_example(people: Path) -> None:
    for name in ("a", "b"):
        (people / f"ann/{name}.png").touch()
    (people / "bob/t.jpg").write_text("x")
    assert load_people(people, size=16)[1].summary() == (
        "9 of 12 pictures used. 3 skipped: 2 empty (ann/a.png); "
        "1 not a picture of a kind that is read (bob/t.jpg)."
    )


# What can't be audited


def fails(folder: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load_people(folder, size=16, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    assert "no such folder" in fails(tmp_path / "none")


def test_a_file_instead_of_a_folder_is_said(people: Path) -> None:
    assert "a file, not a folder" in fails(people / "ann/0.png")


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.csv").touch()
    assert "found instead: 1 x .csv, 1 x .txt" in fails(tmp_path).replace(
        "1 x .txt, 1 x .csv", "1 x .csv, 1 x .txt"
    )


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    assert "found instead: nothing" in fails(tmp_path)


def test_one_person_only_is_said(tmp_path: Path) -> None:
    add(tmp_path, "ann/0.png", "ann/1.png")
    assert "Only one person is found, 'ann'" in fails(tmp_path)


def test_pictures_that_are_all_unreadable_are_said(people: Path) -> None:
    for path in people.rglob("*.png"):
        path.write_bytes(b"x")
    text = fails(people)
    assert "None of the 9 pictures can be used" in text
    assert "9 not a picture" in text and "ann/0.png" in text


def test_parts_of_a_data_set_are_no_people(tmp_path: Path) -> None:
    add(
        tmp_path,
        *(f"{part}/{who}/{k}.png" for part in ("train", "Val") for who in "ab" for k in "12"),
    )
    told = fails(tmp_path)
    assert "parts of a data set, not people: Val, train" in told
    assert "Val, or a table file,person with --labels" in told
    add(tmp_path, "cy/1.png")  # beside people they are names like others
    assert set(load_people(tmp_path, size=16)[0].names) >= {"Val", "train", "cy"}


def test_flat_pictures_without_labels_say_what_to_do(tmp_path: Path) -> None:
    add(tmp_path, "0.png", "1.png")
    assert "lie flat" in fails(tmp_path) and "--labels" in fails(tmp_path)


def test_a_loose_picture_among_folders_is_skipped_and_said(people: Path) -> None:
    add(people, "loose.png")
    assert reasons(people) == {"loose.png": "outside any person's folder"}


@pytest.mark.parametrize("crop", [(5, 0, 5, 9), (-1, 0, 5, 5), (0, 9, 5, 5)])
def test_an_impossible_crop_is_said(people: Path, crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="holds no pixels"):
        load_people(people, size=16, crop=crop)


def test_limits_keep_the_first_by_name_and_are_said(people: Path) -> None:
    faces, report = load_people(people, size=16, limit_people=2, limit_per_person=1)
    assert faces.files == ("ann/0.png", "bob/0.png") and faces.names == ("ann", "bob")
    assert "7 pictures left out by limits, 1 of 3 people" in report.summary()


# Tables


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    add(tmp_path / "flat", *(f"{i}.png" for i in range(4)))
    return tmp_path / "flat"


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_labels_name_the_people_of_flat_pictures(flat: Path) -> None:
    labels = table(flat, "file,person\n0.png,ann\n1.png,bob\n3.png, ann \n")
    faces, report = load_people(flat, size=16, labels=labels)
    assert faces.files == ("0.png", "1.png", "3.png") and faces.people.tolist() == [0, 1, 0]
    assert report.skipped == (("2.png", "without a row in the labels"),)


@pytest.mark.parametrize(
    "written", ["flat/{}.png", "{}.png", "./{}.png", "other\\{}.png", "/a/{}.png"]
)
def test_files_match_by_folder_by_the_tables_folder_and_by_base_name(
    flat: Path, written: str
) -> None:
    rows = "".join(f"{written.format(i)},p{i}\n" for i in range(4))
    labels = table(flat.parent, "\ufefffile,person\r\n" + rows)
    assert load_people(flat, size=16, labels=labels)[0].n_people == 4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,person\n0.png,a\n", "no column 'file' (found: name,person)"),
        ("file;person\n0.png;a\n", "separated by commas"),
        ("file,person\n0.png,a\nx.png,b\n../../etc/passwd,b\n", "2 files that are not in the"),
        ("file,person\n0.png,a\n1.png,b\nflat/0.png,b\n", "Lines 2 and 4 name the same file"),
        ("file,person\n0.png,a\n1.png,\n", "Line 3 names no person"),
        ("file,person\n0.png\n", "Line 2 has 1 cells where the header has 2"),
        ("file,person,file\n0.png,a,1\n", "'file' stands twice"),
        ("", "is empty"),
        ('file,person\n"0.png,a\n', "no valid CSV"),
        (b"file,person\n0.png,Andr\xe9\n", "not UTF-8"),
    ],
)  # fmt: skip
def test_a_faulty_table_of_labels_is_said(flat: Path, text: str | bytes, told: str) -> None:
    assert told in fails(flat, labels=table(flat.parent, text))


def test_a_missing_table_is_said(flat: Path) -> None:
    assert "can't be read" in fails(flat, labels=flat / "none.csv")


def test_attributes_follow_the_pictures_and_unknown_ones_are_nan(people: Path) -> None:
    text = "file,person,smile,hat\nbob/1.png,zz,1,\nann/0.png,zz,0,1.0\nother.png,q,1,1\n"
    faces, report = load_people(people, size=16, attributes=table(people.parent, text))
    assert faces.attribute_names == ("smile", "hat") and faces.attributes is not None
    assert faces.attributes[0].tolist() == [0.0, 1.0]
    assert faces.attributes[4, 0] == 1 and faces.attributes[4, 1].isnan()
    assert int(faces.attributes.isnan().sum()) == 15
    assert "7 pictures have no row of attributes" in report.summary()


def test_minus_one_and_one_are_understood(people: Path) -> None:
    text = "file,smile,hat\nann/0.png,-1,1\nann/1.png,1,1\n"
    faces, _ = load_people(people, size=16, attributes=table(people.parent, text))
    assert faces.attributes is not None
    assert faces.attributes[:2].tolist() == [[0.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,smile\nann/0.png,2\n", "Line 2, column 'smile' holds '2'"),
        ("file,smile\nann/0.png,yes\n", "holds 'yes', which is neither 0 nor 1"),
        ("file,smile\nann/0.png,-1\nann/1.png,0\n", "Line 3, column 'smile' holds '0'"),
        ("file,smile\nann/0.png,inf\n", "neither 0 nor 1"),
        ("file,smile\nx.png,1\n", "No row of the attributes fits a picture (its first file: x.png"),
        ("file,smile\n0.png,1\n", "No row of the attributes fits"),
        ("file,person\nann/0.png,ann\n", "names no attribute"),
        ("file,smile\nann/0.png,1\n./ann/0.png,0\n", "Lines 2 and 3 name the same file"),
    ],
)
def test_a_faulty_table_of_attributes_is_said(people: Path, text: str, told: str) -> None:
    assert told in fails(people, attributes=table(people.parent, text))


# Public pictures


def test_public_pictures_are_found_in_all_depths(people: Path) -> None:
    add(people, "deep/er/x.png", "top.png")
    images, report = load_public(people, size=16, rng=Rng(0))
    assert images.shape == (11, 3, 16, 16) and images.dtype == torch.float32
    assert report.used == 11


def test_a_limit_draws_readable_pictures_by_the_seed_and_says_so(people: Path) -> None:
    (people / "ann/0.png").write_bytes(b"x")
    whole, _ = load_public(people, size=16, rng=Rng(0))
    drawn, report = load_public(people, size=16, limit=5, rng=Rng(3))
    again, _ = load_public(people, size=16, limit=5, rng=Rng(3))
    other, _ = load_public(people, size=16, limit=5, rng=Rng(4))
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)
    places = [int((whole == image).flatten(1).all(1).nonzero()) for image in drawn]
    assert places == sorted(set(places)) and len(places) == 5
    assert report.used == 5 and "left out by the limit of 5" in report.summary()


def test_public_folders_without_a_usable_picture_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pictures"):
        load_public(tmp_path, size=16, rng=Rng(0))
    (tmp_path / "x.png").touch()
    with pytest.raises(InputError, match="None of the 1 pictures"):
        load_public(tmp_path, size=16, rng=Rng(0))


# Faces in memory


def test_selecting_keeps_names_whole_and_rows_together() -> None:
    faces = made(3, 2)
    part = faces.select([4, 1])
    assert part.names == faces.names and part.people.tolist() == [2, 0] and part.n_people == 2
    assert part.files == ("004.png", "001.png")
    assert part.attributes is not None and part.attributes[:, 0].tolist() == [0.0, 1.0]
    assert torch.equal(part.images, faces.images[[4, 1]])
    assert faces.select(faces.people == 1).files == ("002.png", "003.png")


def test_parts_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(InputError, match="belong together"):
        Faces(torch.rand(2, 3, 8, 8), torch.zeros(3, dtype=torch.int64), ("a",))


def test_attacked_pictures_are_never_enrolled() -> None:
    faces = made(6, 5)
    enrolment, attacked, too_few = faces.split_enrolment(Rng(0), 2)
    assert sorted(enrolment.files + attacked.files) == sorted(faces.files)
    assert torch.bincount(attacked.people).tolist() == [2] * 6 and too_few == ()
    assert attacked.names == enrolment.names == faces.names


def test_the_split_follows_the_seed_and_not_the_other_people() -> None:
    faces = made(6, 5)
    first = faces.split_enrolment(Rng(0), 2).attacked.files
    assert faces.split_enrolment(Rng(0), 2).attacked.files == first
    assert faces.split_enrolment(Rng(1), 2).attacked.files != first
    fewer = faces.select(list(range(15))).split_enrolment(Rng(0), 2).attacked.files
    assert fewer == first[:6]


def test_people_with_too_few_pictures_are_enrolled_only_and_said() -> None:
    faces = made(4, 3).select([0, 1, 2, 3, 4, 5, 6, 9])
    enrolment, attacked, too_few = faces.split_enrolment(Rng(0), 2)
    assert too_few == ("p2", "p3")
    assert set(attacked.people.tolist()) == {0, 1}
    assert set(enrolment.people.tolist()) == {0, 1, 2, 3}


def test_only_so_many_people_are_attacked_and_all_are_enrolled() -> None:
    enrolment, attacked, _ = made(6, 3).split_enrolment(Rng(0), 1, attacked_people=4)
    assert attacked.n_people == 4 and enrolment.n_people == 6


def test_a_split_that_leaves_nobody_to_attack_is_said() -> None:
    with pytest.raises(InputError, match="Nobody has the 4 pictures"):
        made(4, 3).split_enrolment(Rng(0), 3)
    with pytest.raises(UsageError):
        made(4, 3).split_enrolment(Rng(0), 0)


def test_copies_among_the_public_pictures_are_found() -> None:
    smooth = torch.nn.functional.interpolate(made(3, 4).images, size=32, mode="bilinear")
    faces = Faces(smooth, torch.arange(12) // 4, ("a", "b", "c"))
    public = torch.cat([smooth.flip(2)[:3], smooth[5:6] * 0.99, smooth[2:3]])
    assert [(twin.private, twin.public) for twin in overlap(faces, public)] == [(2, 4), (5, 3)]
    assert all(twin.distance < 0.01 for twin in overlap(faces, public))


def test_nothing_overlaps_with_nothing() -> None:
    assert overlap(made(2, 2), torch.zeros(0, 3, 8, 8)) == []


@pytest.mark.realdata
@pytest.mark.skipif("LEAKAUDIT_DATA" not in os.environ, reason="LEAKAUDIT_DATA is not set")
def test_real_folders_load_with_their_attributes() -> None:
    root = Path(os.environ["LEAKAUDIT_DATA"])
    faces, _ = load_people(
        root / "london_ccby/images", size=32, attributes=root / "london_ccby/attributes.csv"
    )
    assert faces.n_people == 102 and len(faces) == 204
    assert faces.attributes is not None and not faces.attributes.isnan().any()
