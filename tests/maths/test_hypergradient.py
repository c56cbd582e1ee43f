import math

import pytest
import torch
from worlds import LinearWorld, TanhWorld, cosine, relative_error

from leakaudit.core.errors import RunError
from leakaudit.maths.emd import emd
from leakaudit.maths.hypergradient import hypergradient, linearise, pull, stationarity
from leakaudit.maths.inverse_hvp import ConjugateGradient, Direct, Neumann

EXACT = ConjugateGradient(steps=50, tolerance=1e-13)


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def squared_distance(world, target):
    """A privacy loss per face as a function of z, and its derivative by autograd."""

    def privacy(z):
        return (world.generate(z) - target).square().sum(1)

    def slope(z):
        return torch.func.grad(lambda y: privacy(y).sum())(z)

    return privacy, slope


@pytest.fixture
def linear():
    """World, feature off the range of the generator, target image."""
    return LinearWorld.draw(), normal(5, 9), normal(5, 7, seed=2)


@pytest.fixture
def curved():
    """World, feature with a residual, its best response, target image."""
    world = TanhWorld.draw()
    start = normal(4, 3) / 2
    F = world.response(start) + 0.15 * normal(4, 10, seed=3)
    return world, F, world.best_response(F, start), torch.tanh(normal(4, 7, seed=4))


def convolutional(seed=0):
    """A small chain with everything that real ones have, in evaluation mode."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 4 * 4 * 4),
        torch.nn.Unflatten(1, (4, 4, 4)),
        torch.nn.ConvTranspose2d(4, 4, 4, 2, 1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 6, 3, 1, 1),
        torch.nn.MaxPool2d(2),
        torch.nn.Sigmoid(),
    )
    return net.to(torch.float64).eval()


@pytest.mark.parametrize("solve", [EXACT, Direct(), Neumann(steps=2000, alpha=0.3)])
def test_the_pull_agrees_with_the_dense_closed_form_in_a_linear_world(linear, solve):
    world, F, _ = linear
    slope = normal(5, 4, seed=5)
    found = pull(world.response, world.best_response(F), slope, solve=solve)
    torch.testing.assert_close(found.value, world.hypergradient(slope), rtol=1e-8, atol=1e-9)
    assert float(found.residual.max()) < 1e-8


def test_damping_is_a_share_of_the_curvature_along_the_slope_of_each_face(linear):
    world, F, _ = linear
    slope = normal(5, 4, seed=5)
    curvature = (slope @ world.J.T).square().sum(1) / slope.square().sum(1)
    expected = world.hypergradient(slope, 0.3 * curvature + 0.07)
    z = world.best_response(F)
    found = pull(world.response, z, slope, solve=EXACT, damping=0.3, absolute=0.07)
    torch.testing.assert_close(found.value, expected)


def test_absolute_damping_stands_alone(linear):
    world, F, _ = linear
    z, slope = world.best_response(F), normal(5, 4, seed=5)
    found = pull(world.response, z, slope, solve=EXACT, absolute=0.07)
    torch.testing.assert_close(found.value, world.hypergradient(slope, 0.07))


def test_relative_damping_does_not_depend_on_the_scale_of_features_or_slope(linear):
    world, F, _ = linear
    z, slope = world.best_response(F), normal(5, 4, seed=5)
    once = pull(world.response, z, slope, solve=EXACT, damping=0.1)
    big = pull(lambda y: 1e3 * world.response(y), z, 1e-6 * slope, solve=EXACT, damping=0.1)
    torch.testing.assert_close(big.value, 1e-9 * once.value, rtol=1e-9, atol=0)


def test_the_pull_agrees_with_finite_differences_of_the_best_response(linear):
    world, F, target = linear
    privacy, slope = squared_distance(world, target)
    z = world.best_response(F)
    found = pull(world.response, z, slope(z), solve=EXACT)
    differences = torch.zeros_like(F)
    for k in range(F.shape[1]):
        shift = 1e-4 * torch.eye(F.shape[1], dtype=F.dtype)[k]
        up, down = (privacy(world.best_response(F + s * shift)) for s in (1, -1))
        differences[:, k] = (up - down) / 2e-4
    assert relative_error(found.value, differences) < 1e-8


def test_the_pull_agrees_with_unrolling_gradient_descent(linear):
    world, F, target = linear
    privacy, slope = squared_distance(world, target)
    rate = 1 / float(torch.linalg.matrix_norm(world.J, 2)) ** 2
    F = F.clone().requires_grad_()
    z = torch.zeros(5, 4, dtype=torch.float64)
    for _ in range(1500):
        z = z - rate * (world.response(z) - F) @ world.J
    (unrolled,) = torch.autograd.grad(privacy(z).sum(), F)
    z = z.detach()
    found = pull(world.response, z, slope(z), solve=EXACT)
    assert relative_error(found.value, unrolled) < 1e-8


def test_the_general_form_agrees_with_the_pull_in_a_linear_world(linear):
    world, F, target = linear
    privacy, slope = squared_distance(world, target)
    z = world.best_response(F)

    def inner(z, F):
        return (world.response(z) - F).square().sum(1)

    found = hypergradient(privacy, inner, z, F, solve=EXACT, damping=0.2)
    expected = pull(world.response, z, slope(z), solve=EXACT, damping=0.2)
    torch.testing.assert_close(found.value, expected.value)


def test_the_objective_of_crafter_is_stationary_at_the_closed_form_optimum(linear):
    world, F0, target = linear
    F = world.crafter_optimum(F0, target, beta=3.0)
    _, slope = squared_distance(world, target)
    z = world.best_response(F)
    privacy = pull(world.response, z, slope(z), solve=EXACT).value
    torch.testing.assert_close(3.0 * privacy, -2 * (F - F0), rtol=1e-8, atol=1e-10)
    assert relative_error(F, F0) > 0.1


def test_descending_with_the_pull_arrives_at_the_closed_form_optimum(linear):
    world, F0, target = linear
    _, slope = squared_distance(world, target)
    F = F0.clone()
    for _ in range(400):
        z = world.best_response(F)
        F = F - 0.02 * (pull(world.response, z, slope(z), solve=Direct()).value + 2 * (F - F0))
    torch.testing.assert_close(F, world.crafter_optimum(F0, target, beta=1.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("solve", [EXACT, Direct()])
def test_the_exact_hessian_agrees_with_finite_differences_in_a_nonlinear_world(curved, solve):
    world, F, z, target = curved
    privacy, _ = squared_distance(world, target)
    found = hypergradient(privacy, world.inner, z, F, solve=solve)
    assert relative_error(found.value, world.finite_differences(F, z, privacy)) < 1e-6


def test_gauss_newton_lies_within_ten_degrees_of_the_exact_hessian(curved):
    world, F, z, target = curved
    privacy, slope = squared_distance(world, target)
    exact = hypergradient(privacy, world.inner, z, F, solve=EXACT).value
    approximate = pull(world.response, z, slope(z), solve=EXACT).value
    angles = cosine(exact, approximate).clamp(-1, 1).arccos() * 180 / math.pi
    assert 0.1 < float(angles.max()) < 10


def test_gauss_newton_is_exact_where_the_residual_vanishes():
    world = TanhWorld.draw()
    z = normal(4, 3) / 2
    F = world.response(z)
    privacy, slope = squared_distance(world, torch.tanh(normal(4, 7, seed=4)))
    exact = hypergradient(privacy, world.inner, z, F, solve=EXACT).value
    approximate = pull(world.response, z, slope(z), solve=EXACT).value
    torch.testing.assert_close(approximate, exact, rtol=1e-9, atol=1e-11)


def test_the_general_form_takes_an_outer_loss_that_couples_the_faces(curved):
    world, F, z, _ = curved

    def outer(z):
        return world.generate(z).mean(0).square().sum()

    found = hypergradient(outer, world.inner, z, F, solve=EXACT)
    step = 1e-5 * normal(*F.shape, seed=6)
    up, down = (float(outer(world.best_response(F + s * step, z))) for s in (1, -1))
    assert float((found.value * step).sum()) == pytest.approx((up - down) / 2, rel=1e-6)


def test_the_outer_loss_may_be_the_distance_of_crafter(curved):
    world, F, z, target = curved

    def outer(z):
        return emd(world.generate(z), target[:3])

    found = hypergradient(outer, world.inner, z, F, solve=EXACT, damping=0.1)
    y = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(outer(y), y)
    expected = hypergradient(
        lambda z: (slope * z).sum(1), world.inner, z, F, solve=EXACT, damping=0.1
    )
    torch.testing.assert_close(found.value, expected.value)


def test_damping_of_the_general_form_is_a_share_of_the_curvature_of_its_hessian(curved):
    world, F, z, target = curved
    privacy, slope = squared_distance(world, target)
    s = slope(z)
    found = hypergradient(privacy, world.inner, z, F, solve=EXACT, damping=0.2, absolute=0.05)
    for i in range(4):

        def one(z, F):
            return world.inner(z[None], F[None])[0]

        H = torch.func.jacrev(torch.func.grad(one))(z[i], F[i])
        mixed = torch.func.jacrev(torch.func.grad(one), argnums=1)(z[i], F[i])
        ridge = 0.2 * float(s[i] @ H @ s[i] / (s[i] @ s[i])) + 0.05
        u = torch.linalg.solve(H + ridge * torch.eye(3, dtype=H.dtype), s[i])
        torch.testing.assert_close(found.value[i], -u @ mixed)


def test_damping_of_a_negative_curvature_goes_by_its_size():
    z, F = normal(2, 3), normal(2, 3, seed=2)

    def inner(z, F):
        return -(z - F).square().sum(1)  # H = -2, mixed derivative 2

    found = hypergradient(lambda z: z.sum(), inner, z, F, solve=Direct(), damping=0.5)
    torch.testing.assert_close(found.value, torch.full_like(F, -2 / (-2 + 0.5 * 2)))


def test_the_general_form_warm_starts_from_its_solution(curved):
    world, F, z, target = curved
    privacy, _ = squared_distance(world, target)
    solve = ConjugateGradient(steps=50, tolerance=1e-8)
    cold = hypergradient(privacy, world.inner, z, F, solve=solve)
    warm = hypergradient(privacy, world.inner, z, F, solve=solve, x0=cold.solution)
    assert (warm.steps, warm.passes) == (0, 1)
    torch.testing.assert_close(warm.value, cold.value)


def test_jacobian_products_of_a_convolutional_chain_agree_with_the_dense_jacobian():
    net, z = convolutional(), normal(3, 5)
    at = linearise(net, z)
    torch.testing.assert_close(at.feature, net(z).detach())
    full = torch.func.jacrev(net)(z)  # (3, ..., 3, 5)
    dense = torch.stack([full[i][..., i, :] for i in range(3)]).detach()
    p, w = normal(3, 5, seed=7), normal(*at.feature.shape, seed=8)
    torch.testing.assert_close(at.push(p), torch.einsum("nchwk,nk->nchw", dense, p))
    torch.testing.assert_close(at.back(w), torch.einsum("nchwk,nchw->nk", dense, w))


def test_the_pull_has_the_shape_of_the_feature_and_no_graph_and_leaves_weights_alone():
    net, z = convolutional(), normal(3, 5)
    found = pull(net, z, normal(3, 5, seed=7), solve=ConjugateGradient(), damping=1e-3)
    assert found.value.shape == (3, 6, 4, 4)
    assert not found.value.requires_grad
    assert not found.solution.requires_grad
    assert all(weight.grad is None for weight in net.parameters())


def test_faces_pulled_together_equal_faces_pulled_alone():
    net, z, slope = convolutional(), normal(4, 5), normal(4, 5, seed=7)
    slope = slope * torch.tensor([1.0, 1e-5, 0.0, 1e4], dtype=torch.float64)[:, None]
    solve = ConjugateGradient(steps=4, tolerance=1e-2)
    together = pull(net, z, slope, solve=solve, damping=1e-2)
    for i in range(4):
        alone = pull(net, z[i : i + 1], slope[i : i + 1], solve=solve, damping=1e-2)
        torch.testing.assert_close(together.value[i : i + 1], alone.value, rtol=1e-9, atol=1e-16)
    assert bool((together.value[2] == 0).all())


def test_a_warm_start_from_the_solution_needs_no_step():
    net, z, slope = convolutional(), normal(4, 5), normal(4, 5, seed=7)
    solve = ConjugateGradient(steps=50, tolerance=1e-8)
    cold = pull(net, z, slope, solve=solve, damping=1e-2)
    warm = pull(net, z, slope, solve=solve, damping=1e-2, x0=cold.solution)
    assert cold.steps > 0
    assert (warm.steps, warm.passes) == (0, 1)
    torch.testing.assert_close(warm.value, cold.value)


def test_a_slope_that_is_not_finite_is_an_error(linear):
    world, F, _ = linear
    slope = torch.full((5, 4), float("inf"), dtype=torch.float64)
    with pytest.raises(RunError, match="finite"):
        pull(world.response, world.best_response(F), slope, solve=EXACT)


def test_stationarity_is_the_gradient_over_the_residual_and_the_spectral_norm(linear):
    world, F, _ = linear
    z = normal(5, 4, seed=9)
    r = world.response(z) - F
    spectral = torch.linalg.matrix_norm(world.J, 2)
    expected = (r @ world.J).norm(dim=1) / (spectral * r.norm(dim=1))
    found = stationarity(world.response, z, F, iterations=200)
    torch.testing.assert_close(found, expected)
    rough = stationarity(world.response, z, F)
    torch.testing.assert_close(rough, expected, rtol=0.05, atol=0)


def test_stationarity_is_zero_at_the_best_response_and_where_the_feature_is_met(linear):
    world, F, _ = linear
    assert float(stationarity(world.response, world.best_response(F), F).max()) < 1e-12
    z = normal(5, 4)
    assert float(stationarity(world.response, z, world.response(z)).max()) == 0


def test_stationarity_is_one_along_the_steepest_direction_and_never_more(linear):
    world, _, _ = linear
    left, _, _ = torch.linalg.svd(world.J)
    z = normal(5, 4)
    F = world.response(z) - left[:, 0]
    torch.testing.assert_close(
        stationarity(world.response, z, F, iterations=1), torch.ones(5, dtype=torch.float64)
    )


def test_stationarity_of_a_dead_encoder_is_zero():
    z, F = normal(3, 4), normal(3, 6)
    assert float(stationarity(lambda z: 0 * z @ torch.ones(4, 6).double(), z, F).max()) == 0
