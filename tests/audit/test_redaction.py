"""What a redacted gallery gives away to a recogniser that is retrained on redacted pictures."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from report.sample import sample_result
from torch.nn import functional as fn
from torchvision.transforms.functional import gaussian_blur

from leakaudit.audit import gallery
from leakaudit.core.rng import Rng
from leakaudit.core.types import GalleryRow, Picture
from leakaudit.demo.people import draw_people, portraits
from leakaudit.report.html import render_html

PEOPLE, PICTURES, ENROLLED = 32, 16, 12
CHANCE = 1 / PEOPLE
SIDE = 16


@pytest.fixture(scope="module")
def faces():
    """Rendered people with sixteen pictures each."""
    rng = Rng(11, ("redaction",))
    return portraits(draw_people(PEOPLE, rng.derive("people")), PICTURES, rng.derive("pictures"))


def in_the_report(images, mode):
    """What the report holds for each picture: the markup of its figure, without the caption."""
    pictures = tuple(
        Picture("original", "none", "original", gallery.shown(image, mode), True, 1.0)
        for image in images
    )
    rows = (GalleryRow("all", "person 1", pictures),)
    html = render_html(replace(sample_result(), gallery_mode=mode, gallery=rows))
    found = re.findall(r"<figure>\s*(.*?)\s*<figcaption>", html, re.DOTALL)
    assert len(found) == len(images)
    return found


def as_vector(markup):
    """A figure as numbers: the pixels of its picture, else its very characters."""
    uri = re.search(r'src="data:image/png;base64,([^"]+)"', markup)
    if uri is None:
        letters = np.frombuffer(markup.encode()[:4096].ljust(4096), dtype=np.uint8)
        return torch.from_numpy(letters / 255.0).float()
    with Image.open(io.BytesIO(base64.b64decode(uri[1]))) as picture:
        pixels = torch.from_numpy(np.asarray(picture.convert("RGB")) / 255.0).float()
    return fn.adaptive_avg_pool2d(pixels.permute(2, 0, 1), SIDE).flatten()


def named_by_a_retrained_recogniser(markups, people):
    """Share of held-out figures that it names, by discriminant analysis on the other figures.

    Pictures of each person are cleaned to their mean and spread in the common covariance within
    people, shrunk: the best linear recogniser of what is left in them.
    """
    x = torch.stack([as_vector(markup) for markup in markups]).double()
    turn = torch.arange(len(x)) % PICTURES
    known, asked = turn < ENROLLED, turn >= ENROLLED
    means = torch.stack([x[known & (people == k)].mean(0) for k in range(PEOPLE)])
    within = x[known] - means[people[known]]
    _, sizes, axes = torch.linalg.svd(within, full_matrices=False)
    spread = (sizes**2 / len(within)) + 1e-3 * (sizes**2 / len(within)).mean() + 1e-12
    whiten = axes.T / spread.sqrt()
    guess = torch.cdist(x[asked] @ whiten, means @ whiten).argmin(1)
    return float((guess == people[asked]).double().mean())


def test_a_recogniser_retrained_on_redacted_pictures_names_nobody(faces):
    figures = in_the_report(faces.images, "redacted")
    assert named_by_a_retrained_recogniser(figures, faces.people) <= 2 * CHANCE


@pytest.mark.parametrize(
    "blur",
    [
        lambda image: gaussian_blur(image, [49, 49], [8.0, 8.0]),
        lambda image: fn.interpolate(fn.adaptive_avg_pool2d(image[None], 4), 64)[0],
    ],
    ids=["blur of sigma 8", "4x4 pixels"],
)
def test_blurred_or_coarse_pictures_would_not_pass(faces, monkeypatch, blur):
    monkeypatch.setattr(gallery, "shown", lambda image, mode: gallery.data_uri(blur(image)))
    figures = in_the_report(faces.images, "redacted")
    assert named_by_a_retrained_recogniser(figures, faces.people) > 10 * CHANCE


def test_the_recogniser_names_most_people_from_whole_pictures(faces):
    assert named_by_a_retrained_recogniser(in_the_report(faces.images, "full"), faces.people) > 0.5


def test_all_withheld_pictures_are_one_silhouette(faces):
    assert len(set(in_the_report(faces.images[:20], "redacted"))) == 1
