"""The posterior in a linear world, where its curvature and its minimiser have closed forms."""

from __future__ import annotations

import torch
from toys import normal
from worlds import LinearWorld

from leakaudit.models.best_response import Amortiser
from leakaudit.models.posterior import Posterior, whitening


def fitted() -> tuple[LinearWorld, Amortiser, Posterior]:
    world = LinearWorld.draw()
    amortiser = Amortiser(world.response, normal(300, 4, seed=5, dtype=torch.float64))
    public = world.response(normal(40, 4, seed=6, dtype=torch.float64))
    public = public + 0.3 * normal(*public.shape, seed=7, dtype=torch.float64)
    return world, amortiser, Posterior.fit(world.response, amortiser, public, batch=16)


def test_the_linear_map_of_the_samples_is_the_jacobian() -> None:
    world, amortiser, _ = fitted()
    made = amortiser.linear()
    assert float((made - world.J.T).norm() / world.J.norm()) < 0.05


def test_the_curvature_is_the_second_derivative_of_the_loss() -> None:
    _, amortiser, posterior = fitted()
    noise = torch.tensor([posterior.metric.floor, 0.5], dtype=torch.float64)
    A = amortiser.linear()

    def loss(z: torch.Tensor) -> torch.Tensor:
        z = z[None]
        return posterior.loss(z @ A, z, noise[1:])[0]

    at = normal(4, seed=8, dtype=torch.float64)
    expected = torch.autograd.functional.hessian(loss, at)
    torch.testing.assert_close(posterior.curvature(noise)[1], expected, rtol=1e-6, atol=1e-8)


def test_whitening_makes_the_curvature_one() -> None:
    _, _, posterior = fitted()
    noise = torch.tensor([posterior.metric.floor, 2.0], dtype=torch.float64)
    curvature = posterior.curvature(noise)
    turn = whitening(curvature)
    eye = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    torch.testing.assert_close(turn.mT @ curvature @ turn, eye, rtol=0, atol=1e-6)


def test_the_loss_a_face_is_distance_and_prior_over_the_length_of_the_latent() -> None:
    _, _, posterior = fitted()
    gap, z = normal(3, 9, dtype=torch.float64, seed=1), normal(3, 4, dtype=torch.float64, seed=2)
    noise = torch.full((3,), 0.7, dtype=torch.float64)
    expected = (posterior.metric(gap, noise) + z.square().sum(1)) / 4
    torch.testing.assert_close(posterior.loss(gap, z, noise), expected)
