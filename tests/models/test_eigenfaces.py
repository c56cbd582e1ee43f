"""Eigenfaces against the singular value decomposition, which gives the optimum by other means."""

from __future__ import annotations

import pytest
import torch
from toys import SIDE, normal, toy_faces

from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import WhiteBox
from leakaudit.models.eigenfaces import eigenfaces

PICTURES = 0.5 + 0.1 * normal(40, 3, 8, 8, seed=1, dtype=torch.float64)
CENTRED = (PICTURES - PICTURES.mean(0)).flatten(1)
SINGULAR = torch.linalg.svd(CENTRED)


def test_directions_and_deviations_are_those_of_the_singular_value_decomposition() -> None:
    made = eigenfaces(PICTURES, 5)
    overlap = made.directions.T @ SINGULAR.Vh[:5].T
    torch.testing.assert_close(overlap.abs(), torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(made.deviations, SINGULAR.S[:5] / len(PICTURES) ** 0.5)
    assert made.shape.latent == 5 and made.shape.size == 8


@pytest.mark.parametrize("components", [1, 5, 30])
def test_the_error_of_rebuilding_is_the_discarded_variance(components: int) -> None:
    made = eigenfaces(PICTURES, components)
    rebuilt = made.unclamped(made.project(PICTURES))
    error = (rebuilt - PICTURES).square().sum()
    torch.testing.assert_close(error, SINGULAR.S[components:].square().sum())


def test_public_pictures_have_latents_of_mean_zero_and_unit_covariance() -> None:
    made = eigenfaces(PICTURES, 6)
    latents = made.project(PICTURES)
    torch.testing.assert_close(latents, made.public)
    torch.testing.assert_close(latents.mean(0), torch.zeros(6, dtype=torch.float64))
    covariance = latents.T @ latents / len(latents)
    torch.testing.assert_close(covariance, torch.eye(6, dtype=torch.float64))


def test_draws_keep_mean_and_covariance_and_belong_to_the_stream() -> None:
    made = eigenfaces(PICTURES, 4)
    z = made.draw(20000, Rng(1))
    assert float(z.mean(0).abs().max()) < 0.03
    assert float((torch.cov(z.T) - torch.eye(4, dtype=torch.float64)).abs().max()) < 0.05
    assert torch.equal(z, made.draw(20000, Rng(1)))
    assert not torch.equal(z, made.draw(20000, Rng(2)))


def test_faces_are_pictures_and_clamped_only_there() -> None:
    made = eigenfaces(PICTURES, 30)
    far = made(100 * made.draw(4, Rng(1)))
    assert float(far.min()) == 0 and float(far.max()) == 1
    z = made.draw(4, Rng(1))
    torch.testing.assert_close(made(z), made.unclamped(z).clamp(0, 1))
    samples = made.sample(5, Rng(1), batch=2)
    torch.testing.assert_close(samples, made(made.draw(5, Rng(1))))
    assert samples.shape == (5, 3, 8, 8)


def test_components_without_variance_are_left_out() -> None:
    toy = toy_faces()  # pictures of eight latents
    assert eigenfaces(toy.public, 40).shape.latent == 8
    assert eigenfaces(PICTURES, 100).shape.latent == len(PICTURES) - 1


def test_pictures_without_any_difference_are_refused_and_so_is_a_single_one() -> None:
    with pytest.raises(UsageError, match="no two"):
        eigenfaces(torch.ones(4, 3, 8, 8), 3)
    with pytest.raises(UsageError, match="pictures must be 2 or more"):
        eigenfaces(PICTURES[:1], 3)


def test_the_latent_search_runs_on_eigenfaces_and_finds_pictures_in_their_span() -> None:
    toy = toy_faces()
    encoder = torch.nn.AvgPool2d(4)
    made = eigenfaces(toy.public, 40)
    held = WhiteBox(toy.public, encoder, made)
    ready = WhiteBoxLatent(samples=60).prepare(held, Rng(1))
    guess = ready.reconstruct(encoder(toy.images), Rng(2))
    assert guess.images is not None and guess.images.shape == (8, 3, SIDE, SIDE)
    assert float((guess.images - toy.images).square().mean().sqrt()) < 0.02
