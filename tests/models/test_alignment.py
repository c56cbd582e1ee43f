"""Alignment by landmarks: closed forms for the geometry, rendered faces for the search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from portraits import portrait

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.models.alignment import TEMPLATE, Aligner, aligner_of, mtcnn, similarity
from leakaudit.models.faces import load_crowd, load_people
from leakaudit.models.pictures import UnusableError


def spots(points: np.ndarray, *, size: tuple[int, int], radius: float) -> Image.Image:
    """A black picture with a soft white spot at each point (x, y)."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    light = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * radius**2)) for a, b in points)
    grey = (255 * np.clip(light, 0, 1)).astype(np.uint8)
    return Image.fromarray(np.repeat(grey[:, :, None], 3, 2))


def turned(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """The template's points, turned, scaled and moved."""
    c, s = np.cos(angle), np.sin(angle)
    return scale * TEMPLATE @ np.array([[c, s], [-s, c]]) + np.array(shift)


def brightest(picture: Image.Image, near: np.ndarray) -> np.ndarray:
    """The centre of the light within 6 pixels of a place."""
    grey = np.asarray(picture, dtype=float).mean(2)
    x, y = np.meshgrid(np.arange(grey.shape[1]) + 0.5, np.arange(grey.shape[0]) + 0.5)
    light = grey * ((x - near[0]) ** 2 + (y - near[1]) ** 2 < 36)
    return np.array([(light * x).sum(), (light * y).sum()]) / light.sum()


def test_a_known_similarity_is_found_exactly() -> None:
    a, b = similarity(turned(0.4, 2.5, (7, -3)), TEMPLATE)
    undone = 1 / (2.5 * np.exp(0.4j))
    assert a == pytest.approx(undone) and b == pytest.approx(-(7 - 3j) * undone)


def test_of_points_that_no_similarity_fits_it_is_the_least_squares_one() -> None:
    points = TEMPLATE + np.random.default_rng(0).normal(size=(5, 2))
    a, b = similarity(points, TEMPLATE)
    p, q = (z[:, 0] + 1j * z[:, 1] for z in (points, TEMPLATE))
    best = np.abs(a * p + b - q) ** 2
    for da, db in ((1e-3, 0), (1e-3j, 0), (0, 1e-2), (0, 1e-2j), (-1e-3, 0), (0, -1e-2j)):
        assert best.sum() < (np.abs((a + da) * p + b + db - q) ** 2).sum()


@pytest.mark.parametrize("angle", [0.0, 0.35, -0.6])
@pytest.mark.parametrize("scale", [0.8, 3.0])
@pytest.mark.parametrize("closer", [1.0, 1.4])
def test_landmarks_land_where_the_template_has_them(
    angle: float, scale: float, closer: float
) -> None:
    points = turned(angle, scale, (300, 300))
    picture = spots(points, size=(900, 900), radius=2.5 * scale)
    cut, outside = Aligner(lambda _: points, closer=closer).cut(picture, 112)
    foot = np.array([56.0, 112.0])
    for place in foot + closer * (TEMPLATE - foot):
        assert brightest(cut, place) == pytest.approx(place, abs=0.35)
    assert cut.size == (112, 112) and outside == 0


def test_the_crop_is_antialiased() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (1200, 1200, 1), dtype=np.uint8) * 255
    points = turned(0.0, 8.0, (150, 150))
    cut, _ = Aligner(lambda _: points).cut(Image.fromarray(noise.repeat(3, 2)), 112)
    assert np.asarray(cut).std() < 30  # 64 pixels of deviation 127 each go into one


def test_outside_of_the_picture_its_edge_goes_on_and_the_share_is_told() -> None:
    white = Image.new("RGB", (112, 56), "white")
    cut, outside = Aligner(lambda _: TEMPLATE).cut(white, 64)
    assert np.asarray(cut).min() == 255
    assert outside == pytest.approx(0.5, abs=0.02)


def test_a_rendered_face_is_found_wherever_it_lies_and_comes_out_alike() -> None:
    face = portrait(1)
    canvas = Image.new("RGB", (420, 300), (90, 110, 90))
    canvas.paste(face.resize((220, 220)), (150, 40))
    aligner = aligner_of("mtcnn")
    assert aligner is not None
    one, _ = aligner.cut(face, 64)
    other, _ = aligner.cut(canvas, 64)
    inner = slice(12, 60)
    difference = np.asarray(one, dtype=float)[inner, inner] - np.asarray(other)[inner, inner]
    assert np.abs(difference).mean() < 12
    straight = np.asarray(face.resize((64, 64)), dtype=float)[inner, inner]
    assert np.abs(difference).mean() < np.abs(straight - np.asarray(one)[inner, inner]).mean()


def test_landmarks_follow_a_turned_face() -> None:
    find = mtcnn()
    face = portrait(2)
    upright, turn = find(face), find(face.rotate(20, fillcolor=(120, 120, 120)))
    assert upright is not None and turn is not None

    def slope(points: np.ndarray) -> float:
        eyes = points[1] - points[0]
        return float(np.degrees(np.arctan2(-eyes[1], eyes[0])))

    assert slope(turn) - slope(upright) == pytest.approx(20, abs=6)


def test_of_two_faces_the_large_one_near_the_middle_is_taken() -> None:
    canvas = Image.new("RGB", (400, 240), (100, 120, 140))
    canvas.paste(portrait(1).resize((200, 200)), (110, 20))
    canvas.paste(portrait(2).resize((80, 80)), (10, 10))
    found = mtcnn()(canvas)
    assert found is not None and 110 < found[:, 0].mean() < 310


def test_a_large_picture_is_searched_small_and_told_in_its_own_pixels() -> None:
    face = portrait(3)
    small, large = mtcnn()(face), mtcnn()(face.resize((1600, 1600)))
    assert small is not None and large is not None
    assert large / 10 == pytest.approx(small, abs=4)


@pytest.mark.parametrize("size", [(12, 12), (19, 300), (20, 20), (600, 22), (100, 100)])
def test_where_nobody_is_nobody_is_found(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    for picture in (Image.new("RGB", size, "grey"), Image.fromarray(noise)):
        with pytest.raises(UnusableError, match="without a face"):
            Aligner(mtcnn()).cut(picture, 32)


def test_pictures_without_a_face_are_skipped_counted_and_said(tmp_path) -> None:
    for person in (1, 2):
        (tmp_path / f"p{person}").mkdir()
        portrait(person).save(tmp_path / f"p{person}/face.png")
        Image.new("RGB", (80, 80), "grey").save(tmp_path / f"p{person}/wall.png")
    align = aligner_of("mtcnn")
    faces, told = load_people(tmp_path, size=32, align=align)
    assert faces.files == ("p1/face.png", "p2/face.png") and (told.found, told.used) == (4, 2)
    assert "2 skipped: 2 without a face that was found (p1/wall.png)" in told.summary()
    crowd, told = load_crowd(tmp_path, size=32, rng=Rng(0), align=align)
    assert torch.equal(crowd.images, faces.images)  # one geometry for private and public
    assert len(told.skipped) == 2
    again, _ = load_people(tmp_path, size=32, align=aligner_of("mtcnn"))
    assert torch.equal(again.images, faces.images)


def test_a_draw_of_public_pictures_goes_on_past_those_without_a_face(tmp_path) -> None:
    for k in range(4):
        portrait(k + 1).save(tmp_path / f"face{k}.png")
        Image.new("RGB", (80, 80), (60 * k, 0, 0)).save(tmp_path / f"wall{k}.png")
    crowd, _ = load_crowd(tmp_path, size=32, limit=3, rng=Rng(0), align=aligner_of("mtcnn"))
    assert len(crowd) == 3 and all(file.startswith("face") for file in crowd.files)


def test_tight_pictures_are_counted_as_cut_off(tmp_path) -> None:
    tight = Aligner(lambda picture: TEMPLATE * picture.width / 80 - 20)
    for k in range(3):
        Image.fromarray(np.full((80, 80, 3), 40 * k, dtype=np.uint8)).save(tmp_path / f"{k}.png")
    _, told = load_crowd(tmp_path, size=32, rng=Rng(0), align=tight)
    assert told.cut_off == 3 and "3 aligned pictures end inside the crop" in told.summary()


def test_none_aligns_nothing() -> None:
    assert aligner_of(None) is None and aligner_of("none") is None


@pytest.mark.parametrize("text", ["mtcn", "mtcnn:x", "mtcnn:0.5", "mtcnn:9", "mtcnn:nan", "none:2"])
def test_other_ways_of_aligning_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="align"):
        aligner_of(text)
