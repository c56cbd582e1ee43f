"""The earth mover's distance between two samples: exact, and differentiable in both of them.

Crafter (NDSS 2024) Eq. 8 takes this distance between reconstructions and prior samples as its
privacy loss. Both sides weigh all of their points alike, and the ground cost is the Euclidean norm,
unsquared. The plan comes from POT's network simplex; at the optimal plan the derivative of the
minimum is the derivative of the objective with the plan held fixed (envelope theorem: Danskin 1966,
Milgrom and Segal 2002), so no gradient flows through the plan.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from leakaudit.core.errors import RunError

_PIVOTS = 10_000_000  # POT's default of 100,000 stops short beyond some hundreds of points


def pairwise_distance(a: Tensor, b: Tensor) -> Tensor:
    """The Euclidean distances ``(n, m)`` between the rows of ``a (n, d)`` and ``b (m, d)``.

    Computed from differences, not from inner products, which lose near duplicates in float32. The
    gradient at distance 0 is 0.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def distance_table(a: Tensor, b: Tensor) -> Tensor:
    """The same distances ``(n, m)`` in float64, by inner products of centred rows; no gradient.

    Several times faster on long rows. Cancellation leaves an error of about 1e-8 times the rows'
    spread where two rows are alike, and of the last digits elsewhere.
    """
    a, b = (rows.detach().double() for rows in (a, b))
    middle = torch.cat([a, b]).mean(0)
    a, b = a - middle, b - middle
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    return squares.clamp(min=0).sqrt()


def transport_plan(cost: Tensor) -> Tensor:
    """An optimal plan ``(n, m)`` for ``cost (n, m)`` between uniform weights; sums to 1.

    Rows sum to 1/n, columns to 1/m, at most n + m - 1 entries are above 0. Solved in float64 and
    returned detached, in the type and on the device of ``cost``. Costs are divided by the largest
    first, as POT compares with absolute thresholds and goes wrong on tiny costs. Raises
    ``RunError`` when a cost isn't finite (POT would answer 0.0 with a warning) or when POT warns.
    """
    import ot

    table = cost.detach().to(device="cpu", dtype=torch.float64)
    if table.ndim != 2 or table.numel() == 0:
        raise ValueError(f"a non-empty (n, m) cost is needed, got {tuple(table.shape)}")
    if not bool(table.isfinite().all()):
        raise RunError("A transport cost isn't finite", todo="Look for NaN or overflow upstream")
    largest = float(table.abs().max())
    scaled = (table / largest if largest > 0 else table).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            plan = ot.emd([], [], scaled, numItermax=_PIVOTS)
        except Warning as warning:
            raise RunError(f"POT found no optimal plan: {warning}") from warning
    return torch.from_numpy(plan).to(cost)


def emd(a: Tensor, b: Tensor) -> Tensor:
    """The earth mover's distance (scalar) between the samples ``a (n, d)`` and ``b (m, d)``.

    In the unit of the points, 0 or more, 0 only for equal samples (up to repetition). Gradients
    flow to both samples through the cost, with the plan fixed (the module says why). Only the few
    pairs in the plan enter the graph, so its memory is (n + m) d and not n m d. Errors as in
    ``transport_plan``.
    """
    plan = transport_plan(pairwise_distance(a.detach(), b.detach()))
    rows, columns = plan.nonzero(as_tuple=True)
    moved = torch.linalg.vector_norm(a[rows] - b[columns], dim=1)
    return (plan[rows, columns] * moved).sum()


def assignment(plan: Tensor) -> Tensor:
    """The permutation ``(n,)`` (int64) that sends row i to its column, for a plan of equal n.

    An extreme plan between equally many equal weights is a permutation (Birkhoff). Raises
    ``ValueError`` for a plan that isn't one.
    """
    partner = plan.argmax(dim=1)
    square = plan.ndim == 2 and plan.shape[0] == plan.shape[1]
    if not square or partner.unique().numel() != plan.shape[0]:
        raise ValueError(f"the plan {tuple(plan.shape)} isn't a permutation")
    return partner


def relative_epsilon(value: float, floor: float, ceiling: float) -> float | None:
    """Where ``value`` lies between ``floor`` (0) and ``ceiling`` (1): the headline of epsilon-PII.

    Floor: EMD between two prior samples; ceiling: EMD of undefended reconstructions; all three at
    the same n. Not clipped: chance can carry it below 0 or above 1. None when the ceiling isn't
    above the floor, so that there is nothing to tell apart.
    """
    if ceiling <= floor:
        return None
    return (value - floor) / (ceiling - floor)
