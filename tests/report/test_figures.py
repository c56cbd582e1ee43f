import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from leakaudit.report import figures, marks
from report.sample import HOSTILE


def _point(label, x=0.02, y=0.5):
    return figures.Point(label, x, x - 0.01, x + 0.01, y, y - 0.1, y + 0.1)


def test_a_scale_maps_its_ends_and_keeps_what_lies_outside():
    scale = marks.Scale(0.0, 1.0, 10, 110)
    assert (scale(0.0), scale(0.5), scale(1.0)) == (10, 60, 110)
    assert (scale(-3.0), scale(7.0)) == (10, 110)


@given(
    st.floats(-1e3, 1e3),
    st.floats(1e-3, 1e3),
)
def test_ticks_are_few_even_and_inside(low, span):
    found = figures.ticks(low, low + span)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-6 <= tick <= low + span + 1e-6 for tick in found)
    steps = [b - a for a, b in pairwise(found)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-6, abs_tol=1e-9) for step in steps)


def test_a_range_of_nothing_has_one_tick():
    assert figures.ticks(0.3, 0.3) == (0.3,)


@pytest.mark.parametrize("name", HOSTILE)
def test_labels_in_pictures_are_escaped(name):
    panel = figures.Panel(name, (1, 2), 0.1, 0.0, 0.2)
    for svg in (
        figures.tradeoff([_point(name)], floor=0.1),
        figures.histograms([panel], edges=[0.0, 0.1, 0.2], label=name),
    ):
        assert isinstance(svg, Markup)
        assert "<script" not in svg
        assert "<img" not in svg
        assert "\x1b" not in svg


def test_labels_of_neighbours_do_not_stand_on_each_other():
    area = figures.Area(0, 480, 0, 300)
    texts = figures._labels(["one", "two", "three"], [(50.0, 150.0)] * 3, area)
    heights = {text.split('y="')[1].split('"')[0] for text in texts}
    assert len(heights) == 3


def test_the_floor_line_is_drawn_where_there_is_a_floor():
    assert "floor" in figures.tradeoff([_point("none")], floor=0.03)
    assert "floor" not in figures.tradeoff([_point("none")], floor=None)


def test_a_missing_value_draws_no_bar_and_a_short_curve_no_line():
    assert marks.interval_bar(None, None, None, 0.1) == ""
    assert marks.sparkline([1.0]) == ""
    assert "polyline" in marks.sparkline([3.0, None, 2.0, 1.0])


def test_series_and_statuses_differ_by_shape():
    shapes = [str(marks.marker(index, 9, 9)).replace(f"m{index}", "") for index in range(6)]
    assert len(set(shapes)) == 6
    icons = [str(marks.icon(name)) for name in ("pass", "fail", "inconclusive", "ungated")]
    assert len(set(icons)) == 4


def test_bars_stand_for_counts():
    svg = figures.histograms(
        [figures.Panel("a", (1, 4), None, None, None)], edges=[0.0, 0.1, 0.2], label="x"
    )
    heights = [float(part.split('height="')[1].split('"')[0]) for part in svg.split("<rect")[1:]]
    assert heights[1] == pytest.approx(4 * heights[0], abs=0.3)
