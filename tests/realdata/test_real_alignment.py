"""Real faces, aligned: found, brought to ArcFace's geometry, and told apart by its networks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from leakaudit.core.rng import Rng
from leakaudit.maths.intervals import auc
from leakaudit.models.alignment import aligner_of
from leakaudit.models.faces import Faces, load_crowd, load_people
from leakaudit.models.modules import load_module
from leakaudit.models.overlap import overlap

pytestmark = pytest.mark.realdata
HERE = Path(__file__).parent


def data() -> Path:
    return Path(os.environ["LEAKAUDIT_DATA"])


@pytest.mark.parametrize(
    "folder",
    ["celeba_dev120/images", "utkface_public8k/images", "london_ccby/images", "orl/images"],
)
def test_nearly_every_face_is_found(folder: str) -> None:
    _, told = load_crowd(data() / folder, size=32, limit=40, rng=Rng(0), align=aligner_of("mtcnn"))
    assert len(told.skipped) <= 2


def separation(faces: Faces) -> float:
    """Same person against others by cosines of a network that was trained on ArcFace's geometry."""
    weights = data() / "weights" / "mobilefacenet_ms1m_112x112_128d.pt"
    network = load_module(f"{HERE / 'mobilefacenet.py'}:ms1m", weights)
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(network(faces.images), dim=1)
    one, other = torch.triu_indices(len(faces), len(faces), 1)
    found = auc((vectors @ vectors.T)[one, other], faces.people[one] == faces.people[other])
    assert found is not None
    return found


def test_alignment_is_that_which_recognisers_were_trained_on() -> None:
    folder = data() / "celeba_dev120" / "images"
    few = {"size": 112, "limit_people": 20, "limit_per_person": 4}
    aligned = separation(load_people(folder, **few, align=aligner_of("mtcnn"))[0])
    closer = separation(load_people(folder, **few, align=aligner_of("mtcnn:1.5"))[0])
    centred = separation(load_people(folder, **few)[0])
    assert aligned > 0.98
    assert aligned > closer and aligned > centred


def test_tight_public_pictures_fit_a_closer_frame_only() -> None:
    folder = data() / "utkface_public8k" / "images"
    cut = {
        how: load_crowd(folder, size=32, limit=40, rng=Rng(0), align=aligner_of(how))[1].cut_off
        for how in ("mtcnn", "mtcnn:1.5")
    }
    assert cut["mtcnn"] > 30 and cut["mtcnn:1.5"] < 20


def test_private_and_public_people_share_no_picture() -> None:
    private, _ = load_people(data() / "celeba_dev120" / "images", size=32, limit_per_person=1)
    crowd, _ = load_crowd(data() / "utkface_public8k" / "images", size=32, limit=500, rng=Rng(0))
    assert overlap(private, crowd.images, public_marks=crowd.marks) == []
