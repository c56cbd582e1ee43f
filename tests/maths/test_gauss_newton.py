"""The step towards the best response and the pull at a given linearisation, in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from worlds import LinearWorld, TanhWorld, relative_error

from leakaudit.maths.hypergradient import formed, gauss_newton, linearise, pull, pull_at
from leakaudit.maths.inverse_hvp import ConjugateGradient, Direct

EXACT = ConjugateGradient(steps=50, tolerance=1e-13)


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def world() -> LinearWorld:
    return LinearWorld.draw()


def test_one_step_reaches_the_best_response_of_a_linear_world(world: LinearWorld) -> None:
    z, F = normal(5, 4), normal(5, 9, seed=2)
    for solve in (EXACT, Direct()):
        step = gauss_newton(linearise(world.response, z), F, solve=solve)
        assert relative_error(z + step.x, world.best_response(F)) < 1e-10


def test_a_formed_normal_matrix_gives_what_products_give_and_asks_for_one_a_coordinate(
    world: LinearWorld,
) -> None:
    z, F, slope = normal(5, 4), normal(5, 9, seed=2), normal(5, 4, seed=3)
    pushes = 0

    def push(p: Tensor) -> Tensor:
        nonlocal pushes
        pushes += 1
        return plain.push(p)

    plain = linearise(world.response, z)
    at = formed(replace(plain, push=push), z)
    assert pushes == 4
    step = gauss_newton(at, F, solve=Direct(), absolute=0.1).x
    expected = gauss_newton(plain, F, solve=EXACT, absolute=0.1).x
    torch.testing.assert_close(step, expected, rtol=1e-9, atol=1e-12)
    value = pull_at(at, slope, solve=Direct(), absolute=0.1).value
    torch.testing.assert_close(value, world.hypergradient(slope, 0.1), rtol=1e-9, atol=1e-12)
    assert pushes == 5


def test_the_step_is_nothing_at_the_best_response(world: LinearWorld) -> None:
    F = normal(5, 9, seed=2)
    step = gauss_newton(linearise(world.response, world.best_response(F)), F, solve=EXACT)
    assert float(step.x.abs().max()) < 1e-12


def test_a_guess_that_is_the_step_costs_one_product_and_a_wrong_one_does_no_harm(
    world: LinearWorld,
) -> None:
    z, F = normal(5, 4), normal(5, 9, seed=2)
    at, step = linearise(world.response, z), world.best_response(F) - z
    loose = ConjugateGradient(steps=50, tolerance=1e-6)
    guessed = gauss_newton(at, F, solve=loose, x0=step)
    assert (guessed.steps, guessed.passes) == (0, 1)
    assert relative_error(guessed.x, step) < 1e-9
    misled = gauss_newton(at, F, solve=EXACT, x0=1e3 * normal(5, 4, seed=5))
    assert relative_error(misled.x, step) < 1e-9


@pytest.mark.parametrize("damping", [0.0, 0.03])
@pytest.mark.parametrize("absolute", [0.0, 0.7])
def test_damping_is_a_share_of_the_curvature_along_the_slope(
    world: LinearWorld, damping: float, absolute: float
) -> None:
    z, F, J = normal(3, 4), normal(3, 9, seed=2), world.J
    found = gauss_newton(
        linearise(world.response, z), F, solve=EXACT, damping=damping, absolute=absolute
    )
    for row in range(3):
        slope = J.T @ (F[row] - world.response(z)[row])
        ridge = damping * (J @ slope).square().sum() / slope.square().sum() + absolute
        expected = torch.linalg.solve(J.T @ J + ridge * torch.eye(4).to(J), slope)
        assert relative_error(found.x[row], expected) < 1e-10


def test_the_step_falls_short_with_damping_and_never_overshoots(world: LinearWorld) -> None:
    z, F = normal(5, 4), normal(5, 9, seed=2)
    at = linearise(world.response, z)
    full = world.best_response(F) - z
    damped = gauss_newton(at, F, solve=EXACT, damping=0.5).x
    along = (damped * full).sum(1)
    assert bool((along > 0).all())
    assert bool((damped.norm(dim=1) < full.norm(dim=1)).all())
    before = (world.response(z) - F).norm(dim=1)
    assert bool(((world.response(z + damped) - F).norm(dim=1) < before).all())


def test_steps_converge_to_the_newton_solution_of_a_curved_world() -> None:
    world = TanhWorld.draw()
    start = 0.3 * normal(4, 3, seed=3)
    F = world.response(start) + 0.02 * normal(4, 10, seed=4)
    z = start.clone()
    for _ in range(60):
        z = z + gauss_newton(linearise(world.response, z), F, solve=Direct()).x
    assert relative_error(z, world.best_response(F, start)) < 1e-8


@pytest.mark.parametrize("ridge", [0.0, 0.4])
def test_pull_at_is_the_dense_hypergradient(world: LinearWorld, ridge: float) -> None:
    slope = normal(5, 4, seed=3)
    at = linearise(world.response, normal(5, 4))
    found = pull_at(at, slope, solve=EXACT, absolute=ridge)
    assert relative_error(found.value, world.hypergradient(slope, ridge)) < 1e-10
    assert float(found.residual.max()) < 1e-12


def test_pull_at_and_pull_agree_to_the_bit() -> None:
    world, z, slope = TanhWorld.draw(), 0.3 * normal(4, 3), normal(4, 3, seed=2)
    at = pull_at(linearise(world.response, z), slope, solve=EXACT, damping=0.03)
    alone = pull(world.response, z, slope, solve=EXACT, damping=0.03)
    assert torch.equal(at.value, alone.value)
    assert torch.equal(at.solution, alone.solution)


def test_a_small_step_against_the_pull_lowers_the_loss_by_its_squared_length(
    world: LinearWorld,
) -> None:
    F, target = normal(5, 9), normal(5, 7, seed=2)

    def privacy(F: Tensor) -> Tensor:
        return (world.generate(world.best_response(F)) - target).square().sum(1)

    z = world.best_response(F)
    slope = 2 * (world.generate(z) - target) @ world.G
    value = pull_at(linearise(world.response, z), slope, solve=EXACT).value
    step = 1e-6
    fall = (privacy(F) - privacy(F - step * value)) / step
    assert relative_error(fall, value.square().sum(1)) < 1e-4


def test_faces_do_not_influence_each_other(world: LinearWorld) -> None:
    z, F = normal(5, 4), normal(5, 9, seed=2)
    short = ConjugateGradient(steps=2)
    together = gauss_newton(linearise(world.response, z), F, solve=short, damping=0.03).x
    alone = torch.cat(
        [
            gauss_newton(linearise(world.response, a), b, solve=short, damping=0.03).x
            for a, b in zip(z.split(1), F.split(1), strict=True)
        ]
    )
    assert relative_error(alone, together) < 1e-12
