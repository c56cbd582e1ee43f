"""Best responses in a linear world: least squares is the truth."""

from __future__ import annotations

import math
import pickle
import weakref
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from worlds import LinearWorld, relative_error

from leakaudit.models.best_response import Amortiser, LatentSearch, feature_loss, search, starts


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.fixture
def world() -> LinearWorld:
    return LinearWorld.draw()


def regularised(world: LinearWorld, F: Tensor, scale: float, weight: float) -> Tensor:
    """The minimiser of |response(z) - F|^2 / scale + weight |z|^2 / dz."""
    J, dz = world.J, world.G.shape[1]
    ridge = weight * scale / dz * torch.eye(dz).to(J)
    offset = world.encode(world.g[None])
    return torch.linalg.solve(J.T @ J + ridge, J.T @ (F - offset).T).T


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_search_ends_at_the_regularised_least_squares(
    world: LinearWorld, weight: float
) -> None:
    F = normal(5, 9)
    how = LatentSearch(steps=600, rate=0.1, prior_weight=weight)
    found = search(world.response, F, torch.zeros(5, 4).double(), scale=3.0, how=how)
    expected = regularised(world, F, 3.0, weight)
    assert relative_error(found.latents, expected) < 1e-2
    least = feature_loss(world.response(expected), F, expected, scale=3.0, how=how)
    assert relative_error(found.loss, least) < 1e-4
    assert bool((found.loss >= least - 1e-12).all())


def test_the_loss_of_a_face_is_the_formula() -> None:
    made, F, z = normal(2, 3, 2, 2), normal(2, 3, 2, 2, seed=2), normal(2, 4, seed=3)
    how = LatentSearch(prior_weight=0.3)
    got = feature_loss(made, F, z, scale=7.0, how=how)
    for k in range(2):
        expected = (made[k] - F[k]).square().sum() / 7 + 0.3 * z[k].square().sum() / 4
        assert float(got[k]) == pytest.approx(float(expected))


def test_the_best_iterate_is_kept_and_its_loss_told(world: LinearWorld) -> None:
    F = normal(5, 9)
    start = world.best_response(F)  # every step from here is a step away
    how = LatentSearch(steps=7, rate=0.5, prior_weight=0.0)
    found = search(world.response, F, start, scale=1.0, how=how)
    assert relative_error(found.latents, start) < 1e-6
    assert len(found.curve) == 8
    torch.testing.assert_close(
        found.loss, feature_loss(world.response(found.latents), F, found.latents, scale=1, how=how)
    )


def test_the_start_is_left_as_it_was(world: LinearWorld) -> None:
    start = normal(3, 4)
    before = start.clone()
    search(world.response, normal(3, 9), start, scale=1.0, how=LatentSearch(steps=3))
    assert torch.equal(start, before) and not start.requires_grad


@pytest.mark.parametrize("size", [1, 3])
def test_faces_are_searched_alone_or_together_alike(world: LinearWorld, size: int) -> None:
    F, start = normal(5, 9), normal(5, 4, seed=2)
    how = LatentSearch(steps=30)
    whole = search(world.response, F, start, scale=2.0, how=how)
    parts = [
        search(world.response, f, z, scale=2.0, how=how)
        for f, z in zip(F.split(size), start.split(size), strict=True)
    ]
    assert relative_error(torch.cat([p.latents for p in parts]), whole.latents) < 1e-9


def pulled(z: Tensor) -> Tensor:
    """Onto the prior's typical norm, if beyond it."""
    typical = math.sqrt(z.shape[1])
    return z * (typical / z.norm(dim=1, keepdim=True).clamp(min=typical))


def amortiser(world: LinearWorld, count: int = 400) -> tuple[Amortiser, Tensor]:
    latents = normal(count, 4, seed=5).float()
    return Amortiser(lambda z: world.response(z.double()).float(), latents), latents


def test_ridge_regression_recovers_a_linear_inverse(world: LinearWorld) -> None:
    first_guess, _ = amortiser(world)
    z = normal(50, 4, seed=6)
    guess = first_guess(world.response(z).float())
    assert relative_error(guess.double(), pulled(z)) < 0.05
    assert float(guess.norm(dim=1).max()) <= 2.0 + 1e-4


def test_a_guess_is_the_same_in_any_batch(world: LinearWorld) -> None:
    first_guess, _ = amortiser(world)
    F = normal(7, 9).float()
    alone = torch.cat([first_guess(f) for f in F.split(1)])
    torch.testing.assert_close(alone, first_guess(F), rtol=0, atol=1e-5)


def test_a_world_in_float64_is_answered_in_float64(world: LinearWorld) -> None:
    first_guess = Amortiser(world.response, normal(100, 4, seed=5))
    z = 0.3 * normal(20, 4, seed=6)
    guess = first_guess(world.response(z))
    assert guess.dtype == torch.float64
    assert relative_error(guess, z) < 0.01


def test_the_scale_is_the_variance_summed_over_elements(world: LinearWorld) -> None:
    first_guess, latents = amortiser(world)
    features = world.response(latents.double())
    assert first_guess.scale == pytest.approx(float(features.var(0).sum()), rel=1e-5)


def test_the_nearest_samples_are_the_nearest_best_first(world: LinearWorld) -> None:
    first_guess, latents = amortiser(world, count=60)
    F = world.response(normal(5, 4, seed=7))
    near = first_guess.nearest(F.float(), 3)
    order = torch.cdist(F, world.response(latents.double())).argsort(dim=1)[:, :3]
    assert torch.equal(near, latents[order])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_starts_are_the_regression_and_then_the_nearest(world: LinearWorld, count: int) -> None:
    first_guess, _ = amortiser(world, count=60)
    F = world.response(normal(5, 4, seed=7)).float()
    guesses = starts(first_guess, F, count)
    assert len(guesses) == count
    assert torch.equal(guesses[0], first_guess(F))
    for k, guess in enumerate(guesses[1:]):
        assert torch.equal(guess, first_guess.nearest(F, count - 1)[:, k])


def fitted(count: int = 200) -> tuple[Amortiser, Tensor, Tensor]:
    """An amortiser of a world of matrices, its latents and their features."""
    world = LinearWorld.draw()
    latents = normal(count, 4, seed=5)
    return Amortiser(world.response, latents), latents, world.response(latents)


def test_a_reader_reads_targets_from_features_wherever_they_lie() -> None:
    amortiser, latents, features = fitted()
    targets = latents @ normal(4, 3, seed=6) + 100
    found = amortiser.reader(targets[:, :2])(features)
    assert relative_error(found - 100, targets[:, :2] - 100) < 1e-3


def test_an_amortiser_goes_to_another_process_and_copies_stand_alone() -> None:
    amortiser, _, features = fitted()
    before = amortiser(features)
    assert torch.equal(pickle.loads(pickle.dumps(amortiser))(features), before)
    deepcopy(amortiser)._regressed.mean.zero_()
    assert torch.equal(amortiser(features), before)


def test_nothing_holds_an_amortiser_that_is_dropped() -> None:
    amortiser, latents, _ = fitted()
    reader, gone = amortiser.reader(latents), weakref.ref(amortiser)
    del amortiser
    assert gone() is None and reader.weights.shape[1] == latents.shape[1]
