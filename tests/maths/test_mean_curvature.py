"""Mean curvature by random products, and what it does for conjugate gradients."""

from __future__ import annotations

import torch
from worlds import relative_error

from leakaudit.core.rng import Rng
from leakaudit.maths.hypergradient import linearise
from leakaudit.maths.inverse_hvp import ConjugateGradient
from leakaudit.maths.mean_curvature import factor, solved, summed_normal


def stretched(rows: int = 64, dz: int = 12, dF: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """A Jacobian (dF, dz) with singular values from 1 to 1e-3, and latents (rows, dz)."""
    generator = Rng(3).torch()
    u = torch.linalg.qr(torch.randn(dF, dz, generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(dz, dz, generator=generator, dtype=torch.float64))[0]
    sizes = torch.logspace(0, -3, dz, dtype=torch.float64)
    J = u @ sizes.diag() @ v
    return J, torch.randn(rows, dz, generator=generator, dtype=torch.float64)


def streams(z: torch.Tensor) -> list[Rng]:
    return [Rng(0).derive(row) for row in range(len(z))]


def test_rows_draw_for_themselves() -> None:
    J, z = stretched(rows=6)
    whole = summed_normal(linearise(lambda z: z @ J.T, z), 3, streams(z))
    parts = [
        summed_normal(linearise(lambda z: z @ J.T, z[k]), 3, [streams(z)[r] for r in k])
        for k in ([0, 1, 2, 3], [4, 5])
    ]
    torch.testing.assert_close(whole, parts[0] + parts[1])


def test_in_a_linear_world_the_mean_curvature_is_the_normal_matrix_in_every_direction() -> None:
    J, z = stretched()
    at = linearise(lambda z: z @ J.T, z)
    found = summed_normal(at, 40, streams(z)) / len(z)
    values = torch.linalg.eigvals(torch.linalg.solve(J.T @ J, found)).real
    assert float(values.min()) > 0.75 and float(values.max()) < 1.3  # sqrt(12 / 2560) is .07
    coarse = summed_normal(at, 1, streams(z)) / len(z)
    assert relative_error(found, J.T @ J) < relative_error(coarse, J.T @ J)


def test_preconditioned_conjugate_gradients_need_fewer_products_for_the_same_solution() -> None:
    J, z = stretched()
    A, b = J.T @ J, z[:5]
    nearer = factor(summed_normal(linearise(lambda z: z @ J.T, z), 10, streams(z))[None] / len(z))
    by = ConjugateGradient(4, 1e-12, precondition=lambda r: solved(nearer.expand(5, -1, -1), r))
    helped, plain = by(lambda p: p @ A, b), ConjugateGradient(4, 1e-12)(lambda p: p @ A, b)
    exact = torch.linalg.solve(A, b.T).T
    assert relative_error(helped.x, exact) < 0.15
    assert relative_error(plain.x, exact) > 0.5
    to_the_end = ConjugateGradient(12, 1e-12, precondition=by.precondition)(lambda p: p @ A, b)
    assert relative_error(to_the_end.x, exact) < 1e-6


def test_where_nothing_curves_or_nothing_is_known_nothing_is_preconditioned() -> None:
    eye = torch.eye(3)
    odd = torch.stack([torch.zeros(3, 3), torch.full((3, 3), torch.nan), -eye, 4 * eye])
    found = factor(odd)
    for k in range(3):
        assert torch.equal(found[k], eye)
    torch.testing.assert_close(found[3], 2 * eye, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        solved(found, torch.ones(4, 3))[3], torch.full((3,), 0.25), rtol=1e-3, atol=0
    )
