"""Widening on linear stages, and the L1 ball against its definition."""

from __future__ import annotations

import torch
from toys import normal

from leakaudit.core.rng import Rng
from leakaudit.models.prior import Prior, PriorShape
from leakaudit.models.widening import Widening, onwards, widen, within_l1


def test_points_inside_the_ball_stay_and_others_end_on_its_rim() -> None:
    points, radius = normal(5, 30, seed=1), torch.tensor([0.5, 3.0, 8.0, 1e3, 2.0])
    made = within_l1(points, radius)
    size = made.abs().sum(1)
    assert torch.equal(made[3], points[3])
    torch.testing.assert_close(size[[0, 1, 2, 4]], radius[[0, 1, 2, 4]])


def test_the_projection_is_the_nearest_point_of_the_ball() -> None:
    point, radius = normal(1, 6, seed=2), torch.tensor([1.0])
    nearest = float((within_l1(point, radius) - point).norm())
    others = normal(4000, 6, seed=3)
    others = others / others.abs().sum(1, keepdim=True)
    assert nearest <= float((others - point).norm(dim=1).min()) + 1e-6


def test_widening_reaches_a_picture_that_no_latent_gives() -> None:
    lift = normal(6, 2, seed=4)
    stages = (lambda z: z @ lift.T, lambda h: h)
    goal = torch.tensor([[1.0, 0, 0, 0, 0, 0]]) + 2 * lift.T[:1]
    z = torch.linalg.lstsq(lift, goal.T).solution.T

    def judge(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (x - goal[rows]).square().sum(1)

    def run(radius: float) -> float:
        how = Widening(steps=60, radius=radius)
        return float(widen(1, stages[0](z), stages=stages, judge=judge, how=how).loss)

    before = float(judge(stages[0](z), torch.tensor([0])))
    assert run(5.0) < 1e-3 * before
    assert run(5.0) < run(0.01) < before


def test_no_move_leaves_the_ball() -> None:
    begin = normal(3, 8, seed=5)
    how = Widening(steps=30, radius=0.1)
    found = widen(
        1, begin, stages=(lambda z: z, lambda h: h), how=how,
        judge=lambda x, rows: (x - 9).square().sum(1),
    )  # fmt: skip
    moved = (found.points - begin).abs().sum(1)
    assert bool((moved <= 0.1 * begin.abs().sum(1) * (1 + 1e-4)).all())


def test_the_stages_of_a_prior_in_turn_are_the_prior() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = Prior(PriorShape(size=32, latent=8, width=8)).eval()
    z = prior.draw(2, Rng(1))
    assert torch.equal(onwards(z, prior.generator.stages()), prior(z))
    assert onwards(z, prior.generator.stages()[:1]).shape[2:] == (4, 4)
