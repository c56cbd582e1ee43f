"""The Mahalanobis cosine, in a world where directions and deviations are known."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as fn

from leakaudit.maths.mahalanobis_cosine import Deviations, mahalanobis_cosine


def known(count: int = 4000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents (N, 3), the faces (N, 7) that they make, and the turned, stretched axes."""
    random = torch.Generator().manual_seed(0)
    z = torch.randn(count, 3, generator=random, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(7, 3, generator=random, dtype=torch.float64))[0].T
    return z, z @ (torch.tensor([[10.0], [1.0], [0.5]]) * axes) + 5, axes


def test_it_is_the_cosine_of_latents_whatever_they_are_stretched_by() -> None:
    z, faces, _ = known()
    told = Deviations.fit(faces, share=1.0).told(faces)
    found = mahalanobis_cosine(told[:50], told[50:100])
    assert found == pytest.approx(fn.cosine_similarity(z[:50], z[50:100], dim=1), abs=0.1)


def test_a_face_is_itself_and_strangers_are_nobody() -> None:
    _, faces, _ = known()
    found = Deviations.fit(faces, share=1.0)
    told = found.told(faces)
    assert mahalanobis_cosine(told[:9], told[:9]) == pytest.approx(torch.ones(9).double())
    assert float(mahalanobis_cosine(told[:2000], told[2000:]).mean()) == pytest.approx(0, abs=0.05)
    other = mahalanobis_cosine(told[:9], found.told(10 - faces[:9]))
    assert other == pytest.approx(-torch.ones(9).double(), abs=0.1)


@pytest.mark.parametrize(("share", "kept"), [(0.9, 1), (0.995, 2), (0.9999, 3), (1.0, 3)])
def test_directions_hold_the_share_asked_for_and_no_more(share: float, kept: int) -> None:
    _, faces, axes = known()
    found = Deviations.fit(faces, share=share).directions
    assert found.shape == (7, kept)
    assert float((found[:, 0] @ axes[0]).abs()) == pytest.approx(0.1, rel=0.05)  # one deviation: 10


def test_its_size_and_place_are_those_of_one_deviation() -> None:
    _, faces, _ = known()
    told = Deviations.fit(faces, share=1.0).told(faces)
    assert told.T.cov() == pytest.approx(torch.eye(3).double(), abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 6, 7, 256])
@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_of_faces_that_are_all_the_same_nothing_is_told(count: int, rounding: float) -> None:
    random = torch.Generator().manual_seed(0)
    faces = 0.3 + rounding * torch.randn(count, 7, generator=random)
    told = Deviations.fit(faces).told(faces)
    assert told.shape == (count, 0)
    assert mahalanobis_cosine(told, told.flip(0)).tolist() == [1.0] * count
