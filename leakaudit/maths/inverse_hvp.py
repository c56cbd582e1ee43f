"""Solvers for A x = b, one symmetric positive definite A per row, known only by its products.

Each face has its own system, so nothing here mixes rows: a row's solution doesn't depend on its
neighbours. Rows that are done are frozen while others go on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from leakaudit.core.errors import RunError

Operator = Callable[[Tensor], Tensor]
"""Maps ``(N, d)`` to ``(N, d)``: row i is A_i times row i, for every row at once."""


@final
@dataclass(frozen=True)
class Solution:
    """What a solver found, and how far it got.

    ``x (N, d)``; ``residual (N,)`` is |A x - b| / |b| per row (0 where b = 0; 1 is no better than
    x = 0); ``steps`` is the largest number of iterations of any row; ``passes`` counts operator
    calls. Iterative solvers report the residual of their recursion, which costs no extra call.
    """

    x: Tensor
    residual: Tensor
    steps: int
    passes: int


_POWER_STEPS = 8  # towards the largest eigenvalue


class Solver(ABC):
    """Maps an operator and a right-hand side ``b (N, d)`` to a ``Solution``.

    ``x0 (N, d)`` is a warm start; a row in which it's worse than 0 (by the residual) starts from 0.
    Rows are scaled to |b| = 1 inside, so tiny slopes don't underflow; rows with b = 0 give x = 0.
    Raises ``RunError`` when b isn't finite.
    """

    @final
    def __call__(self, operator: Operator, b: Tensor, x0: Tensor | None = None) -> Solution:
        """Solve A x = b row by row."""
        if not bool(b.isfinite().all()):
            raise RunError("The right-hand side of an inverse-Hessian product isn't finite")
        unit, length = normalise_rows(b)
        found = self._solve(operator, unit, None if x0 is None else x0 / length)
        return Solution(found.x * length, found.residual, found.steps, found.passes)

    @abstractmethod
    def _solve(self, operator: Operator, b: Tensor, x0: Tensor | None) -> Solution:
        """Solve for rows of b that have norm 1 or are 0."""


@final
@dataclass(frozen=True)
class ConjugateGradient(Solver):
    """Conjugate gradients, with a step length and a direction update per row.

    ``steps``: at most so many iterations (one operator call each, and one for a warm start);
    ``tolerance``: a row is done when |A x - b| <= tolerance |b|. Stopped early it damps directions
    of small curvature. A row that meets a direction without positive curvature stays where it is,
    and its residual tells. ``precondition`` maps rows (N, d) to about A^-1 of them, by a positive
    definite matrix a row; the nearer it is, the fewer iterations.

    Source: Hestenes and Stiefel (1952); preconditioned: Concus, Golub and O'Leary (1976).
    """

    steps: int = 20
    tolerance: float = 1e-4
    precondition: Operator | None = None

    def _solve(self, operator: Operator, b: Tensor, x0: Tensor | None) -> Solution:
        x, r, passes = _start(operator, b, x0)
        p = self._nearer(r)
        rr = _dot(r, p)
        alive = _norm(r) > self.tolerance
        step = 0
        while step < self.steps and bool(alive.any()):
            Ap = operator(p)
            passes += 1
            pAp = _dot(p, Ap)
            alive = alive & (pAp > 0)
            alpha = rr / torch.where(alive, pAp, 1.0)
            x = torch.where(alive, x + alpha * p, x)
            r = torch.where(alive, r - alpha * Ap, r)
            toward = self._nearer(r)
            fresh = _dot(r, toward)
            beta = fresh / torch.where(alive, rr, 1.0)
            p = torch.where(alive, toward + beta * p, p)
            rr = fresh
            step += int(alive.any())
            alive = alive & (_norm(r) > self.tolerance)
        return Solution(x, _norm(r)[:, 0], step, passes)

    def _nearer(self, r: Tensor) -> Tensor:
        return r if self.precondition is None else self.precondition(r)


@final
@dataclass(frozen=True)
class Neumann(Solver):
    """The truncated Neumann series: ``steps`` terms of sum_k (I - alpha A)^k alpha b.

    Written as x <- x + alpha (b - A x), which from 0 gives the same sums. It converges for
    0 < alpha < 2 / (largest eigenvalue of A), and a finite number of terms damps directions of
    curvature below 1 / (alpha steps). ``alpha`` is in units of 1 / A: the paper's .001 belongs to
    its own loss (scaled, averaged over its batch). With ``relative`` it is in units of 1 / (largest
    eigenvalue of the row's A), which power iterations estimate from below: up to 1 is safe. One
    operator call per term; or, with ``products`` above 0, as many calls as that and the same
    polynomial of A evaluated in their Krylov space (Lanczos, all vectors kept orthogonal), which is
    the same sum to rounding where they are many enough for alpha (8 for 120 terms up to .02 /
    largest eigenvalue); ``RunError`` where, by what leaves the space, they aren't. A residual above
    1 means that it's diverging; ``RunError`` when it left the finite numbers.

    Source: Crafter (NDSS 2024) Alg. 1; Lorraine et al. (AISTATS 2020), Alg. 3.
    """

    steps: int = 120
    alpha: float = 1e-3
    relative: bool = False
    products: int = 0

    def _solve(self, operator: Operator, b: Tensor, x0: Tensor | None) -> Solution:
        x, r, passes = _start(operator, b, x0)
        alpha: Tensor | float = self.alpha
        if self.relative:
            alpha = self.alpha / _largest(operator, b)
            passes += _POWER_STEPS
        if self.products:
            more, r, away = self._in_krylov(operator, r, alpha)
            if bool((away > 1e-4).any()):
                raise RunError(
                    f"{self.products} products with the Hessian don't give the {self.steps} terms",
                    todo="Take more products, or 0, which spends one a term",
                )
            x = x + more
        else:
            for _ in range(self.steps):
                x = x + alpha * r
                r = r - alpha * operator(r)
        if not bool(x.isfinite().all() & r.isfinite().all()):
            raise RunError(
                f"The Neumann series diverged at alpha = {self.alpha:g}",
                todo="Lower alpha below 2 / (largest eigenvalue), or use conjugate gradients",
            )
        passes += self.products or self.steps
        return Solution(x, _norm(r)[:, 0], self.steps, passes)

    def _in_krylov(
        self, operator: Operator, r: Tensor, alpha: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The sum for the right-hand side ``r (N, d)``, and what it leaves of r, by Lanczos.

        With them, a row (N,), the part of A times the sum that lies outside of the space.
        """
        basis, T, beyond = _lanczos(operator, r, self.products)
        rate = torch.as_tensor(alpha, dtype=torch.float64, device=r.device).expand(len(r), 1)
        curvature, turn = torch.linalg.eigh(T)  # (N, k), (N, k, k)
        left = (1 - rate * curvature) ** self.steps
        flat = curvature.abs() * rate * self.steps < 1e-9
        share = torch.where(flat, rate * self.steps, (1 - left) / torch.where(flat, 1.0, curvature))
        first = turn[:, 0] * _norm(r).to(torch.float64)
        x, left = (torch.einsum("nij,nj,nj->ni", turn, f, first) for f in (share, left))
        away = (beyond * x[:, -1]).abs()
        x, left = (torch.einsum("nkd,nk->nd", basis, c.to(r.dtype)) for c in (x, left))
        return x, left, away


@final
@dataclass(frozen=True)
class Direct(Solver):
    """The dense solution: A is formed by d operator calls and factorised in float64.

    The reference for the others, and affordable for a small d. A warm start is ignored. Needs an
    invertible A, not a positive definite one. Raises ``RunError`` when a row's A is singular.
    """

    def _solve(self, operator: Operator, b: Tensor, x0: Tensor | None) -> Solution:
        d = b.shape[1]
        basis = torch.eye(d, dtype=b.dtype, device=b.device)
        columns = [operator(e.expand_as(b).contiguous()) for e in basis]
        A = torch.stack(columns, dim=2).to(torch.float64)
        right = b.to(torch.float64)
        factors, pivots, info = torch.linalg.lu_factor_ex(A)
        sizes = factors.diagonal(dim1=1, dim2=2).abs()
        # A was formed in the type of b: what is below its rounding isn't known to be there.
        least = torch.finfo(b.dtype).eps * sizes.amax(1)
        if bool(info.any()) or bool((sizes.amin(1) <= least).any()):
            raise RunError("An inner Hessian is singular", todo="Raise the damping")
        x = torch.linalg.lu_solve(factors, pivots, right.unsqueeze(2)).squeeze(2)
        residual = _norm(torch.einsum("nij,nj->ni", A, x) - right)[:, 0]
        return Solution(x.to(b.dtype), residual.to(b.dtype), 1, d)


def _lanczos(operator: Operator, b: Tensor, products: int) -> tuple[Tensor, Tensor, Tensor]:
    """An orthonormal basis (N, k, d) of b, A b, A^2 b, ... and A in it, (N, k, k) in float64.

    And how far A takes the last vector out of the space, (N,). A row whose space is exhausted goes
    on with zero vectors, which add nothing.
    """
    v, _ = normalise_rows(b)
    basis = v[:, None]
    T = torch.zeros(len(b), products, products, dtype=torch.float64, device=b.device)
    for k in range(products):
        w = operator(v)
        T[:, k, k] = _dot(v.to(T), w.to(T))[:, 0]
        before = _norm(w)
        for _ in range(2):  # once is not enough in float32
            w = w - torch.einsum("nkd,nk->nd", basis, torch.einsum("nkd,nd->nk", basis, w))
        length = _norm(w)
        going = length > 1e-6 * before
        v = torch.where(going, w / torch.where(going, length, 1.0), 0.0)
        if k + 1 < products:
            T[:, k, k + 1] = T[:, k + 1, k] = torch.where(going, length, 0.0)[:, 0].to(T)
            basis = torch.cat([basis, v[:, None]], 1)
    return basis, T, torch.where(going, length, 0.0)[:, 0].to(T)


def normalise_rows(b: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of ``b (N, d)`` scaled to norm 1, and their norms ``(N, 1)``.

    Rows of zeros stay zeros, with norm 1. The largest entry is divided out first, as the square of
    a small slope underflows in float32.
    """
    largest = b.abs().amax(dim=1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    length = _norm(b / largest)
    length = torch.where(length > 0, length, 1.0)
    return b / largest / length, largest * length


def _start(operator: Operator, b: Tensor, x0: Tensor | None) -> tuple[Tensor, Tensor, int]:
    """First iterate, its residual vector, and the operator calls that it took."""
    if x0 is None:
        return torch.zeros_like(b), b, 0
    r = b - operator(x0)
    better = _norm(r) < _norm(b)  # false for NaN as well
    return torch.where(better, x0, 0.0), torch.where(better, r, b), 1


def _largest(operator: Operator, b: Tensor) -> Tensor:
    """The largest eigenvalue of each row's A from below, (N, 1), and 1 where nothing is seen of it.

    From one fixed random start for all rows, so that a row doesn't depend on its neighbours.
    """
    start = torch.Generator().manual_seed(0)
    v = torch.randn(b.shape[1], generator=start, dtype=torch.float64).to(b).expand_as(b)
    length = torch.ones_like(b[:, :1])
    for _ in range(_POWER_STEPS):
        unit, _ = normalise_rows(v)
        v = operator(unit)
        length = _norm(v)
    return torch.where(length > 0, length, 1.0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True)


def _norm(a: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a, dim=1, keepdim=True)
