import itertools
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from leakaudit.core.errors import RunError
from leakaudit.maths.emd import (
    assignment,
    distance_table,
    emd,
    pairwise_distance,
    relative_epsilon,
    transport_plan,
)


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def test_distances_are_the_euclidean_ones():
    a, b = normal(5, 3), normal(4, 3, seed=1)
    expected = [[float((x - y).norm()) for y in b] for x in a]
    torch.testing.assert_close(pairwise_distance(a, b), torch.tensor(expected, dtype=a.dtype))


def test_distances_of_near_duplicates_survive_float32():
    a = 100 + normal(40, 64, dtype=torch.float32)
    b = a.clone()
    b[:, 0] += 2.0**-10
    torch.testing.assert_close(
        pairwise_distance(a, b).diag(), torch.full((40,), 2.0**-10), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_the_table_of_distances_is_that_of_the_differences(shift):
    a, b = torch.rand(7, 900) + shift, torch.rand(5, 900) + shift
    b[0] = a[0]
    table = distance_table(a, b)
    exact = torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert table.dtype == torch.float64 and table.shape == (7, 5)
    assert float(table[0, 0]) < 1e-5
    assert torch.allclose(table.flatten()[1:], exact.flatten()[1:], rtol=1e-9)


def test_the_gradient_of_a_distance_is_finite_where_points_coincide():
    a = normal(4, 3).requires_grad_()
    pairwise_distance(a, a.detach()).diag().sum().backward()
    assert bool((a.grad == 0).all())


def test_the_plan_agrees_with_the_assignment_of_scipy():
    cost = pairwise_distance(normal(30, 5), normal(30, 5, seed=1))
    rows, columns = linear_sum_assignment(cost.numpy())
    plan = transport_plan(cost)
    assert assignment(plan).tolist() == columns.tolist()
    assert float((plan * cost).sum()) == pytest.approx(float(cost.numpy()[rows, columns].mean()))


def test_the_plan_between_unequal_numbers_is_the_optimum_of_the_linear_programme():
    n, m = 4, 6
    cost = pairwise_distance(normal(n, 3), normal(m, 3, seed=1))
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    weights = np.r_[np.full(n, 1 / n), np.full(m, 1 / m)]
    best = linprog(cost.flatten().numpy(), A_eq=np.r_[rows, columns], b_eq=weights)
    plan = transport_plan(cost)
    assert float((plan * cost).sum()) == pytest.approx(best.fun, rel=1e-9)
    torch.testing.assert_close(plan.sum(1), torch.full((n,), 1 / n, dtype=plan.dtype))
    torch.testing.assert_close(plan.sum(0), torch.full((m,), 1 / m, dtype=plan.dtype))


@pytest.mark.parametrize("scale", [1e-14, 1e-5, 1e8])
def test_the_plan_does_not_depend_on_the_unit_of_the_cost(scale):
    cost = pairwise_distance(normal(60, 5), normal(60, 5, seed=1))
    assert assignment(transport_plan(scale * cost)).tolist() == (
        assignment(transport_plan(cost)).tolist()
    )


def test_the_plan_keeps_the_type_of_the_cost_and_carries_no_gradient():
    cost = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    plan = transport_plan(cost)
    assert plan.dtype == torch.float32
    assert not plan.requires_grad


def test_a_plan_of_zero_costs_still_moves_everything():
    assert float(transport_plan(torch.zeros(3, 3)).sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_cost_that_is_not_finite_is_an_error(bad):
    cost = torch.ones(3, 3)
    cost[1, 2] = bad
    with pytest.raises(RunError, match="finite"):
        transport_plan(cost)
    points = torch.ones(3, 3)
    points[1, 2] = bad
    with pytest.raises(RunError, match="finite"):
        emd(points, torch.zeros(3, 3))


def test_a_warning_of_the_solver_is_an_error(monkeypatch):
    def stuck(*args, **kwargs):
        warnings.warn("numItermax reached before optimality", stacklevel=1)

    monkeypatch.setattr("ot.emd", stuck)
    with pytest.raises(RunError, match="numItermax"):
        transport_plan(torch.ones(3, 3))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,)])
def test_an_empty_cost_is_refused(shape):
    with pytest.raises(ValueError, match="non-empty"):
        transport_plan(torch.ones(shape))


def test_the_distance_of_two_points_is_their_euclidean_distance():
    assert float(emd(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))) == pytest.approx(5.0)


def test_the_distance_is_the_least_mean_cost_over_all_permutations():
    a, b = normal(5, 3), normal(5, 3, seed=1)
    costs = [(a - b[list(order)]).norm(dim=1).mean() for order in itertools.permutations(range(5))]
    assert float(emd(a, b)) == pytest.approx(float(min(costs)))


def test_the_distance_between_equal_samples_is_zero_with_a_zero_gradient():
    a = normal(6, 3).requires_grad_()
    distance = emd(a, a.detach().flip(0))
    distance.backward()
    assert float(distance.detach()) == 0
    assert bool((a.grad == 0).all())


@pytest.mark.parametrize("m", [6, 9])
def test_the_gradient_of_the_distance_agrees_with_finite_differences(m):
    a, b = normal(6, 3).requires_grad_(), normal(m, 3, seed=1).requires_grad_()
    found = torch.autograd.grad(emd(a, b), (a, b))
    for which, gradient in enumerate(found):
        for place in np.ndindex(*gradient.shape):
            ends = []
            for step in (1e-6, -1e-6):
                points = [a.detach().clone(), b.detach().clone()]
                points[which][place] += step
                ends.append(float(emd(*points)))
            assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_the_distance_of_a_shifted_sample_is_the_shift():
    a = normal(20, 4)
    shift = torch.tensor([0.0, 3.0, 0.0, 4.0], dtype=a.dtype)
    assert float(emd(a, a + shift)) == pytest.approx(5.0)


def test_the_distance_does_not_depend_on_the_order_of_the_points():
    a, b = normal(20, 4), normal(25, 4, seed=1)
    assert float(emd(a.flip(0), b.roll(7, 0))) == pytest.approx(float(emd(a, b)), rel=1e-12)


def test_an_assignment_is_read_from_a_permutation_only():
    plan = torch.eye(4)[[2, 0, 3, 1]] / 4
    assert assignment(plan).tolist() == [2, 0, 3, 1]
    for other in (torch.full((3, 3), 1 / 9), torch.full((2, 3), 1 / 6)):
        with pytest.raises(ValueError, match="permutation"):
            assignment(other)


def test_relative_epsilon_runs_from_floor_to_ceiling():
    assert relative_epsilon(2.0, 2.0, 4.0) == 0
    assert relative_epsilon(2.5, 2.0, 4.0) == 0.25
    assert relative_epsilon(4.0, 2.0, 4.0) == 1
    assert relative_epsilon(1.0, 2.0, 4.0) == -0.5
    assert relative_epsilon(1.0, 2.0, 2.0) is None
