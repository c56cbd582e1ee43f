"""What was shrunk along known directions is stretched again, and nothing else is."""

from __future__ import annotations

import torch
from toys import normal

from leakaudit.maths.spread import Spread


def rows(count: int, seed: int) -> torch.Tensor:
    """Rows (count, 6) whose directions are the axes, with deviations 6 down to 1, around 3."""
    return normal(count, 6, seed=seed) * torch.arange(6.0, 0.0, -1.0) + 3


def test_predictions_that_were_shrunk_get_the_spread_of_true_rows() -> None:
    shrink = torch.tensor([0.9, 0.7, 0.5, 0.5, 0.4, 0.4])
    made = (rows(600, 1) - 3) * shrink + 2
    back = Spread.fit(made, rows(600, 2))(made)
    torch.testing.assert_close(back.std(0), torch.arange(6.0, 0.0, -1.0), rtol=0.12, atol=0)
    torch.testing.assert_close(back.mean(0), torch.full((6,), 3.0), rtol=0, atol=0.6)


def test_predictions_with_the_right_spread_stay_where_they_are() -> None:
    true = rows(500, 3)
    torch.testing.assert_close(Spread.fit(true, true)(true), true, rtol=0, atol=1e-3)


def test_hardly_anything_is_not_blown_up_without_end() -> None:
    made = 1e-3 * (rows(500, 4) - 3)
    back = Spread.fit(made, rows(500, 5), most=4.0)
    assert float((back(made) - back.base).abs().max()) <= 4.5 * float(made.abs().max())


def test_a_direction_that_varies_too_much_is_left_alone() -> None:
    made = (rows(500, 6) - 3) * 2
    assert float(Spread.fit(made, rows(500, 7)).gain.max()) == 1.0


def test_more_elements_than_rows_are_no_obstacle() -> None:
    true, made = normal(12, 300, seed=8), 0.5 * normal(12, 300, seed=9)
    fitted = Spread.fit(made, true)
    assert fitted.directions.shape == (300, 11)
    assert bool(fitted(made).isfinite().all())
