import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from leakaudit.maths.isotonic import crossing, falling

numbers = st.floats(-10, 10, allow_nan=False).map(lambda x: round(x, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, st.floats(0.1, 9)), min_size=1, max_size=12))
def test_it_is_the_isotonic_regression_of_scipy(pairs):
    values, weights = zip(*pairs, strict=True)
    theirs = isotonic_regression(np.array(values), weights=np.array(weights), increasing=False).x
    assert falling(values, weights) == pytest.approx(theirs, abs=1e-9)


def test_a_falling_sequence_is_left_alone_and_a_rise_becomes_its_weighted_mean():
    assert falling((0.9, 0.5, 0.5, 0.1), (1, 1, 1, 1)) == (0.9, 0.5, 0.5, 0.1)
    assert falling((0.9, 0.2, 0.5), (1, 3, 1)) == pytest.approx((0.9, 0.275, 0.275))


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(ValueError, match="weight above 0"):
        falling((1.0, 2.0), (1.0, 0.0))


def test_the_level_is_crossed_between_the_points_around_it():
    assert crossing((0.0, 1.0, 2.0), (0.8, 0.4, 0.0), 0.1) == pytest.approx(1.75)
    assert crossing((0.0, 1.0), (0.8, 0.4), 0.4) == pytest.approx(1.0)


def test_a_curve_on_one_side_crosses_nowhere():
    assert crossing((0.0, 1.0), (0.8, 0.4), 0.1) is None
    assert crossing((0.0, 1.0), (0.05, 0.0), 0.1) is None
