import math

import pytest
import torch

from leakaudit.core.errors import UsageError
from leakaudit.maths.descent import Descent, descend
from leakaudit.maths.lbfgs import PATIENT, begun, moved


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bowls(n=4, d=12, *, worst=1e3, seed=0):
    """Quadratics (n, d, d), eigenvalues from 1 to ``worst``, and where they are least (n, d)."""
    basis, _ = torch.linalg.qr(normal(n, d, d, seed=seed))
    values = torch.logspace(0, math.log10(worst), d, dtype=torch.float64)
    return basis @ torch.diag(values) @ basis.mT, normal(n, d, seed=seed + 1)


class Quadratic:
    """``(x - t)'A(x - t) / 2 + floor``, counting the faces it was asked about."""

    def __init__(self, A, target, floor=0.0):
        self.A, self.target, self.floor, self.asked = A, target, floor, []

    def __call__(self, x, rows):
        self.asked.append(len(rows))
        gap = x - self.target[rows]
        return 0.5 * torch.einsum("ni,nij,nj->n", gap, self.A[rows], gap) + self.floor


def valley(x, rows):
    """Rosenbrock's valley, whose least point is (1, 1)."""
    return (1 - x[:, 0]).square() + 100 * (x[:, 1] - x[:, 0].square()).square()


def crooked(x, rows):
    """No face's loss is another one's, and none is a quadratic."""
    tilt = 1 + rows.to(x)[:, None] / 3
    pull = torch.logspace(0, 1, x.shape[1], dtype=x.dtype) ** (rows.to(x)[:, None] / 2)
    return (tilt * x).sin().square().sum(1) + 0.1 * (pull * (x - tilt).square()).sum(1)


def test_ill_conditioned_quadratics_end_where_the_closed_form_says():
    A, target = bowls()
    done = descend(Quadratic(A, target), torch.zeros_like(target), how=Descent(steps=150))
    torch.testing.assert_close(done.points, target, rtol=0, atol=0.02)
    # Steepest descent needs about as many steps as the condition number to divide a loss by e.
    assert bool((done.loss < 1e-5 * Quadratic(A, target)(0 * target, torch.arange(4))).all())


def test_two_quadratics_in_one_balance_where_a_linear_solve_says():
    E, feature = normal(3, 9, 6), normal(3, 9, seed=1)
    weight = 0.3

    def loss(x, rows):
        gap = torch.einsum("nij,nj->ni", E[rows], x) - feature[rows]
        return gap.square().sum(1) + weight * x.square().sum(1)

    expected = torch.linalg.solve(
        E.mT @ E + weight * torch.eye(6, dtype=torch.float64), (E.mT @ feature[..., None])
    )[..., 0]
    done = descend(loss, torch.zeros(3, 6, dtype=torch.float64), how=Descent(gain=1e-9))
    torch.testing.assert_close(done.points, expected, rtol=0, atol=1e-4)
    assert bool(done.settled.all())


@pytest.mark.parametrize("start", [(-1.2, 1.0), (2.0, -1.0)])
def test_a_bent_valley_is_followed_to_its_end(start):
    done = descend(valley, torch.tensor([start], dtype=torch.float64), how=Descent(steps=200))
    torch.testing.assert_close(
        done.points, torch.ones(1, 2, dtype=torch.float64), atol=0.01, rtol=0
    )


@pytest.mark.parametrize("rate", [1e-4, 1e-2, 1.0, 100.0])
def test_the_rate_may_be_wrong_by_orders_of_magnitude(rate):
    A, target = bowls(worst=30)
    done = descend(Quadratic(A, target), torch.zeros_like(target), how=Descent(100, rate=rate))
    torch.testing.assert_close(done.points, target, rtol=0, atol=0.02)


def test_the_unit_of_the_loss_does_not_matter():
    A, target = bowls()
    one, many = (
        descend(Quadratic(unit * A, target), torch.zeros_like(target), how=Descent(steps=40))
        for unit in (1.0, 2.0**20)
    )
    torch.testing.assert_close(one.points, many.points, rtol=0, atol=1e-6)
    torch.testing.assert_close(2.0**20 * one.loss, many.loss)


def test_a_face_alone_fares_as_it_does_among_others():
    start = normal(7, 5, seed=3)
    whole = descend(crooked, start, how=Descent(steps=60))
    assert len(whole.spent.unique()) > 1, "some faces must leave before others do"
    for size in (1, 3):
        for rows in torch.arange(7).split(size):
            part = descend(
                lambda x, r, rows=rows: crooked(x, rows[r]), start[rows], how=Descent(60)
            )
            torch.testing.assert_close(part.points, whole.points[rows], rtol=0, atol=1e-6)
            torch.testing.assert_close(part.loss, whole.loss[rows], rtol=0, atol=1e-6)
            assert torch.equal(part.spent, whole.spent[rows])


def test_batches_one_after_another_are_as_one():
    start = normal(7, 5, seed=3)
    whole = descend(crooked, start, how=Descent(steps=60))
    parts = descend(crooked, start, how=Descent(steps=60), batch=3)
    torch.testing.assert_close(parts.points, whole.points, rtol=0, atol=1e-6)
    assert torch.equal(parts.spent, whole.spent) and torch.equal(parts.settled, whole.settled)
    torch.testing.assert_close(parts.path, whole.path, rtol=0, atol=1e-6)
    assert parts.curve == pytest.approx(whole.curve)


def test_faces_that_have_arrived_leave_the_batch():
    hard, target = bowls(6, worst=1e5)
    easy, _ = bowls(6, worst=2.0)
    A = torch.where(torch.arange(6)[:, None, None] < 4, easy, hard)
    loss = Quadratic(A, target, floor=1.0)
    done = descend(loss, torch.zeros_like(target), how=Descent(steps=100, patience=10))
    assert sum(loss.asked) == done.evaluations == int(done.spent.sum())
    assert int(done.spent[:4].max()) <= 20
    assert int(done.spent[4:].min()) > 40
    assert sorted(loss.asked, reverse=True) == loss.asked and loss.asked[-1] <= 2
    assert bool(done.settled[:4].all())


def test_an_exact_fit_ends_without_waiting_for_a_look():
    A, target = bowls(worst=1.0001)
    done = descend(Quadratic(A, target), torch.zeros_like(target), how=Descent(steps=1000))
    assert int(done.spent.max()) < 20 and bool(done.settled.all())
    assert done.share_settled == 1.0


def test_a_budget_that_ends_too_early_leaves_faces_unsettled():
    A, target = bowls(worst=1e4)
    done = descend(Quadratic(A, target), torch.zeros_like(target), how=Descent(steps=8))
    assert not bool(done.settled.any()) and done.share_settled == 0.0
    assert torch.equal(done.spent, torch.full((4,), 9)) and len(done.curve) == 9


def test_the_curve_is_the_mean_best_loss_and_never_rises():
    start = normal(6, 5, seed=4)
    done = descend(crooked, start, how=Descent(steps=50))
    assert done.curve[0] == pytest.approx(float(crooked(start, torch.arange(6)).mean()))
    assert done.curve[-1] == pytest.approx(float(done.loss.mean()))
    assert all(later <= earlier for earlier, later in zip(done.curve, done.curve[1:], strict=False))
    torch.testing.assert_close(crooked(done.points, torch.arange(6)), done.loss)


def test_no_step_gives_the_start_and_its_loss():
    start = normal(3, 5)
    done = descend(crooked, start, how=Descent(steps=0))
    assert torch.equal(done.points, start) and done.evaluations == 3
    torch.testing.assert_close(done.loss, crooked(start, torch.arange(3)))


def test_a_face_without_a_finite_loss_keeps_its_start_and_harms_nobody():
    A, target = bowls()
    sound = descend(Quadratic(A, target), torch.zeros_like(target), how=Descent(steps=30))

    def broken(x, rows):
        return Quadratic(A, target)(x, rows) * torch.where(rows == 1, math.nan, 1.0)

    done = descend(broken, torch.zeros_like(target), how=Descent(steps=30))
    assert math.isinf(float(done.loss[1])) and not bool(done.settled[1])
    assert bool((done.points[1] == 0).all()) and int(done.spent[1]) == 1
    others = torch.tensor([0, 2, 3])
    torch.testing.assert_close(done.points[others], sound.points[others], rtol=0, atol=1e-9)
    assert all(math.isfinite(point) for point in done.curve)


def test_steps_into_the_undefined_are_taken_back():
    def loss(x, rows):
        return (x - x.log() - 1).sum(1)  # NaN below zero, least at one

    start = torch.full((2, 3), 4.0, dtype=torch.float64)
    done = descend(loss, start, how=Descent(steps=80, rate=30.0))
    torch.testing.assert_close(done.points, torch.ones_like(start), rtol=0, atol=0.01)


def test_elements_whose_gradient_is_undefined_stand_still_and_the_others_move():
    def loss(x, rows):
        return (x[:, 0] - 1).square() + x[:, 1].square().sqrt()  # the root's slope at 0 is NaN

    done = descend(loss, torch.zeros(1, 2, dtype=torch.float64), how=Descent(steps=30))
    torch.testing.assert_close(done.points, torch.tensor([[1.0, 0.0]], dtype=torch.float64))


def test_a_step_too_far_is_tried_again_where_the_parabola_is_least():
    def loss(x, rows):
        return 0.5 * (x[:, 0] - 1).square()

    done = descend(loss, torch.zeros(1, 1, dtype=torch.float64), how=Descent(steps=2, rate=4.0))
    assert float(done.points) == pytest.approx(1.0) and done.curve[1] == done.curve[0]


def began(n=2, d=5):
    """Faces at their start with slopes of their own, and one remembered step."""
    slope = normal(n, d, seed=6)
    state = begun(
        torch.arange(n), torch.zeros(n, d, dtype=torch.float64), torch.ones(n).double(), slope,
        rate=0.1, memory=3,
    )  # fmt: skip
    tried = state.points + state.direction
    return moved(state, tried, 0.5 * state.loss, slope + 2 * state.direction, slot=0, rate=0.1)


def test_a_face_refused_again_and_again_forgets_and_goes_downhill_no_farther_than_it_dared():
    state = began()
    bold, worse = state.direction, 2 * state.loss
    for turn in range(PATIENT):
        assert bool((state.rho != 0).any()) and torch.equal(state.direction, bold)
        dared = state.length * bold.norm(dim=1)
        tried = state.points + state.length[:, None] * bold
        state = moved(state, tried, worse, state.slope, slot=1 + turn % 2, rate=100.0)
    assert bool((state.rho == 0).all())
    cosine = torch.nn.functional.cosine_similarity(state.direction, -state.slope)
    torch.testing.assert_close(cosine, torch.ones(2, dtype=torch.float64))
    assert bool((state.length * state.direction.norm(dim=1) < dared).all())


def test_a_step_that_was_turned_uphill_is_refused_however_little_it_costs():
    state = began()
    uphill = state.points + state.slope
    cost = 1e-5 * state.slope.square().sum(1)
    after = moved(state, uphill, state.loss + cost, state.slope, slot=1, rate=0.1)
    assert torch.equal(after.points, state.points) and torch.equal(after.loss, state.loss)
    assert bool((after.refused == 1).all())


def test_a_loss_that_does_not_look_at_its_points_is_settled_at_once():
    for constant in (torch.zeros(3), torch.ones(3)):
        done = descend(lambda x, rows, c=constant: c[rows], normal(3, 5), how=Descent())
        assert done.evaluations == 3 and bool(done.settled.all())
        assert torch.equal(done.points, normal(3, 5))


def test_points_stay_where_they_may_lie():
    target = torch.tensor([[0.2, 3.0, -1.0, 0.7]], dtype=torch.float64)
    weights = torch.tensor([1.0, 5.0, 2.0, 20.0], dtype=torch.float64)
    seen = []

    def loss(x, rows):
        seen.append(x.detach())
        return ((x - target) * weights).square().sum(1)

    start = torch.full((1, 4), 0.5, dtype=torch.float64)
    done = descend(
        loss, start, how=Descent(gain=1e-9), project=lambda points, rows: points.clamp(0, 1)
    )
    assert min(float(x.min()) for x in seen) >= 0 and max(float(x.max()) for x in seen) <= 1
    torch.testing.assert_close(done.points, target.clamp(0, 1), rtol=0, atol=1e-3)


def test_pictures_keep_their_shape_and_type_and_the_start_is_untouched():
    start = normal(2, 3, 4, 4).float()
    before = start.clone()
    done = descend(lambda x, rows: x.square().flatten(1).sum(1), start, how=Descent(steps=20))
    assert done.points.shape == start.shape and done.points.dtype == torch.float32
    assert torch.equal(start, before) and not done.points.requires_grad
    assert float(done.points.abs().max()) < 0.01


def test_settings_out_of_range_are_said():
    for wrong in ({"steps": -1}, {"rate": 0.0}, {"gain": -0.1}, {"patience": 0}, {"memory": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Descent(**wrong)
