import pytest
import torch

from leakaudit.core.errors import RunError
from leakaudit.maths.inverse_hvp import ConjugateGradient, Direct, Neumann


def systems(n=5, d=8, seed=0, smallest=0.05):
    """Symmetric positive definite matrices (n, d, d) with eigenvalues from ``smallest`` to 1."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(n, d, d, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(draw)
    values = torch.linspace(smallest, 1.0, d, dtype=torch.float64)
    A = basis @ torch.diag(values) @ basis.mT
    b = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return (A + A.mT) / 2, b


class Counting:
    """Products with each row's matrix, and how often they were asked for."""

    def __init__(self, A):
        self.A, self.calls = A, 0

    def __call__(self, p):
        self.calls += 1
        return torch.einsum("nij,nj->ni", self.A, p)


def true_residual(A, x, b):
    return (torch.einsum("nij,nj->ni", A, x) - b).norm(dim=1) / b.norm(dim=1)


def test_conjugate_gradient_agrees_with_a_dense_solve():
    A, b = systems()
    found = ConjugateGradient(steps=30, tolerance=1e-13)(Counting(A), b)
    torch.testing.assert_close(found.x, torch.linalg.solve(A, b), rtol=1e-9, atol=1e-10)


def test_conjugate_gradient_ends_after_as_many_steps_as_there_are_dimensions():
    A, b = systems(d=6)
    found = ConjugateGradient(steps=50, tolerance=1e-10)(Counting(A), b)
    assert found.steps <= 6


def test_direct_agrees_with_a_dense_solve_of_an_unsymmetric_matrix():
    A, b = systems()
    A = A + 0.3 * torch.triu(torch.ones_like(A), diagonal=1)
    found = Direct()(Counting(A), b)
    torch.testing.assert_close(found.x, torch.linalg.solve(A, b), rtol=1e-10, atol=1e-12)


def test_neumann_agrees_with_a_dense_solve_in_the_limit():
    A, b = systems(smallest=0.2)
    found = Neumann(steps=200, alpha=1.0)(Counting(A), b)
    torch.testing.assert_close(found.x, torch.linalg.solve(A, b), rtol=1e-9, atol=1e-10)


def test_a_relative_neumann_series_converges_in_every_row_whatever_its_unit():
    A, b = systems(n=3, smallest=0.2)
    A = A * torch.tensor([1.0, 1e6, 1e-6], dtype=torch.float64)[:, None, None]
    operator = Counting(A)
    found = Neumann(steps=300, alpha=1.0, relative=True)(operator, b)
    assert float(true_residual(A, found.x, b).max()) < 1e-8
    assert found.passes == operator.calls
    alone = Neumann(steps=300, alpha=1.0, relative=True)(Counting(A[1:2]), b[1:2])
    torch.testing.assert_close(found.x[1:2], alone.x, rtol=1e-12, atol=0)


def test_neumann_with_few_terms_is_the_truncated_series_of_the_paper():
    A, b = systems()
    alpha, power = 0.3, torch.eye(8, dtype=torch.float64).expand_as(A)
    total = torch.zeros_like(A)
    for _ in range(7):
        total = total + alpha * power
        power = power @ (torch.eye(8, dtype=torch.float64) - alpha * A)
    found = Neumann(steps=7, alpha=alpha)(Counting(A), b)
    torch.testing.assert_close(found.x, torch.einsum("nij,nj->ni", total, b))


@pytest.mark.parametrize(
    "solve", [ConjugateGradient(steps=4), Neumann(steps=9, alpha=0.5), Direct()]
)
@pytest.mark.parametrize("warm", [False, True])
def test_the_reported_residual_and_passes_are_the_true_ones(solve, warm):
    A, b = systems()
    x0 = torch.linalg.solve(A, b) * 1.3 if warm else None
    operator = Counting(A)
    found = solve(operator, 1e-7 * b, None if x0 is None else 1e-7 * x0)
    torch.testing.assert_close(
        found.residual, true_residual(A, found.x, 1e-7 * b), rtol=1e-8, atol=1e-12
    )
    assert found.passes == operator.calls


@pytest.mark.parametrize(
    "solve", [ConjugateGradient(tolerance=0.1), Neumann(steps=9, alpha=0.5), Direct()]
)
def test_rows_solved_together_equal_rows_solved_alone(solve):
    A, b = systems(n=4)
    A = A * torch.tensor([1.0, 0.01, 1.5, 0.3], dtype=torch.float64)[:, None, None]
    b = b * torch.tensor([1.0, 1e-6, 1e6, 1.0], dtype=torch.float64)[:, None]
    together = solve(Counting(A), b)
    for row in range(4):
        alone = solve(Counting(A[row : row + 1]), b[row : row + 1])
        torch.testing.assert_close(together.x[row : row + 1], alone.x, rtol=1e-12, atol=0)
        torch.testing.assert_close(together.residual[row : row + 1], alone.residual)


@pytest.mark.parametrize("relative", [False, True])
def test_neumann_in_a_krylov_space_is_the_same_sum_from_fewer_products(relative):
    A, b = systems(n=3, d=40, smallest=1e-4)
    A[2] -= 0.01 * torch.eye(40)  # an exact Hessian may be indefinite
    alpha, x0, products = (1.0, 0.3 * b, 36) if relative else (0.02, None, 9)
    spent, saved = Counting(A), Counting(A)
    literal = Neumann(120, alpha, relative)(spent, b, x0)
    found = Neumann(120, alpha, relative, products=products)(saved, b, x0)
    torch.testing.assert_close(found.x, literal.x, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.residual, literal.residual, rtol=1e-6, atol=1e-8)
    assert (found.steps, found.passes) == (120, saved.calls)
    assert saved.calls == spent.calls - 120 + products


def test_too_few_products_for_the_terms_are_an_error():
    A, b = systems(n=3, d=96, smallest=1e-4)
    with pytest.raises(RunError, match="8 products"):
        Neumann(120, 1.0, products=8)(Counting(A), b)
    found = Neumann(120, 0.02, products=8)(Counting(A), b)
    literal = Neumann(120, 0.02)(Counting(A), b)
    assert float((found.x - literal.x).norm() / literal.x.norm()) < 1e-6


def test_a_krylov_space_may_be_larger_than_what_the_right_hand_side_reaches():
    A, b = systems(n=4, d=8)
    A[1] = 0  # nothing is curved: every term is alpha b
    A[2] = torch.diag(torch.tensor([0.3] * 4 + [0.7] * 4, dtype=torch.float64))
    b[3] = 0
    literal = Neumann(30, 0.4)(Counting(A), b)
    found = Neumann(30, 0.4, products=12)(Counting(A), b)
    torch.testing.assert_close(found.x, literal.x, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.residual, literal.residual, rtol=1e-9, atol=1e-11)


def test_a_neumann_series_that_diverges_does_so_in_a_krylov_space_too():
    A, b = systems()
    with pytest.raises(RunError, match="diverged"):
        Neumann(steps=2000, alpha=10.0, products=8)(Counting(A), b)


def test_a_converged_row_stays_within_its_tolerance_while_others_go_on():
    A, b = systems(n=2)
    A[0] = torch.eye(8, dtype=torch.float64)
    found = ConjugateGradient(steps=30, tolerance=1e-6)(Counting(A), b)
    assert found.steps > 1
    torch.testing.assert_close(found.x[0], b[0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("solve", [ConjugateGradient(), Neumann(alpha=0.5), Direct()])
def test_a_zero_right_hand_side_gives_zero_even_from_a_warm_start(solve):
    A, b = systems()
    b[2] = 0
    found = solve(Counting(A), b, torch.ones_like(b))
    assert bool((found.x[2] == 0).all())
    assert float(found.residual[2]) == 0


def test_a_zero_right_hand_side_everywhere_needs_no_pass():
    A, b = systems()
    assert ConjugateGradient()(Counting(A), torch.zeros_like(b)).passes == 0


def test_a_solution_as_warm_start_needs_no_step():
    A, b = systems()
    found = ConjugateGradient()(Counting(A), b, torch.linalg.solve(A, b))
    assert (found.steps, found.passes) == (0, 1)
    torch.testing.assert_close(found.x, torch.linalg.solve(A, b))


@pytest.mark.parametrize("spoilt", [1e9, float("nan"), float("inf")])
def test_a_misleading_warm_start_does_no_harm_to_any_row(spoilt):
    A, b = systems()
    x0 = torch.zeros_like(b)
    x0[1] = spoilt
    solve = ConjugateGradient(steps=3)
    torch.testing.assert_close(solve(Counting(A), b, x0).x, solve(Counting(A), b).x)


def test_conjugate_gradient_works_on_tiny_slopes_in_float32():
    A, b = systems()
    small = (1e-25 * b).to(torch.float32)
    found = ConjugateGradient(steps=30, tolerance=1e-5)(Counting(A.float()), small)
    expected = torch.linalg.solve(A, small.double())
    torch.testing.assert_close(found.x.double(), expected, rtol=1e-3, atol=1e-28)


def test_conjugate_gradient_stays_finite_on_an_indefinite_matrix_and_says_so():
    A, b = systems()
    A[0] = -A[0]
    found = ConjugateGradient()(Counting(A), b)
    assert bool(found.x.isfinite().all())
    assert float(found.residual[0]) == pytest.approx(1.0)
    assert float(found.residual[1:].max()) < 1e-3


def test_a_diverging_neumann_series_is_an_error():
    A, b = systems()
    with pytest.raises(RunError, match="diverged"):
        Neumann(steps=2000, alpha=10.0)(Counting(A), b)


def test_a_slowly_diverging_neumann_series_shows_in_the_residual():
    A, b = systems()
    assert float(Neumann(steps=30, alpha=2.5)(Counting(A), b).residual.min()) > 1


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_matrix_that_is_regular_by_rounding_only_is_singular_too(kind):
    """J'J of fewer rows than columns: what fills it up is noise of its own formation."""
    J = torch.randn(3, 8, 24, generator=torch.Generator().manual_seed(1), dtype=kind)
    A = J.transpose(1, 2) @ J
    with pytest.raises(RunError, match="singular"):
        Direct()(lambda p: torch.einsum("nij,nj->ni", A, p), torch.ones(3, 24, dtype=kind))


def test_a_singular_matrix_is_an_error_for_the_direct_solver():
    A, b = systems()
    A[1] = 0
    with pytest.raises(RunError, match="singular"):
        Direct()(Counting(A), b)


@pytest.mark.parametrize("solve", [ConjugateGradient(), Neumann(), Direct()])
def test_a_right_hand_side_that_is_not_finite_is_an_error(solve):
    A, b = systems()
    b[0, 0] = float("nan")
    with pytest.raises(RunError, match="finite"):
        solve(Counting(A), b)
