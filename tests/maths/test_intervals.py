import math
from statistics import NormalDist, mean

import pytest
import torch

from leakaudit.core.errors import RunError
from leakaudit.maths.intervals import (
    auc,
    aucs,
    bonferroni,
    bootstrap_counts,
    bootstrap_mean,
    bootstrap_statistic,
    paired_difference,
    paired_rate_difference,
    rate_interval,
    tango,
    wilson,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def binomial(k, n, p):
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Newcombe (Statistics in Medicine 1998), Table I, method 3, 95 %
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_intervals(hits, n, low, high):
    interval = wilson(hits, n)
    assert interval.value == pytest.approx(hits / n)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)
    assert interval.n == n


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_ends_of_wilson_are_where_the_score_test_just_rejects(confidence):
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    interval = wilson(7, 30, confidence)
    for end in (interval.low, interval.high):
        assert abs(7 / 30 - end) / math.sqrt(end * (1 - end) / 30) == pytest.approx(z)


def test_wilson_is_exact_at_the_ends_and_symmetric():
    none, every = wilson(0, 12), wilson(12, 12)
    assert (none.value, none.low) == (0.0, 0.0)
    assert (every.value, every.high) == (1.0, 1.0)
    assert every.low == pytest.approx(1 - none.high)
    assert 0.2 < none.high < 0.3


def test_wilson_knows_nothing_of_no_trials():
    interval = wilson(0, 0)
    assert (interval.value, interval.low, interval.high, interval.n) == (0.0, 0.0, 1.0, 0)


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (float("nan"), 5)])
def test_wilson_refuses_impossible_counts(hits, n):
    with pytest.raises(ValueError, match="hits"):
        wilson(hits, n)


def test_wilson_covers_about_as_often_as_it_says():
    n, covers = 40, []
    for p in [k / 50 for k in range(2, 49)]:
        held = [k for k in range(n + 1) if wilson(k, n).low <= p <= wilson(k, n).high]
        covers.append(sum(binomial(k, n, p) for k in held))
    assert 0.94 < mean(covers) < 0.965
    assert min(covers) > 0.90


def test_the_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    values = normal(400)
    interval = bootstrap_mean(values, torch.arange(400), generator(), draws=4000)
    half = 1.96 * float(values.std()) / 20
    assert interval.value == pytest.approx(float(values.mean()))
    assert interval.low == pytest.approx(interval.value - half, abs=0.1 * half)
    assert interval.high == pytest.approx(interval.value + half, abs=0.1 * half)
    assert interval.n == 400


def test_the_bootstrap_by_person_is_wider_when_pictures_of_a_person_agree():
    people = torch.arange(30).repeat_interleave(9)
    values = normal(30).repeat_interleave(9) + 0.01 * normal(270, seed=2)
    by_person = bootstrap_mean(values, people, generator())
    by_picture = bootstrap_mean(values, torch.arange(270), generator())
    ratio = (by_person.high - by_person.low) / (by_picture.high - by_picture.low)
    assert ratio == pytest.approx(3, rel=0.15)
    assert by_person.n == 30


def test_the_bootstrap_pools_the_pictures_of_the_people_drawn():
    # Two people, 3 pictures at 0 and 1 picture at 1: a draw is 0 (1/4), 1/4 (1/2) or 1 (1/4).
    values, people = torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.tensor([7, 7, 7, -2])
    middle = bootstrap_mean(values, people, generator(), confidence=0.4)
    assert (middle.value, middle.low, middle.high) == (0.25, 0.25, 0.25)
    wide = bootstrap_mean(values, people, generator(), confidence=0.6)
    longer = 1.3764 / 0.8416 * math.sqrt(2)  # Student's quantile over the normal one, 1 degree
    assert wide.low == pytest.approx(0.25 - 0.25 * longer, abs=1e-3)
    assert wide.high == pytest.approx(0.25 + 0.75 * longer, abs=1e-3)


def test_the_bootstrap_of_a_mean_covers_about_as_often_as_it_says():
    source, held = generator(5), 0
    people = torch.arange(30).repeat_interleave(3)
    for _ in range(300):
        effect = torch.randn(30, generator=source, dtype=torch.float64).repeat_interleave(3)
        values = effect + torch.randn(90, generator=source, dtype=torch.float64)
        interval = bootstrap_mean(values, people, source, draws=300)
        held += interval.low <= 0 <= interval.high
    assert 0.89 < held / 300 < 0.985


def test_the_bootstrap_is_the_same_for_the_same_generator_and_in_blocks(monkeypatch):
    values, people = normal(50), torch.arange(50) // 2
    first = bootstrap_mean(values, people, generator(3))
    assert first == bootstrap_mean(values, people, generator(3))
    assert first != bootstrap_mean(values, people, generator(4))
    monkeypatch.setattr("leakaudit.maths.intervals._PICKS_AT_ONCE", 1000)
    assert first == bootstrap_mean(values, people, generator(3))


def test_one_person_gives_the_range_of_the_data():
    interval = bootstrap_mean(torch.tensor([0.2, 0.9, 0.4]), torch.zeros(3).long(), generator())
    assert (interval.low, interval.high, interval.n) == pytest.approx((0.2, 0.9, 1))


def test_a_mean_of_nothing_or_of_infinity_is_an_error():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean(torch.empty(0), torch.empty(0).long(), generator())
    with pytest.raises(RunError, match="finite"):
        bootstrap_mean(torch.tensor([1.0, math.inf]), torch.arange(2), generator())
    with pytest.raises(ValueError, match="one person per picture"):
        bootstrap_mean(torch.ones(3), torch.arange(2), generator())


def test_the_rate_of_one_picture_per_person_is_wilson():
    hits = torch.tensor([True] * 3 + [False] * 17)
    assert rate_interval(hits, torch.arange(20), generator()) == wilson(3, 20)


@pytest.mark.parametrize("named", [False, True])
def test_a_unanimous_rate_rests_on_people_rather_than_pictures(named):
    hits, people = torch.full((40,), named), torch.arange(40) // 4
    interval = rate_interval(hits, people, generator())
    z2 = NormalDist().inv_cdf(0.975) ** 2
    mean = z2 / 2 / (10 + z2)  # ten people, z2 / 2 who were hit and z2 / 2 who weren't
    end = mean + math.sqrt(z2 * mean * (1 - mean) / (10 + z2))
    found = (interval.value, interval.low, interval.high)
    assert found == pytest.approx((1, 1 - end, 1) if named else (0, 0, end))
    assert end > wilson(0, 10).high > wilson(0, 40).high


def test_groups_that_are_never_hit_as_a_whole_are_told_by_what_they_did():
    """Six participants with twenty answers each: nobody more is thought of who is always right."""
    groups, hits = torch.arange(120) // 20, torch.arange(120) % 5 == 0
    hits[::20] = False
    loose, tight = (rate_interval(hits, groups, generator(), whole=w) for w in (True, False))
    independent = wilson(float(hits.sum()), 120)
    assert (tight.low, tight.high) == pytest.approx((independent.low, independent.high), abs=1e-9)
    assert loose.low <= tight.low < tight.high < loose.high
    assert rate_interval(hits & False, groups, generator(), whole=False) == wilson(0, 6)


def test_a_rate_is_never_of_zero_width():
    half = torch.tensor([True, False] * 10)
    equal = rate_interval(half, torch.arange(20) // 2, generator())
    alone = rate_interval(half, torch.zeros(20).long(), generator())
    for interval in (equal, alone):  # not surer than 20 coins would be
        assert interval.value == 0.5
        assert interval.low <= wilson(10, 20).low < wilson(10, 20).high <= interval.high
    nothing = rate_interval(torch.empty(0).bool(), torch.empty(0).long(), generator())
    assert (nothing.low, nothing.high) == (0.0, 1.0)


def test_a_rate_weighs_people_alike_however_many_pictures_they_have():
    hits = torch.tensor([True] * 6 + [False, False])
    people = torch.tensor([0] * 6 + [1, 2])
    assert rate_interval(hits, people, generator()).value == pytest.approx(1 / 3)


def test_a_rate_is_wider_by_person_when_pictures_of_a_person_agree():
    named = torch.arange(40) % 2 == 0
    hits, people = named.repeat_interleave(6), torch.arange(40).repeat_interleave(6)
    hits[0] = ~hits[0]
    by_person = rate_interval(hits, people, generator())
    naive = wilson(int(hits.sum()), 240)
    assert by_person.high - by_person.low > 2 * (naive.high - naive.low)


def test_a_rare_rate_is_never_surer_than_independent_pictures_would_be():
    hits, people = torch.zeros(80).bool(), torch.arange(80) // 2
    hits[5] = True
    interval = rate_interval(hits, people, generator())
    independent = wilson(1, 80)
    assert interval.value == pytest.approx(1 / 80)
    assert interval.low == 0
    assert interval.high > independent.high


@pytest.mark.parametrize(("people", "pictures"), [(5, 6), (20, 5), (3, 12), (60, 2)])
def test_more_hits_never_lower_the_end_that_a_gate_looks_at(people, pictures):
    """Hits come person by person, or one a person: the upper end never falls, nor the lower one."""
    whose = torch.arange(people * pictures) // pictures
    spread = torch.arange(people * pictures).view(people, pictures).T.flatten()
    for order in (torch.arange(people * pictures), spread):
        hits, before = torch.zeros(people * pictures).bool(), (0.0, 0.0)
        for face in [None, *order.tolist()]:
            if face is not None:
                hits[face] = True
            told = rate_interval(hits, whose, generator(), draws=4000)
            slack = 1 / people / pictures  # a bootstrap's own noise
            assert told.low >= before[0] - slack and told.high >= before[1] - slack
            before = (told.low, told.high)
        assert before[1] == 1


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.9), (0.02, 0.98), (2, 8)])
@pytest.mark.parametrize(("people", "pictures"), [(10, 6), (20, 5)])
def test_an_interval_of_people_with_several_pictures_covers_the_truth(a, b, people, pictures):
    """By 95 % or more: people differ a lot, or are hit in all their pictures or in none."""
    torch.manual_seed(0)
    whose, missed, trials = torch.arange(people * pictures) // pictures, 0, 300
    rates = torch.distributions.Beta(a, b).sample((trials, people))
    for rate in rates:
        hits = torch.rand(people, pictures) < rate[:, None]
        told = rate_interval(hits.flatten(), whose, generator(), draws=200)
        missed += not told.low <= a / (a + b) <= told.high
    assert missed <= 0.05 * trials


def test_a_paired_difference_cancels_what_both_share():
    face, people = 10 * normal(60), torch.arange(60) // 2
    interval = paired_difference(face + 0.3, face, people, generator())
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.3, 0.3, 0.3))
    assert paired_difference(face, face + 0.3, people, generator()).value == pytest.approx(-0.3)
    with pytest.raises(ValueError, match="pair up"):
        paired_difference(face, face[:1], people, generator())


def test_a_paired_difference_takes_hits_as_well():
    a, b = torch.tensor([True, True, False]), torch.tensor([False, True, False])
    assert paired_difference(a, b, torch.arange(3), generator()).value == pytest.approx(1 / 3)


def test_many_intervals_share_the_error_that_one_may_make():
    assert bonferroni(1) == bonferroni(0) == pytest.approx(0.95)
    assert bonferroni(10) == pytest.approx(0.995)
    assert bonferroni(4, 0.8) == pytest.approx(0.95)


def constrained(gained, lost, n, d):
    """The share of losses alone that makes the counts likeliest where the rates differ by ``d``."""
    low, high = max(0.0, -d), (1 - d) / 2
    for _ in range(200):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        likely = [
            gained * math.log(q + d + 1e-300)
            + lost * math.log(q + 1e-300)
            + (n - gained - lost) * math.log(1 - 2 * q - d + 1e-300)
            for q in (a, b)
        ]
        low, high = (a, high) if likely[0] < likely[1] else (low, b)
    return (low + high) / 2


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("counts", [(9, 3, 32), (1, 0, 40), (5, 5, 20), (0, 7, 50)])
def test_the_ends_of_tango_are_where_the_paired_score_test_just_rejects(confidence, counts):
    gained, lost, n = counts
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    interval = tango(gained, lost, n, confidence)
    assert interval.value == pytest.approx((gained - lost) / n)
    for end, sign in ((interval.low, 1), (interval.high, -1)):
        spread = math.sqrt(n * (2 * constrained(gained, lost, n, end) + end * (1 - end)))
        assert (gained - lost - n * end) / spread == pytest.approx(sign * z, abs=2e-3)


def test_tango_has_a_width_where_nothing_differs_and_ends_where_all_does():
    equal, all_gained = tango(0, 0, 40), tango(40, 0, 40)
    reach = 1.959964**2 / (40 + 1.959964**2)
    assert (equal.low, equal.value, equal.high) == pytest.approx((-reach, 0, reach), abs=1e-6)
    assert (all_gained.value, all_gained.high) == (1, 1)
    assert 0.8 < all_gained.low < 0.85
    assert tango(0, 40, 40).low == -1
    assert tango(3, 9, 32).low == pytest.approx(-tango(9, 3, 32).high)
    nothing = tango(0, 0, 0)
    assert (nothing.low, nothing.value, nothing.high) == (-1, 0, 1)
    for wrong in ((-1, 0, 5), (3, 3, 5), (float("nan"), 0, 5)):
        with pytest.raises(ValueError, match="discordant"):
            tango(*wrong)


def test_tango_covers_about_as_often_as_it_says():
    n, covers = 20, []
    intervals = {(b, c): tango(b, c, n) for b in range(n + 1) for c in range(n + 1 - b)}
    for pb, pc in [(x, y) for x in (0, 0.02, 0.1, 0.3, 0.45) for y in (0.01, 0.05, 0.2, 0.4)]:
        held = [k for k, i in intervals.items() if i.low <= pb - pc <= i.high]
        covers.append(
            sum(
                math.comb(n, b) * math.comb(n - b, c) * pb**b * pc**c * (1 - pb - pc) ** (n - b - c)
                for b, c in held
            )
        )
    assert 0.945 < mean(covers) < 0.985
    assert min(covers) > 0.92


def test_a_difference_of_rates_with_one_picture_a_person_is_tangos():
    a, b = torch.zeros(32).bool(), torch.zeros(32).bool()
    a[:15], b[6:15], b[20:23] = True, True, True  # 6 of the first alone, 3 of the second alone
    interval = paired_rate_difference(a, b, torch.arange(32), generator())
    assert interval == tango(6, 3, 32)
    wide = paired_rate_difference(a, b, torch.arange(32), generator(), confidence=0.99)
    assert wide.low < interval.low < interval.high < wide.high


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("pictures", [1, 3])
def test_a_difference_of_equal_rates_is_never_of_zero_width(named, pictures):
    hits, people = torch.full((30,), named), torch.arange(30) // pictures
    interval = paired_rate_difference(hits, hits, people, generator())
    end = tango(0, 0, 30).high
    if pictures > 1:  # ten people, half of one who gained and half of one who lost
        end = NormalDist().inv_cdf(0.975) / 11
    assert (interval.low, interval.high) == pytest.approx((-end, end))


def test_a_difference_of_rates_is_that_of_the_two_rates_by_person():
    a = torch.tensor([True] * 6 + [False, True])
    b = torch.tensor([False] * 3 + [True] * 3 + [False, False])
    people = torch.tensor([0] * 6 + [1, 2])
    both = [rate_interval(x, people, generator()).value for x in (a, b)]
    difference = paired_rate_difference(a, b, people, generator())
    assert difference.value == pytest.approx(both[0] - both[1]) == pytest.approx(0.5)
    assert -1 <= difference.low < 0.5 < difference.high <= 1
    assert difference.n == 3


def test_a_difference_by_person_is_wider_when_pictures_of_a_person_agree():
    lift = (torch.arange(40) % 3 == 0).repeat_interleave(6)
    lift[0] = ~lift[0]
    by_person = paired_rate_difference(
        lift, torch.zeros(240).bool(), torch.arange(40).repeat_interleave(6), generator()
    )
    naive = tango(int(lift.sum()), 0, 240)
    assert by_person.high - by_person.low > 2 * (naive.high - naive.low)


def test_a_rare_difference_is_never_surer_than_independent_pictures_would_be():
    a, b = torch.zeros(80).bool(), torch.zeros(80).bool()
    a[5] = True
    interval = paired_rate_difference(a, b, torch.arange(80) // 2, generator())
    independent = tango(1, 0, 80)
    assert interval.low < independent.low < 0 < independent.high <= interval.high
    with pytest.raises(ValueError, match="pair up"):
        paired_rate_difference(a, b[:1], torch.arange(80), generator())


def test_the_difference_of_nothing_is_unknown():
    empty = torch.empty(0).bool()
    interval = paired_rate_difference(empty, empty, torch.empty(0).long(), generator())
    assert (interval.low, interval.value, interval.high, interval.n) == (-1, 0, 1, 0)


def test_the_general_bootstrap_agrees_with_the_one_of_the_mean():
    values, people = normal(120), torch.randint(40, (120,), generator=generator(9))
    general = bootstrap_statistic(
        lambda i: float(values[i].mean()), people, generator(), draws=4000
    )
    special = bootstrap_mean(values, people, generator(1), draws=4000)
    assert general.value == pytest.approx(special.value)
    assert general.low == pytest.approx(special.low, abs=0.03)
    assert general.high == pytest.approx(special.high, abs=0.03)
    assert general.n == special.n


def test_the_general_bootstrap_draws_whole_people():
    people = torch.tensor([4, 9, 4, 9, 9, 1])
    seen = []
    bootstrap_statistic(lambda i: float(seen.append(i) or 0), people, generator(), draws=50)
    assert seen[0].tolist() == list(range(6))
    for indices in seen[1:]:
        counts = torch.bincount(indices, minlength=6)
        assert len(set(counts[[0, 2]].tolist())) == len(set(counts[[1, 3, 4]].tolist())) == 1
        assert int(counts[0] + counts[1] + counts[5]) == 3
    assert len({tuple(indices.tolist()) for indices in seen}) > 5


def test_the_general_bootstrap_leaves_undefined_draws_out():
    scores, labels, people = normal(12), torch.arange(12) < 2, torch.arange(12) // 2
    interval = bootstrap_statistic(lambda i: auc(scores[i], labels[i]), people, generator())
    assert 0 <= interval.low <= interval.high <= 1
    with pytest.raises(ValueError, match="undefined"):
        bootstrap_statistic(lambda i: None, people, generator())
    once = iter([1.0])
    with pytest.raises(RunError, match="every"):
        bootstrap_statistic(lambda i: next(once, None), people, generator())


def test_the_general_bootstrap_of_one_person_draws_pictures():
    values = normal(30)
    interval = bootstrap_statistic(
        lambda i: float(values[i].mean()), torch.zeros(30).long(), generator()
    )
    assert interval.low < interval.value < interval.high
    assert interval.n == 1


def test_auc_agrees_with_counting_all_pairs_with_ties():
    for seed in range(20):
        scores = torch.randint(5, (25,), generator=generator(seed)).double()
        labels = torch.randint(2, (25,), generator=generator(100 + seed)).bool()
        above = scores[labels][:, None] - scores[~labels][None]
        expected = float(((above > 0) + 0.5 * (above == 0)).mean())
        assert auc(scores, labels) == pytest.approx(expected)


def test_auc_knows_order_chance_and_empty_classes():
    labels = torch.tensor([False, False, True, True])
    assert auc(torch.tensor([1.0, 2.0, 3.0, math.inf]), labels) == 1
    assert auc(torch.tensor([4.0, 3.0, 2.0, 1.0]), labels) == 0
    assert auc(torch.zeros(4), labels) == 0.5
    assert auc(torch.rand(4), torch.ones(4).bool()) is None
    assert auc(torch.rand(4), torch.zeros(4).bool()) is None
    with pytest.raises(RunError, match="not a number"):
        auc(torch.tensor([1.0, math.nan, 0.0, 1.0]), labels)


def test_the_areas_of_many_samples_are_those_of_each():
    scores, labels = normal(12).round(decimals=1), torch.arange(12) % 3 == 0
    samples = torch.randint(12, (40, 12), generator=generator())
    samples[0], samples[1] = torch.arange(12), torch.arange(12) % 3 + 1  # the latter has no miss
    counts = torch.stack([torch.bincount(index, minlength=12) for index in samples]).double()
    found = aucs(scores, labels, counts).tolist()
    for area, index in zip(found, samples, strict=True):
        expected = auc(scores[index], labels[index])
        assert area == expected if expected is not None else math.isnan(area)
    assert auc(scores[samples[2]], labels[samples[2]]) is not None


@pytest.mark.parametrize("people", [torch.arange(30) // 2, torch.arange(30), torch.zeros(30)])
def test_the_bootstrap_of_all_draws_at_once_is_the_general_one(people):
    scores, labels = normal(30).round(decimals=1), torch.arange(30) < 3
    one = bootstrap_statistic(lambda i: auc(scores[i], labels[i]), people, generator())
    assert bootstrap_counts(lambda n: aucs(scores, labels, n), people, generator()) == one
    assert one.low < one.high


def test_it_says_where_the_statistic_is_undefined():
    people = torch.arange(6)
    with pytest.raises(ValueError, match="undefined"):
        bootstrap_counts(lambda n: torch.full((len(n),), math.nan), people, generator())

    def only_once(counts):
        return torch.where((counts == 1).all(1), 1.0, math.nan)

    with pytest.raises(RunError, match="every"):
        bootstrap_counts(only_once, torch.arange(40), generator(), draws=5)


def test_the_reach_of_an_auc_is_hanley_and_mcneils() -> None:
    """Away from 1 it is the textbook's standard error; it never is 0 to both sides."""
    from leakaudit.maths.intervals import auc_drop_reach, auc_reach

    labels = torch.arange(4000) % 2 == 0
    scores = labels + 1.2 * torch.randn(4000, generator=generator())
    area = auc(scores, labels)
    assert area is not None
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = (area * (1 - area) + 1999 * (q1 + q2 - 2 * area**2)) / 2000**2
    below, above = auc_reach(scores, labels, torch.arange(4000))
    assert below == above == pytest.approx(1.96 * math.sqrt(spread), rel=1e-3)
    assert auc_reach(-scores, labels, torch.arange(4000))[0] == pytest.approx(below, rel=1e-6)
    apart = auc_reach(labels.float(), labels, torch.arange(4000))
    assert apart[1] == 0 and 0 < apart[0] < 0.001
    # The same errors on both sides cancel, errors of one's own add up.
    same = auc_drop_reach(scores, scores + 1, labels, torch.arange(4000))
    assert same == pytest.approx((0.0, 0.0), abs=1e-6)
    other = labels + 1.2 * torch.randn(4000, generator=generator().manual_seed(8))
    apart = auc_drop_reach(scores, other, labels, torch.arange(4000))
    assert apart[0] == pytest.approx(math.sqrt(2) * below, rel=0.1)
    assert all(map(math.isnan, auc_reach(scores, labels & False, torch.arange(4000))))
    assert all(map(math.isnan, auc_drop_reach(scores, other, labels | True, torch.arange(4000))))


def test_a_mean_over_few_people_is_covered_too():
    """Of five people a bare bootstrap misses a fifth of the true means."""
    draw = generator()
    found = [
        bootstrap_mean(torch.randn(5, generator=draw), torch.arange(5), draw, draws=400)
        for _ in range(200)
    ]
    assert sum(not one.low <= 0 <= one.high for one in found) <= 20  # 10 are meant
