"""Sinkhorn and the critic against exact transport, and what they do with bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from leakaudit.core.errors import RunError, UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.maths.emd import emd, pairwise_distance, transport_plan
from leakaudit.maths.transport import (
    TRANSPORTS,
    CriticTraining,
    Transport,
    sinkhorn_plan,
    trained_critic,
)

double = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=double)


@pytest.mark.parametrize("m", [12, 19])
def test_the_cost_of_sinkhorn_falls_to_the_exact_one_as_the_entropy_goes(m: int) -> None:
    cost = pairwise_distance(normal(12, 3), normal(m, 3, seed=1))
    exact = float((transport_plan(cost) * cost).sum())
    costs = [float((sinkhorn_plan(cost, r) * cost).sum()) for r in (1.0, 0.1, 0.01, 0.002)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 1.05 * exact
    assert exact - 1e-12 <= costs[-1] <= 1.002 * exact


def test_the_plan_has_uniform_marginals_exactly() -> None:
    plan = sinkhorn_plan(pairwise_distance(normal(7, 3), normal(9, 3, seed=1)), 0.01)
    torch.testing.assert_close(
        plan.sum(1), torch.full((7,), 1 / 7, dtype=double), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        plan.sum(0), torch.full((9,), 1 / 9, dtype=double), rtol=1e-12, atol=0
    )
    assert float(plan.min()) >= 0


def test_the_plan_is_the_gibbs_kernel_scaled_on_both_sides() -> None:
    cost = pairwise_distance(normal(4, 3), normal(4, 3, seed=1))
    plan = sinkhorn_plan(cost, 0.5, tolerance=1e-13)
    scaling = plan.log() + cost / (0.5 * cost.mean())  # a_i + b_j
    mixed = scaling - scaling[:1] - scaling[:, :1] + scaling[0, 0]
    assert float(mixed.abs().max()) < 1e-9


def test_the_plan_does_not_depend_on_the_unit_of_the_cost_and_keeps_its_type() -> None:
    cost = pairwise_distance(normal(6, 3), normal(6, 3, seed=1)).float().requires_grad_()
    plan = sinkhorn_plan(cost, 0.05)
    assert plan.dtype == torch.float32 and not plan.requires_grad
    torch.testing.assert_close(plan, sinkhorn_plan(1e-7 * cost, 0.05), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(sinkhorn_plan(torch.zeros(2, 4)), torch.full((2, 4), 1 / 8))


@pytest.mark.parametrize("kind", ["exact", "sinkhorn"])
def test_the_gradient_is_that_of_the_cost_with_the_plan_held_fixed(kind: str) -> None:
    a, b = normal(5, 3), normal(6, 3, seed=1)
    how = Transport(kind)
    plan = how.plan(pairwise_distance(a, b))
    a.requires_grad_()
    (found,) = torch.autograd.grad(how.distance(a, b, Rng(0)), a)
    ways = a.detach().unsqueeze(1) - b
    expected = (plan.unsqueeze(2) * ways / ways.norm(dim=2, keepdim=True)).sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_sinkhorn_is_that_of_its_own_minimum() -> None:
    # The envelope theorem is about cost plus entropy, so that is what is differenced.
    a, b, weight = normal(4, 2), normal(4, 2, seed=1), 0.3

    def least(a: Tensor) -> float:
        cost = pairwise_distance(a, b)
        plan = sinkhorn_plan(cost, weight / float(cost.mean()), tolerance=1e-12)
        return float((plan * cost).sum() + weight * (plan * plan.log()).sum())

    cost = pairwise_distance(a, b)
    plan = sinkhorn_plan(cost, weight / float(cost.mean()), tolerance=1e-12)
    ways = a.unsqueeze(1) - b
    gradient = (plan.unsqueeze(2) * ways / ways.norm(dim=2, keepdim=True)).sum(1)
    for i, j in ((0, 0), (2, 1), (3, 0)):
        shift = torch.zeros_like(a)
        shift[i, j] = 1e-5
        difference = (least(a + shift) - least(a - shift)) / 2e-5
        assert float(gradient[i, j]) == pytest.approx(difference, abs=1e-6)


def test_the_mean_of_the_rows_is_the_distance() -> None:
    a, b = normal(8, 3), normal(5, 3, seed=1)
    assert float(Transport().distance(a, b, Rng(0))) == pytest.approx(float(emd(a, b)), rel=1e-9)
    fitted = Transport().fit(a, b, Rng(0))
    assert float(fitted.rows(a, b, smooth=0.5).mean()) > float(emd(a, b))


@pytest.mark.parametrize(("d", "n", "shift"), [(1, 200, 2.0), (2, 200, 1.0), (4, 60, 3.0)])
def test_the_estimate_of_a_trained_critic_is_near_the_exact_distance(
    d: int, n: int, shift: float
) -> None:
    a = normal(n, d).float()
    b = (normal(n, d, seed=1) + shift).float()
    found = float(Transport("critic").distance(a, b, Rng(0)))
    assert found == pytest.approx(float(emd(a, b)), rel=0.12)


def test_the_estimate_of_a_critic_does_not_depend_on_the_unit_of_the_points() -> None:
    a, b = normal(40, 2).float(), (normal(40, 2, seed=1) + 2).float()
    how = Transport("critic", critic=CriticTraining(steps=100))
    one, other = (float(how.distance(s * a, s * b, Rng(0))) / s for s in (1.0, 1e3))
    assert one == pytest.approx(other, rel=1e-2)


def test_the_critic_leads_points_towards_the_other_sample() -> None:
    a, b = normal(50, 2).float().requires_grad_(), (normal(50, 2, seed=1) + 3).float()
    (slope,) = torch.autograd.grad(Transport("critic").distance(a, b, Rng(0)), a)
    towards = torch.nn.functional.cosine_similarity(-slope, torch.ones(1, 2))
    assert float(towards.mean()) > 0.9


def test_a_critic_is_drawn_from_its_stream_and_from_no_other() -> None:
    a, b = normal(10, 2), normal(10, 2, seed=1)
    how = CriticTraining(steps=5)
    before = torch.get_rng_state()
    first = trained_critic(a, b, how, Rng(1))(a)
    assert torch.equal(first, trained_critic(a, b, how, Rng(1))(a))
    assert not torch.equal(first, trained_critic(a, b, how, Rng(2))(a))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_points_that_are_not_finite_are_an_error_in_every_transport(kind: str, bad: float) -> None:
    a = torch.ones(3, 2)
    a[1, 0] = bad
    with pytest.raises(RunError, match="finite"):
        Transport(kind).distance(a, torch.zeros(3, 2), Rng(0))


def test_settings_that_make_no_sense_are_usage_errors() -> None:
    with pytest.raises(UnknownNameError, match="sinkhorn"):
        Transport("sinkhorm")
    with pytest.raises(UsageError, match="regularisation"):
        Transport(regularisation=0)
    with pytest.raises(UsageError, match="steps"):
        CriticTraining(steps=0)
    with pytest.raises(RunError, match="marginals"):
        sinkhorn_plan(pairwise_distance(normal(9, 3), normal(9, 3, seed=1)), 1e-4, sweeps=20)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,)])
def test_an_empty_cost_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="non-empty"):
        sinkhorn_plan(torch.ones(shape))
