import math
import random

import pytest

from leakaudit.maths.threshold_search import Found, Search, find

HOW = Search(start=10.0, least=0.1, most=1000.0, evaluations=12, precision=1.1)


def falls_at(place, seen):
    """A figure that is down to its limit at ``place``, linear in the logarithm of the setting."""

    def measure(value):
        seen.append(value)
        figure = 0.2 * math.log(place / value)
        return ((figure, figure - 0.05, figure + 0.05),)

    return measure


@pytest.mark.parametrize("place", [0.3, 2.0, 9.5, 10.0, 11.0, 60.0, 700.0])
def test_the_least_setting_is_found_within_the_precision(place):
    seen = []
    found = find(falls_at(place, seen), HOW)
    assert found.chosen is not None
    assert place * 0.995 <= found.chosen <= place * 1.12
    assert len(seen) == len(set(seen)) <= 12


def test_a_straight_line_in_the_logarithm_takes_few_measurements():
    seen = []
    find(falls_at(25.0, seen), Search(start=10.0, least=0.1, most=1000.0, precision=1.3))
    assert len(seen) <= 5


def test_where_no_setting_keeps_the_limit_there_is_none():
    found = find(falls_at(5000.0, []), HOW)
    assert found.chosen is None
    assert max(found.figures) == HOW.most


def test_where_every_setting_keeps_it_the_least_allowed_one_is_taken():
    assert find(falls_at(0.01, []), HOW).chosen == HOW.least


def test_for_a_rising_figure_the_greatest_setting_is_found():
    def drop(value):
        figure = 0.01 * math.log(value / 30.0)
        return ((figure, figure - 0.001, figure + 0.001),)

    how = Search(start=10.0, least=0.1, most=1000.0, evaluations=12, precision=1.1, upwards=False)
    chosen = find(drop, how).chosen
    assert chosen is not None
    assert 30 / 1.12 <= chosen <= 30.15


def test_of_several_figures_all_must_keep_their_limits():
    def two(value):
        figures = (math.log(4 / value), math.log(50 / value))
        return tuple((f, f - 0.1, f + 0.1) for f in figures)

    chosen = find(two, HOW).chosen
    assert chosen is not None
    assert 50 <= chosen <= 56


def test_evaluations_are_never_exceeded_and_the_first_ones_are_always_made():
    seen = []
    how = Search(start=10.0, least=0.1, most=1000.0, evaluations=4, precision=1.001)
    find(falls_at(123.0, seen), how, first=(1.0, 2.0, 4.0))
    assert seen[:3] == [1.0, 2.0, 4.0]
    assert len(seen) == 4


def test_one_lucky_measurement_among_leaking_ones_is_not_believed():
    """At 3 the noise hides the leak; its neighbours, measured well, say that it can't be so."""
    figures = {1.0: (0.3, 0.01), 3.0: (-0.02, 0.5), 9.0: (0.25, 0.01), 27.0: (-0.2, 0.01)}

    def measure(value):
        nearest = min(figures, key=lambda known: abs(math.log(known / value)))
        middle, half = figures[nearest]
        return ((middle, middle - half, middle + half),)

    how = Search(start=1.0, least=1.0, most=27.0, evaluations=4)
    assert find(measure, how, first=tuple(figures)).chosen == 27.0


@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("most", [27.0, 100.0])
def test_the_luckiest_of_several_looks_is_no_choice(upwards, most):
    """All leave too much; the strictest one that is asked for looks good by chance."""
    lucky = 27.0 if upwards else 1.0

    def measure(value):
        middle = -0.02 if value == lucky else 0.05
        return ((middle, middle - 0.08, middle + 0.08),)

    first = (1.0, 3.0, 9.0, 27.0)
    how = Search(
        start=1.0, least=1.0 if upwards else 27 / most, most=most if upwards else 27.0,
        evaluations=4, upwards=upwards,
    )  # fmt: skip
    found = find(measure, how, first=first)
    assert found.chosen is None
    stricter = [value for value in found.figures if (value > lucky if upwards else value < lucky)]
    assert len(found.figures) == 5
    assert (most == 27.0) is (not stricter)

    def sure(value):
        return tuple((middle, middle - 0.01, middle + 0.01) for middle, _, _ in measure(value))

    assert find(sure, how, first=first).chosen == lucky  # its own interval leaves nothing open


def test_where_a_stricter_setting_disagrees_the_search_goes_on():
    """Lucky at 4, unlucky at 5.2, good from there on: a search that can go further finds it."""
    luck = {4.0: -0.02, 5.2: 0.03}

    def measure(value):
        middle = luck.get(value, 0.5 / (1 + value) - 0.1)
        return ((middle, middle - 0.05, middle + 0.05),)

    how = Search(start=4.0, least=1.0, most=256.0, evaluations=7)
    found = find(measure, how)
    assert {4.0, 5.2} <= found.figures.keys()
    assert found.chosen is not None and found.chosen > 4.0


def test_at_the_end_of_the_search_nothing_is_measured_below_what_fails():
    def measure(value):
        middle = -0.02 if value >= 256 else 0.05
        return ((middle, middle - 0.08, middle + 0.08),)

    how = Search(start=64.0, least=16.0, most=256.0, evaluations=9)
    found = find(measure, how)
    assert found.chosen is None
    assert sorted(found.figures)[-2] > 225


def test_where_one_setting_was_measured_there_were_no_looks_to_choose_from():
    how = Search(start=10.0, least=10.0, most=20.0, evaluations=1)
    assert find(falls_at(5.0, []), how).chosen == 10.0


def test_nothing_outside_of_the_ends_is_measured():
    seen = []
    how = Search(start=0.12345, least=0.12345, most=0.98765, evaluations=8)
    assert find(falls_at(0.01, seen), how).chosen == 0.12345
    find(falls_at(100.0, seen), how)
    assert min(seen) == 0.12345
    assert max(seen) == 0.98765


def test_noise_moves_the_answer_little():
    random.seed(3)

    def noisy(value):
        figure = 0.2 * math.log(20 / value) + random.gauss(0, 0.02)
        return ((figure, figure - 0.04, figure + 0.04),)

    answers = [find(noisy, HOW).chosen for _ in range(20)]
    assert all(answer is not None and 12 <= answer <= 34 for answer in answers)


def test_the_fit_falls_along_the_settings():
    figures = {1.0: 0.3, 2.0: 0.35, 4.0: 0.1}
    found: Found = find(
        lambda v: ((figures[v], figures[v] - 0.1, figures[v] + 0.1),),
        Search(start=1.0, least=1.0, most=4.0, evaluations=3),
        first=(1.0, 2.0, 4.0),
    )
    assert [found.fitted[v][0] for v in (1.0, 2.0, 4.0)] == pytest.approx([0.325, 0.325, 0.1])


def test_many_settings_asked_for_leave_a_step_to_the_next_that_is_a_number():
    seen = []
    how = Search(start=10.0, least=0.1, most=1000.0, evaluations=20, precision=1.1)
    first = tuple(round(1.3**k, 3) for k in range(15))
    assert find(falls_at(400.0, seen), how, first=first).chosen == pytest.approx(400, rel=0.12)
    assert find(falls_at(0.01, seen), how, first=first).chosen == 0.1
