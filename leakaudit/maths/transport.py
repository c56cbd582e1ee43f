"""Three ways to the earth mover's distance behind one interface: exact, Sinkhorn, and a critic.

A ``Fitted`` transport gives each point of a sample its own cost towards another sample. The mean of
these costs is the estimated distance, and their derivative by the first sample is that of the
estimate with the plan (or the critic) held fixed: the envelope theorem (Danskin 1966).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.errors import RunError, UnknownNameError
from leakaudit.core.rng import Rng
from leakaudit.maths.emd import pairwise_distance, transport_plan

TRANSPORTS = ("exact", "sinkhorn", "critic")
_STAGE = 60  # sweeps at each regularisation on the way down
_LOOK = 10  # sweeps between looks at the marginals


class Fitted(ABC):
    """How each point of a sample is charged for its way to another sample."""

    @abstractmethod
    def rows(self, made: Tensor, goals: Tensor, *, smooth: float = 0.0) -> Tensor:
        """Costs (n,) of the points ``made (n, d)``, whose mean is the distance to ``goals (m, d)``.

        Differentiable in ``made``. ``smooth`` (a length) keeps the derivative of a distance finite
        where points coincide.
        """


@final
@dataclass(frozen=True, eq=False)
class ByPlan(Fitted):
    """A plan (n, m) that sums to 1, exact or regularised."""

    plan: Tensor

    def rows(self, made: Tensor, goals: Tensor, *, smooth: float = 0.0) -> Tensor:
        """Each row of the plan times its distances, scaled by n."""
        apart = (made.unsqueeze(1) - goals).square().sum(2)
        return len(made) * (self.plan * (apart + smooth**2).sqrt()).sum(1)


@final
@dataclass(frozen=True, eq=False)
class ByCritic(Fitted):
    """A function of slope about 1: its value less its mean on the goals (Kantorovich's dual)."""

    critic: Callable[[Tensor], Tensor]

    def rows(self, made: Tensor, goals: Tensor, *, smooth: float = 0.0) -> Tensor:
        """The critic's values less its mean over the goals; ``smooth`` isn't needed."""
        return self.critic(made) - self.critic(goals).mean()


@final
@dataclass(frozen=True)
class CriticTraining:
    """How a critic is trained: ``steps`` of Adam at ``rate`` with ``penalty`` on its slope.

    Two hidden layers of ``width``. Source: Gulrajani et al. (NeurIPS 2017), WGAN-GP; Crafter takes
    10 steps at 5e-4 with a penalty of 20 for each of its outer steps.
    """

    steps: int = 400
    rate: float = 3e-3
    penalty: float = 20.0
    width: int = 64

    def __post_init__(self) -> None:
        at_least("critic", 1, steps=self.steps, width=self.width)
        above_zero("critic", rate=self.rate, penalty=self.penalty)


@dataclass(frozen=True)
class Transport:
    """Which estimate is taken: ``kind`` is exact, sinkhorn or critic.

    ``regularisation`` (Sinkhorn's) is in units of the mean cost.
    """

    kind: str = "exact"
    regularisation: float = 0.05
    critic: CriticTraining = field(default_factory=CriticTraining)

    def __post_init__(self) -> None:
        known_transport(self.kind)
        above_zero("transport", regularisation=self.regularisation)

    def plan(self, cost: Tensor) -> Tensor:
        """The plan (n, m) for ``cost (n, m)``; only exact and sinkhorn have one."""
        if self.kind == "sinkhorn":
            return sinkhorn_plan(cost, self.regularisation)
        return transport_plan(cost)

    def fit(self, made: Tensor, goals: Tensor, rng: Rng) -> Fitted:
        """Solved, or trained, between two samples (n, d) and (m, d)."""
        made, goals = made.detach(), goals.detach()
        if self.kind == "critic":
            return ByCritic(trained_critic(made, goals, self.critic, rng))
        return ByPlan(self.plan(pairwise_distance(made, goals)))

    def distance(self, made: Tensor, goals: Tensor, rng: Rng) -> Tensor:
        """The estimated distance, a scalar with a gradient by ``made``."""
        return self.fit(made, goals, rng).rows(made, goals).mean()


def known_transport(kind: str, *, where: str | None = None) -> None:
    """Raises UnknownNameError for a transport that isn't one of ``TRANSPORTS``."""
    if kind not in TRANSPORTS:
        raise UnknownNameError("transport", kind, TRANSPORTS, where=where)


def sinkhorn_plan(
    cost: Tensor, regularisation: float = 0.05, *, tolerance: float = 1e-5, sweeps: int = 20_000
) -> Tensor:
    """The plan (n, m) of least cost plus entropy between uniform weights; sums to 1.

    The entropy's weight is ``regularisation`` times the mean cost; the plan goes to an exact one as
    it goes to 0. Sweeps in logarithms and float64, with the weight halved from a large one on
    (without that a small one takes for ever), end when rows are off by ``tolerance`` of their
    weight; what is left is put right (Altschuler et al. 2017), so that the plan's cost is never
    below the exact distance. Raises ``RunError`` for a cost that isn't finite, and when ``sweeps``
    didn't suffice. Source: Cuturi (NeurIPS 2013); Schmitzer (2019) for the logarithms.
    """
    table = cost.detach().to(device="cpu", dtype=torch.float64)
    if table.ndim != 2 or table.numel() == 0:
        raise ValueError(f"a non-empty (n, m) cost is needed, got {tuple(table.shape)}")
    if not bool(table.isfinite().all()):
        raise RunError("A transport cost isn't finite", todo="Look for NaN or overflow upstream")
    n, m = table.shape
    mean = float(table.mean())
    if mean <= 0:
        return torch.full_like(cost, 1 / (n * m))
    table = table / mean
    g, off = torch.zeros(m, dtype=table.dtype, device=table.device), math.inf
    weight, spent = max(1.0, regularisation), 0
    while True:
        last = weight <= regularisation
        most = sweeps if last else min(sweeps, spent + _STAGE)
        while spent < most:
            f = weight * (-math.log(n) - torch.logsumexp((g - table) / weight, 1))
            g = weight * (-math.log(m) - torch.logsumexp((f[:, None] - table) / weight, 0))
            spent += 1
            if spent % _LOOK == 0 or spent == most:
                rows = torch.logsumexp((f[:, None] + g - table) / weight, 1)
                off = float((n * rows.exp() - 1).abs().max())
                if off <= tolerance:
                    break
        if last:
            break
        weight, off = max(regularisation, weight / 2), math.inf
    if off > max(tolerance, 1e-3):
        raise RunError(
            f"Sinkhorn's sweeps ended {off:.1g} off their marginals",
            todo="Raise the regularisation, or take the exact transport",
        )
    return _put_right(((f[:, None] + g - table) / weight).exp()).to(cost)


def _put_right(plan: Tensor) -> Tensor:
    """The plan with exactly uniform marginals: scaled down where above, the rest spread."""
    n, m = plan.shape
    plan = plan * (1 / n / plan.sum(1, keepdim=True)).clamp(max=1.0)
    plan = plan * (1 / m / plan.sum(0, keepdim=True)).clamp(max=1.0)
    rows, columns = (1 / n - plan.sum(1)).clamp(min=0), (1 / m - plan.sum(0)).clamp(min=0)
    left = rows.sum()
    return plan + rows[:, None] * columns / left if float(left) > 0 else plan


def trained_critic(
    made: Tensor, goals: Tensor, how: CriticTraining, rng: Rng
) -> Callable[[Tensor], Tensor]:
    """A function (n, d) -> (n,) of slope about 1 that is high on ``made`` and low on ``goals``.

    Trained on both whole samples; the penalty is taken on random points of the lines between them.
    In the first half of the steps only slopes above 1 are penalised: a slope of 1 in the wrong
    direction would be a trap. Points are measured in units of their mean distance inside. Raises
    ``RunError`` when points or the trained critic aren't finite.
    """
    unit = float(pairwise_distance(made, goals).mean())
    if not math.isfinite(unit):
        raise RunError("A transport cost isn't finite", todo="Look for NaN or overflow upstream")
    unit = unit if unit > 0 else 1.0
    centre = goals.mean(0)
    a, b = (made - centre) / unit, (goals - centre) / unit
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive("init").state)
        net = nn.Sequential(
            nn.Linear(a.shape[1], how.width), nn.SiLU(),
            nn.Linear(how.width, how.width), nn.SiLU(), nn.Linear(how.width, 1),
        ).to(a)  # fmt: skip
    draws = rng.derive("lines").torch()
    optimiser = torch.optim.Adam(net.parameters(), lr=how.rate, betas=(0.5, 0.9))
    for step in range(how.steps):
        for group in optimiser.param_groups:
            group["lr"] = how.rate * 0.5 * (1.02 + 0.98 * math.cos(math.pi * step / how.steps))
        with torch.enable_grad():
            between = _between(a, b, draws)
            (slope,) = torch.autograd.grad(net(between).sum(), between, create_graph=True)
            steep = (slope.square().sum(1) + 1e-12).sqrt() - 1
            if 2 * step < how.steps:
                steep = steep.clamp(min=0)
            loss = net(b).mean() - net(a).mean() + how.penalty * steep.square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    if not all(bool(p.isfinite().all()) for p in net.parameters()):
        raise RunError("The critic's weights aren't finite", todo="Lower its rate")
    net.requires_grad_(False)

    def critic(points: Tensor) -> Tensor:
        value: Tensor = unit * net((points - centre) / unit).squeeze(1)
        return value

    return critic


def _between(a: Tensor, b: Tensor, draws: torch.Generator) -> Tensor:
    """Random points on lines between random pairs of the samples, as many as the larger one has."""
    count = max(len(a), len(b))
    left = a[torch.randint(len(a), (count,), generator=draws)]
    right = b[torch.randint(len(b), (count,), generator=draws)]
    share = torch.rand(count, 1, generator=draws).to(a)
    return (share * left + (1 - share) * right).requires_grad_()
