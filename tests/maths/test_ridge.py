"""Ridge regression against its normal equations, and its leave-one-out errors by brute force."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from toys import normal

from leakaudit.maths import ridge
from leakaudit.maths.ridge import PENALTIES, Ridge

DOUBLE = torch.float64


def world(count: int, width: int, *, noise: float = 0.3, targets: int = 4) -> tuple[Tensor, Tensor]:
    """Inputs of very different scales and offsets, and noisy linear targets of them."""
    x = normal(count, width, seed=1, dtype=DOUBLE)
    y = x @ normal(width, targets, seed=2, dtype=DOUBLE) / math.sqrt(width) + 3
    y = y + noise * normal(count, targets, seed=3, dtype=DOUBLE)
    scales = torch.logspace(-2, 2, width, dtype=DOUBLE)
    return x * scales + scales.flip(0), y


def by_normal_equations(
    x: Tensor, y: Tensor, new: Tensor, *, penalty: float, like: Tensor
) -> Tensor:
    """Predictions at ``new`` of the primal solution with an intercept, standardised as ``like``.

    ``like`` are the inputs that fix the standardisation and the unit of the penalty.
    """
    mean, deviation = like.mean(0), like.std(0)
    width = x.shape[1]
    unit = float(((like - mean) / deviation).square().sum(1).mean()) / width
    z = torch.cat([(x - mean) / deviation, torch.ones_like(x[:, :1])], 1)
    penalise = torch.eye(width + 1, dtype=x.dtype) * penalty * unit * width
    penalise[-1, -1] = 0
    weights = torch.linalg.solve(z.T @ z + penalise, z.T @ y)
    return torch.cat([(new - mean) / deviation, torch.ones_like(new[:, :1])], 1) @ weights


@pytest.mark.parametrize(("count", "width"), [(40, 7), (12, 60)])
def test_predictions_are_those_of_the_normal_equations(count: int, width: int) -> None:
    x, y = world(count, width)
    fitted = Ridge.fit(x, y)
    new = x.flip(0) + 0.3 * x.std(0)
    expected = by_normal_equations(x, y, new, penalty=fitted.penalty, like=x)
    torch.testing.assert_close(fitted(new), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("count", "width"), [(30, 6), (14, 50)])
def test_left_out_errors_are_those_of_fits_without_the_sample(count: int, width: int) -> None:
    x, y = world(count, width)
    fitted = Ridge.fit(x, y)
    gaps = []
    for k in range(count):
        rest = [j for j in range(count) if j != k]
        guess = by_normal_equations(x[rest], y[rest], x[k : k + 1], penalty=fitted.penalty, like=x)
        gaps.append((guess - y[k]).square().mean())
    expected = torch.stack(gaps)
    torch.testing.assert_close(fitted.left_out, expected, rtol=1e-5, atol=1e-8)
    means = torch.stack([(y[k] - y[torch.arange(count) != k].mean(0)) for k in range(count)])
    relative = float(expected.mean() / means.square().mean())
    assert fitted.error == pytest.approx(relative, rel=1e-5)


def test_the_penalty_is_the_one_with_the_least_leave_one_out_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = world(14, 50, noise=1.0)
    chosen = Ridge.fit(x, y)
    errors = {}
    for share in PENALTIES[::2]:
        monkeypatch.setattr(ridge, "PENALTIES", (share,))
        alone = Ridge.fit(x, y)
        errors[share] = alone.error if not math.isinf(alone.penalty) else math.inf
    assert chosen.penalty == min(errors, key=errors.__getitem__)
    assert PENALTIES[0] < chosen.penalty < PENALTIES[-1]


def test_more_inputs_than_samples_are_no_obstacle() -> None:
    # A picture of few degrees of freedom seen through many elements: 12 samples suffice for 5.
    codes, view = normal(12, 5, seed=4, dtype=DOUBLE), normal(5, 200, seed=5, dtype=DOUBLE)
    back = normal(5, 30, seed=6, dtype=DOUBLE)
    fitted = Ridge.fit(codes @ view, codes @ back)
    new = normal(9, 5, seed=7, dtype=DOUBLE)
    torch.testing.assert_close(fitted(new @ view), new @ back, rtol=0, atol=0.1)
    assert fitted.error < 1e-3


def test_inputs_without_information_give_the_mean_target() -> None:
    y = normal(40, 6, seed=8, dtype=DOUBLE) + 2
    fitted = Ridge.fit(normal(40, 500, seed=9, dtype=DOUBLE), y)
    assert fitted.error > 0.95
    away = (fitted(normal(50, 500, seed=10, dtype=DOUBLE)) - y.mean(0)).square().mean()
    assert float(away) < 0.1


@pytest.mark.parametrize("inputs", [torch.ones(20, 5), torch.zeros(20, 5)])
def test_constant_inputs_predict_the_mean_target_and_say_so(inputs: Tensor) -> None:
    y = normal(20, 3, seed=11)
    fitted = Ridge.fit(inputs, y)
    assert fitted.error == 1.0 and math.isinf(fitted.penalty)
    assert torch.equal(fitted(normal(4, 5, seed=12)), y.mean(0).expand(4, 3))
    apart = y - y.mean(0)
    torch.testing.assert_close(fitted.left_out, (apart * 20 / 19).square().mean(1))


def test_constant_targets_are_predicted_exactly() -> None:
    fitted = Ridge.fit(normal(20, 5, seed=13), torch.full((20, 3), 0.25))
    assert torch.equal(fitted(normal(4, 5, seed=14)), torch.full((4, 3), 0.25))
    assert float(fitted.left_out.abs().max()) == 0.0


def test_a_quiet_element_that_tells_everything_is_heard() -> None:
    secret = normal(60, 1, seed=15)
    loud = 100 * normal(60, 30, seed=16)
    fitted = Ridge.fit(torch.cat([loud, 0.5 + 1e-4 * secret], 1), secret)
    assert fitted.error < 1e-3
    # The same numbers at the same scale as the others tell as much: the scale is ignored.
    same = Ridge.fit(torch.cat([loud, 100 * secret], 1), secret)
    assert fitted.error == pytest.approx(same.error, abs=1e-4)


def test_rounding_is_not_blown_up() -> None:
    x, y = normal(60, 4, seed=17), normal(60, 1, seed=18)
    last_bit = 1.0 + 1e-7 * torch.sign(normal(60, 200, seed=19))
    fitted = Ridge.fit(torch.cat([x, last_bit], 1), x[:, :1] + 0.1 * y)
    moved = fitted(torch.cat([x, last_bit.flip(0)], 1)) - fitted(torch.cat([x, last_bit], 1))
    assert float(moved.abs().max()) < 0.02


def test_an_element_that_was_almost_dead_cannot_run_away() -> None:
    x, y = normal(40, 6, seed=19), normal(40, 2, seed=20)
    y = x[:, :2] + 0.1 * y
    x[:, 5] = 0
    x[0, 5] = 1e-3
    fitted = Ridge.fit(x, y)
    new = normal(5, 6, seed=21)
    new[:, 5] = 0
    loud = new.clone()
    loud[:, 5] = 50.0
    assert float((fitted(loud) - fitted(new)).abs().max()) < 0.5


def test_features_of_any_shape_and_any_batch_give_the_same_rows() -> None:
    x, y = normal(30, 3, 4, 4, seed=22), normal(30, 5, seed=23)
    fitted = Ridge.fit(x, y)
    flat = Ridge.fit(x.flatten(1), y)
    new = normal(7, 3, 4, 4, seed=24)
    assert torch.equal(fitted(new), flat(new.flatten(1)))
    torch.testing.assert_close(torch.cat([fitted(row[None]) for row in new]), fitted(new))


def test_many_targets_are_judged_by_probes_that_tell_the_same_error() -> None:
    x, y = world(30, 20, targets=400)
    fitted = Ridge.fit(x, y)
    apart = (y - y.mean(0)).square().mean() * (30 / 29) ** 2
    assert fitted.error == pytest.approx(float(fitted.left_out.mean() / apart), rel=0.1)


# Fitted as if offsets were added


def test_offsets_of_target_zero_are_what_adding_every_offset_to_every_sample_gives() -> None:
    x, y = normal(12, 5, seed=30, dtype=DOUBLE), normal(12, 3, seed=31, dtype=DOUBLE)
    moves = normal(8, 5, seed=32, dtype=DOUBLE)
    moves = moves - moves.mean(0)
    judges = normal(6, 5, seed=33, dtype=DOUBLE), normal(6, 3, seed=34, dtype=DOUBLE)
    fitted = Ridge.fit_shifted(x, x @ y[:5] + 0.2 * y, offsets=moves, judges=judges)
    spread = (x.var(0) + moves.square().mean(0)).sqrt()
    z = torch.cat([(x + move - x.mean(0)) / spread for move in moves])
    targets = (x @ y[:5] + 0.2 * y).repeat(8, 1)
    centred = targets - targets.mean(0)
    unit = float(((x - x.mean(0)) / spread).square().sum(1).mean())
    penalise = torch.eye(5, dtype=DOUBLE) * fitted.penalty * unit * 8
    weights = torch.linalg.solve(z.T @ z + penalise, z.T @ centred)
    expected = (judges[0] - x.mean(0)) / spread @ weights + targets.mean(0)
    torch.testing.assert_close(fitted(judges[0]), expected, rtol=1e-6, atol=1e-6)
    gaps = (expected - judges[1]).square().mean(1)
    torch.testing.assert_close(fitted.left_out, gaps, rtol=1e-5, atol=1e-8)


def test_a_map_that_expects_offsets_leaves_their_direction_alone() -> None:
    # The secret stands in two elements; the first one is moved at random, the second isn't.
    secret = normal(80, 1, seed=35)
    x = torch.cat([secret, secret + 0.3 * normal(80, 1, seed=36)], 1)
    moves = torch.cat([5 * normal(20, 1, seed=37), torch.zeros(20, 1)], 1)
    moves = moves - moves.mean(0)
    seen = x[:20] + moves
    judges = seen, secret[:20]
    aware = Ridge.fit_shifted(x[20:], secret[20:], offsets=moves, judges=judges)
    naive = Ridge.fit(x[20:], secret[20:])
    naively = float((naive(seen) - secret[:20]).square().mean())
    assert aware.error < 0.2 and float(aware.left_out.mean()) < 0.1 * naively


def test_judges_that_nothing_predicts_get_the_mean_target() -> None:
    x, y = normal(40, 6, seed=38), normal(40, 2, seed=39)
    judges = 100 * normal(400, 6, seed=40), y.mean(0).expand(400, 2)
    fitted = Ridge.fit_shifted(x, y, offsets=torch.zeros(2, 6), judges=judges)
    assert math.isinf(fitted.penalty)
    assert torch.equal(fitted(x), y.mean(0).expand(40, 2))
