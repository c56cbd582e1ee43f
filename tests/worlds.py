"""Small worlds in float64 whose answers are known by other means than the code under test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def relative_error(got: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what was expected."""
    return float((got - expected).norm() / expected.norm())


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine between the rows of two batches."""
    return torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1)


@dataclass(frozen=True)
class LinearWorld:
    """Encoder and generator are matrices with a bias, so everything has a closed form.

    ``Enc (dF, dx)``, ``e (dF,)``, ``G (dx, dz)``, ``g (dx,)``; faces are rows.
    """

    Enc: Tensor
    e: Tensor
    G: Tensor
    g: Tensor

    @classmethod
    def draw(cls, seed: int = 0, dF: int = 9, dx: int = 7, dz: int = 4) -> LinearWorld:
        """A random world; with dF >= dx >= dz the best response is unique."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        return cls(normal(dF, dx) / dx**0.5, normal(dF), normal(dx, dz) / dz**0.5, normal(dx))

    @property
    def J(self) -> Tensor:  # noqa: N802 - the papers' letter
        """The Jacobian of the response, ``(dF, dz)``."""
        return self.Enc @ self.G

    def encode(self, x: Tensor) -> Tensor:
        """Feature ``(N, dF)`` of images ``(N, dx)``."""
        return x @ self.Enc.T + self.e

    def generate(self, z: Tensor) -> Tensor:
        """Images ``(N, dx)`` of latent points ``(N, dz)``."""
        return z @ self.G.T + self.g

    def response(self, z: Tensor) -> Tensor:
        """Features ``(N, dF)`` of what the generator makes of ``z``."""
        return self.encode(self.generate(z))

    def best_response(self, F: Tensor) -> Tensor:
        """The z that minimises |response(z) - F|^2, by the normal equations."""
        offset = self.encode(self.g[None])
        return torch.linalg.solve(self.J.T @ self.J, self.J.T @ (F - offset).T).T

    def hypergradient(self, slope: Tensor, ridge: Tensor | float = 0.0) -> Tensor:
        """J (J'J + ridge I)^-1 slope, row by row; ``ridge`` is a number or one per row."""
        dz = self.G.shape[1]
        ridges = torch.as_tensor(ridge, dtype=torch.float64).expand(len(slope))
        rows = [
            self.J @ torch.linalg.inv(self.J.T @ self.J + r * torch.eye(dz).to(self.J)) @ s
            for r, s in zip(ridges, slope, strict=True)
        ]
        return torch.stack(rows)

    def crafter_optimum(self, F0: Tensor, target: Tensor, beta: float) -> Tensor:
        """The F that minimises beta |G(z*(F)) - target|^2 + |F - F0|^2, row by row.

        Leaving F0 outside range(J) costs utility and moves no reconstruction, so
        F = F0 + J (z - z0), which leaves a quadratic problem in z.
        """
        z0 = self.best_response(F0)
        normal = beta * self.G.T @ self.G + self.J.T @ self.J
        right = beta * (target - self.g) @ self.G + z0 @ (self.J.T @ self.J)
        z = torch.linalg.solve(normal, right.T).T
        return F0 + (z - z0) @ self.J.T


@dataclass(frozen=True)
class TanhWorld:
    """A smooth nonlinear encoder and generator: tanh layers of small matrices.

    ``A (dx, dz)``, ``a (dx,)`` generate; ``B (dF, dx)``, ``b (dF,)`` encode.
    """

    A: Tensor
    a: Tensor
    B: Tensor
    b: Tensor

    @classmethod
    def draw(cls, seed: int = 0, dF: int = 10, dx: int = 7, dz: int = 3) -> TanhWorld:
        """A random world."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        return cls(normal(dx, dz) / dz**0.5, normal(dx) / 3, normal(dF, dx) / dx**0.5, normal(dF))

    def generate(self, z: Tensor) -> Tensor:
        """Images ``(N, dx)`` in (-1, 1)."""
        return torch.tanh(z @ self.A.T + self.a)

    def encode(self, x: Tensor) -> Tensor:
        """Features ``(N, dF)`` in (-1, 1)."""
        return torch.tanh(x @ self.B.T + self.b)

    def response(self, z: Tensor) -> Tensor:
        """Features of what the generator makes of ``z``."""
        return self.encode(self.generate(z))

    def inner(self, z: Tensor, F: Tensor) -> Tensor:
        """The squared feature loss ``(N,)``."""
        return (self.response(z) - F).square().sum(1)

    def best_response(self, F: Tensor, z: Tensor, steps: int = 30) -> Tensor:
        """The minimum of the inner loss near ``z`` to rounding, by Newton's method.

        Negative curvatures are taken by their size and steps are at most .3 long, so it descends.
        """

        def one(z: Tensor, F: Tensor) -> Tensor:
            return self.inner(z[None], F[None])[0]

        slope = torch.func.vmap(torch.func.grad(one))
        hessian = torch.func.vmap(torch.func.jacrev(torch.func.grad(one)))
        for _ in range(steps):
            values, vectors = torch.linalg.eigh(hessian(z, F))
            along = torch.einsum("nij,ni->nj", vectors, slope(z, F)) / values.abs()
            move = torch.einsum("nij,nj->ni", vectors, along)
            z = z - move * (0.3 / move.norm(dim=1, keepdim=True)).clamp(max=1.0)
        assert float(slope(z, F).abs().max()) < 1e-13
        assert bool((torch.linalg.eigvalsh(hessian(z, F)) > 0).all())
        return z

    def finite_differences(
        self,
        F: Tensor,
        z: Tensor,
        privacy: Callable[[Tensor], Tensor],
        step: float = 1e-5,
    ) -> Tensor:
        """The derivative of ``privacy(z*(F))``, ``(N,)`` per face, by F, re-solving for z*."""
        n, dF = F.shape
        shifts = step * torch.eye(dF, dtype=F.dtype)
        values = []
        for sign in (1, -1):
            moved = (F[:, None] + sign * shifts).reshape(n * dF, dF)
            best = self.best_response(moved, z.repeat_interleave(dF, 0)).reshape(n, dF, -1)
            values.append(torch.stack([privacy(best[:, k]) for k in range(dF)], dim=1))
        return (values[0] - values[1]) / (2 * step)
