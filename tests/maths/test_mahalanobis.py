"""The Mahalanobis distance against the dense covariance matrix."""

from __future__ import annotations

import torch
from toys import normal

from leakaudit.maths.mahalanobis import Mahalanobis

USUAL = normal(6, 10, seed=1, dtype=torch.float64) * torch.linspace(1, 5, 10)


def dense(noise: float) -> torch.Tensor:
    return USUAL.T @ USUAL / 6 + noise * torch.eye(10, dtype=torch.float64)


def test_the_distance_is_that_of_the_dense_covariance() -> None:
    made = Mahalanobis.fit(USUAL, shrink=0.1, least=0.2)
    gap, noise = normal(4, 10, seed=2, dtype=torch.float64), torch.tensor([0.3, 1.0, 5.0, 0.9])
    for row in range(4):
        expected = gap[row] @ torch.linalg.solve(dense(float(noise[row])), gap[row])
        got = made(gap[row : row + 1], noise[row : row + 1].double())
        torch.testing.assert_close(got[0], expected, rtol=1e-6, atol=0)


def test_the_floor_is_a_share_of_the_mean_variance_and_the_least() -> None:
    made = Mahalanobis.fit(USUAL, shrink=0.1, least=0.2)
    assert abs(made.floor - (0.1 * float(USUAL.square().mean()) + 0.2)) < 1e-9


def test_noise_off_the_span_is_measured_and_a_usual_gap_has_none() -> None:
    made = Mahalanobis.fit(USUAL, shrink=0.0, least=1e-3)
    assert float(made.noise(USUAL[:1])) == made.floor
    loud = 3 * normal(400, 10, seed=3, dtype=torch.float64)
    assert abs(float(made.noise(loud).mean()) - 9) < 1


def test_a_usual_direction_costs_less_than_a_quiet_one() -> None:
    loud = torch.zeros(20, 4, dtype=torch.float64)
    loud[:, 0] = 3 * normal(20, seed=4, dtype=torch.float64)
    made = Mahalanobis.fit(loud, shrink=0.01, least=1e-3)
    here = torch.eye(4, dtype=torch.float64)[:2]
    usual, quiet = made(here, torch.full((2,), made.floor, dtype=torch.float64))
    assert float(quiet) > 50 * float(usual)


def test_features_that_never_vary_give_finite_distances() -> None:
    made = Mahalanobis.fit(torch.zeros(5, 3, 2), shrink=0.1, least=0.0)
    gap = torch.zeros(2, 3, 2)
    assert bool(made(gap, made.noise(gap)).isfinite().all())
