"""The mean curvature of squared losses over a crowd, and steps measured by it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.maths.hypergradient import Linearised


def summed_normal(at: Linearised, probes: int, streams: Sequence[Rng]) -> Tensor:
    """The sum of J'J over the rows of ``at``, (dz, dz), from ``probes`` products J'w a row.

    With w standard normal the mean of (J'w)(J'w)' is J'J. Unbiased; its relative error is about
    sqrt(dz / (rows * probes)) in every direction, whatever the spectrum, which is enough to
    precondition with. Each row has a stream of its own in ``streams``, so that it is the same
    beside other rows. Source: Hutchinson (1989), for the whole matrix.
    """
    generators, shape = [stream.torch() for stream in streams], at.feature.shape[1:]
    total = torch.zeros((), dtype=at.feature.dtype, device=at.feature.device)
    for _ in range(probes):
        w = torch.stack([torch.randn(shape, generator=random) for random in generators])
        row = at.back(w.to(at.feature))
        total = total + row.T @ row
    return total / probes


def factor(normal: Tensor, *, share: float = 1e-4) -> Tensor:
    """The Cholesky factor (N, dz, dz) of positive semi-definite matrices with a little ridge.

    The ridge is ``share`` of the mean diagonal. Where there is none, or a matrix isn't finite, it
    is the identity: nothing is preconditioned then.
    """
    eye = torch.eye(normal.shape[-1], dtype=normal.dtype, device=normal.device)
    size = normal.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    found, failed = torch.linalg.cholesky_ex(normal + share * size * eye)
    return torch.where((failed != 0)[..., None, None] | ~(size > 0), eye, found)


def solved(factored: Tensor, b: Tensor) -> Tensor:
    """A^-1 b (N, dz), A of the Cholesky factor (N, dz, dz) that ``factor`` gave."""
    return torch.cholesky_solve(b.unsqueeze(2), factored).squeeze(2)
