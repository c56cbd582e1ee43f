from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.toy_subject import toy_plan, toy_subject
from leakaudit.audit.floors import DRAWS
from leakaudit.audit.worst import complete, groups, members
from leakaudit.core.rng import Rng
from leakaudit.core.types import Score

ATTACKS = ("blackbox-decoder", "whitebox-latent")
STUDIED = "adaptive-decoder"
N = 6


class Prior:
    """Gives as many numbered pictures as are asked for."""

    def sample(self, count, rng):
        return torch.arange(count).float()


def subject_of(*, rates=None, people=None):
    """Names person k in a share ``rates[k]`` of the prior's pictures, with nobody else near."""
    count = 8
    owner = torch.full((DRAWS,), count - 1)
    start = 0
    for person, rate in enumerate(rates or []):
        owner[start : start + round(rate * DRAWS)] = person
        start += round(rate * DRAWS)
    scores = torch.nn.functional.one_hot(owner, count).float()
    scores -= torch.arange(count) * 1e-3
    return SimpleNamespace(
        prior=None if rates is None else Prior(),
        oracle=SimpleNamespace(scores=lambda images: scores[images.long()]),
        judges=(),
        faces=SimpleNamespace(people=torch.arange(N) if people is None else people),
    )


def row(attack, faces, metric="identification", *, defence="none", grows="up", threat="BlackBox"):
    value = None if faces is None else sum(faces) / len(faces)
    known = None if faces is None or metric == "epsilon_pii" else tuple(map(float, faces))
    return Score(
        defence, attack, threat, metric, value, value, value, N, "unit", grows, per_face=known
    )


def studied(faces, metric="identification", *, attack=STUDIED, defence="gaussian"):
    return row(attack, faces, metric, defence=defence, threat="AdaptiveBlackBox")


def completed(tmp_path, rows, *, choices=None, subject=None, defences=()):
    plan = toy_plan(tmp_path, *defences)
    found = complete(rows, choices or {}, subject or subject_of(), plan, Rng(0))
    return {(s.defence, s.attack, s.metric): s for s in found}


def identification(a, b, **other):
    return [row(ATTACKS[0], a, **other), row(ATTACKS[1], b, **other)]


def test_a_face_counts_as_named_if_any_attack_names_it(tmp_path):
    table = completed(tmp_path, identification([1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0]))
    for attack in ("worst", "worst-static"):
        worst = table["none", attack, "identification"]
        assert worst.per_face == (1, 1, 1, 0, 0, 0)
        assert worst.value == 0.5
        assert worst.low < 0.5 < worst.high
        assert worst.threat == attack
    assert ("none", "worst-adaptive", "identification") not in table


BITS = st.lists(st.integers(0, 1), min_size=N, max_size=N)


@settings(max_examples=25, deadline=None)
@given(BITS, BITS)
def test_the_worst_case_is_at_least_every_attack_and_at_most_their_sum(tmp_path_factory, a, b):
    choice = {"none": tuple(ATTACKS[k % 2] for k in range(N))}
    table = completed(tmp_path_factory.mktemp("t"), identification(a, b), choices=choice)
    worst = table["none", "worst", "identification"].value
    assert max(sum(a), sum(b)) / N <= worst + 1e-9
    assert worst <= (sum(a) + sum(b)) / N + 1e-9
    assert worst >= table["none", "chosen", "identification"].value - 1e-9


def test_the_bad_end_is_taken_face_by_face_in_the_direction_of_the_leak(tmp_path):
    rows = [
        *identification([0] * N, [0] * N),
        row(ATTACKS[0], [0.1, 0.9, 0.5, 0.5, 0.5, 0.5], "ssim"),
        row(ATTACKS[1], [0.9, 0.1, 0.5, 0.5, 0.5, 0.4], "ssim"),
        row(ATTACKS[0], [0.1, 0.9, 0.5, 0.5, 0.5, 0.5], "lpips", grows="down"),
        row(ATTACKS[1], [0.9, 0.1, 0.5, 0.5, 0.5, 0.4], "lpips", grows="down"),
    ]
    table = completed(tmp_path, rows)
    assert table["none", "worst", "ssim"].per_face == (0.9, 0.9, 0.5, 0.5, 0.5, 0.5)
    assert table["none", "worst", "lpips"].per_face == (0.1, 0.1, 0.5, 0.5, 0.5, 0.4)


def test_a_metric_of_the_crowd_takes_its_worst_attack(tmp_path):
    rows = [row(ATTACKS[0], [0.2] * N, "epsilon_pii"), row(ATTACKS[1], [0.3] * N, "epsilon_pii")]
    table = completed(tmp_path, rows)
    assert table["none", "worst", "epsilon_pii"].value == pytest.approx(0.3)
    assert ("none", "chosen", "epsilon_pii") not in table


def test_an_unmeasured_metric_stays_unmeasured(tmp_path):
    table = completed(tmp_path, [row(a, None, "lpips", grows="down") for a in ATTACKS])
    assert table["none", "worst", "lpips"].value is None


def test_attacks_are_counted_where_they_were_run_and_by_what_they_hold():
    rows = [
        row("original", [1] * N, threat="-"),
        row("control-prior", [1] * N, threat="Control"),
        row("worst", [1] * N, threat="worst"),
        *identification([1] * N, [0] * N),
        row(ATTACKS[0], [1] * N, defence="gaussian"),
        row("linkage-classifier", [1] * N, defence="gaussian", threat="Informed"),
        studied([0] * N),
        row("a-strangers", [0] * N, defence="gaussian", threat="HisOwnThreat"),
    ]
    assert members(rows, "none") == dict.fromkeys(ATTACKS, False)
    assert members(rows, "gaussian") == {ATTACKS[0]: False, STUDIED: True, "a-strangers": False}
    assert groups(rows, "none") == {"worst-static": ATTACKS, "worst": ATTACKS}
    assert groups(rows, "gaussian") == {
        "worst-static": (ATTACKS[0], "a-strangers"),
        "worst-adaptive": (STUDIED,),
        "worst": (ATTACKS[0], "a-strangers", STUDIED),
    }


def test_the_three_worst_cases_are_those_of_their_attacks(tmp_path):
    rows = [
        *identification([0] * N, [0] * N),
        *identification([1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], defence="gaussian"),
        studied([0, 0, 1, 1, 0, 0]),
        row("linkage-gallery", [1] * N, defence="gaussian", threat="Informed"),
    ]
    table = completed(tmp_path, rows, defences=["gaussian"])
    named = {
        row: table["gaussian", row, "identification"].per_face
        for row in ("worst-static", "worst-adaptive", "worst")
    }
    assert named["worst-static"] == (1, 1, 0, 0, 0, 0)
    assert named["worst-adaptive"] == (0, 0, 1, 1, 0, 0)
    assert named["worst"] == (1, 1, 1, 1, 0, 0)
    assert ("none", "worst-adaptive", "identification") not in table


def test_the_floor_counts_the_guesses_on_each_defence(tmp_path):
    rates = [0.25, 0.125, 0, 0, 0, 0]
    rows = [
        *identification([0] * N, [0] * N),
        *identification([0] * N, [0] * N, defence="gaussian"),
        studied([0] * N),
        studied(None, attack="adaptive-unmeasured"),
    ]
    subject = subject_of(rates=rates)
    table = completed(tmp_path, rows, subject=subject, defences=["gaussian"])

    def blind(guesses):
        return pytest.approx(sum(1 - (1 - p) ** guesses for p in rates) / N)

    assert table["none", "worst", "identification"].floor == blind(2)
    assert table["gaussian", "worst-static", "identification"].floor == blind(2)
    assert table["gaussian", "worst-adaptive", "identification"].floor == blind(1)
    assert table["gaussian", "worst", "identification"].floor == blind(3)


def test_attacks_without_a_picture_are_passed_over_where_pictures_are_measured(tmp_path):
    unseen = replace(row("linkage", None, "ssim"), note="no picture")
    rows = [
        *identification([0] * N, [0] * N),
        row("linkage", [1] * N),
        unseen,
        row(ATTACKS[0], [0.2] * N, "ssim"),
        row(ATTACKS[1], [0.3] * N, "ssim"),
        replace(unseen, metric="epsilon_pii"),
        row(ATTACKS[1], [0.1] * N, "epsilon_pii"),
    ]
    table = completed(tmp_path, rows)
    assert table["none", "worst", "identification"].value == 1
    assert table["none", "worst", "ssim"].per_face == (0.3,) * N
    assert table["none", "worst", "ssim"].note is None
    assert table["none", "worst", "epsilon_pii"].value == pytest.approx(0.1)
    alone = completed(tmp_path, [row("linkage", [1] * N), unseen])
    assert alone["none", "worst", "ssim"].value is None
    assert alone["none", "worst", "ssim"].note == "no picture"


CHOICE = (ATTACKS[0],) * 3 + (ATTACKS[1],) * 3


def test_the_chosen_guess_is_that_of_the_attack_which_is_believed(tmp_path):
    rows = identification([1, 0, 1, 0, 0, 0], [1, 1, 1, 1, 0, 1])
    table = completed(tmp_path, rows, choices={"none": CHOICE})
    assert table["none", "chosen", "identification"].per_face == (1, 0, 1, 1, 0, 1)
    assert table["none", "chosen", "identification"].value == pytest.approx(4 / 6)


def test_nothing_is_chosen_where_nobody_chose(tmp_path):
    rows = [*identification([1] * N, [0] * N), *identification([1] * N, [0] * N, defence="crafter")]
    table = completed(tmp_path, rows, choices={"crafter": CHOICE}, defences=["crafter"])
    assert {key[0] for key in table if key[1] == "chosen"} == {"crafter"}


def test_a_choice_without_a_picture_is_measured_over_the_others_and_says_so(tmp_path):
    rows = [
        *identification([1] * N, [0] * N),
        row(ATTACKS[0], [0.5, 0.7, 0.9, 0, 0, 0], "ssim"),
        row(ATTACKS[1], None, "ssim"),
    ]
    table = completed(tmp_path, rows, choices={"none": CHOICE})
    assert table["none", "chosen", "identification"].n == N
    likeness = table["none", "chosen", "ssim"]
    assert likeness.value == pytest.approx(0.7)
    assert (likeness.n, likeness.per_face) == (3, None)
    assert "3 of 6 faces" in likeness.note
    blind = completed(tmp_path, rows, choices={"none": (ATTACKS[1],) * N})
    assert ("none", "chosen", "ssim") not in blind


def test_an_adaptive_attacks_distance_is_told_against_the_worst_undefended_one(tmp_path):
    def told(attack, value, defence="none", threat="BlackBox"):
        made = row(attack, [value] * N, "epsilon_pii", defence=defence, threat=threat)
        return replace(made, low=value - 0.01, high=value + 0.01)

    rows = [
        told("control-prior", 0.2, threat="Control"),
        told(ATTACKS[0], 0.6),
        told(ATTACKS[1], 0.4),
        told(ATTACKS[1], 0.3, "gaussian"),
        told(STUDIED, 0.4, "gaussian", "AdaptiveBlackBox"),
    ]
    table = completed(tmp_path, rows, defences=["gaussian"])
    assert table["gaussian", STUDIED, "epsilon_rel"].value == pytest.approx(0.5)
    assert table["gaussian", ATTACKS[1], "epsilon_rel"].value == pytest.approx(0.5)
    assert table["gaussian", "worst-adaptive", "epsilon_rel"].value == pytest.approx(0.5)


def test_each_defence_has_worst_cases_of_its_own(tmp_path):
    rows = identification([1] * N, [0] * N) + identification(
        [0] * N, [1, 0, 0, 0, 0, 0], defence="gaussian"
    )
    table = completed(tmp_path, rows, defences=["gaussian"])
    assert table["none", "worst", "identification"].value == 1
    assert table["gaussian", "worst", "identification"].value == pytest.approx(1 / 6)


def test_the_floor_is_that_of_as_many_blind_guesses(tmp_path):
    rates = [0.25, 0.125, 0, 0, 0, 0]
    table = completed(
        tmp_path, identification([1] * N, [0] * N), subject=subject_of(rates=rates),
        choices={"none": CHOICE},
    )  # fmt: skip
    once = sum(rates) / N
    twice = sum(1 - (1 - p) ** 2 for p in rates) / N
    assert table["none", ATTACKS[0], "identification"].floor == pytest.approx(once)
    assert table["none", "chosen", "identification"].floor == pytest.approx(once)
    assert table["none", "worst", "identification"].floor == pytest.approx(twice)


def test_the_excess_is_what_rises_above_the_floor(tmp_path):
    rates = [0.3, 0, 0, 0, 0, 0]
    table = completed(
        tmp_path, identification([1, 1, 1, 0, 0, 0], [0] * N), subject=subject_of(rates=rates)
    )
    worst = table["none", "worst", "identification"]
    excess = table["none", "worst", "identification_excess"]
    assert worst.excess == pytest.approx((0.5 - worst.floor) / (1 - worst.floor))
    for end in ("value", "low", "high"):
        raw = getattr(worst, end)
        assert getattr(excess, end) == pytest.approx((raw - worst.floor) / (1 - worst.floor))
    assert excess.floor == 0


@pytest.mark.parametrize("hits", [0, 1])
@pytest.mark.parametrize("rates", [[0.0] * N, [1 / N] * N])
def test_everything_is_defined_where_nobody_or_everybody_is_named(tmp_path, hits, rates):
    subject = subject_of(rates=rates)
    rows = identification([hits] * N, [hits] * N)
    table = completed(tmp_path, rows, subject=subject, choices={"none": CHOICE})
    for attack in ("worst", "worst-static", "chosen"):
        rate = table["none", attack, "identification"]
        excess = table["none", attack, "identification_excess"]
        assert rate.value == hits
        assert 0 <= rate.low <= rate.value <= rate.high <= 1
        assert rate.low < rate.high
        assert excess.value == (1 if hits else pytest.approx(-rate.floor / (1 - rate.floor)))


def test_a_floor_of_one_leaves_no_excess(tmp_path):
    subject = subject_of(rates=[1.0], people=torch.zeros(N, dtype=torch.int64))
    table = completed(tmp_path, identification([1] * N, [1] * N), subject=subject)
    assert table["none", "worst", "identification"].floor == 1
    assert table["none", "worst", "identification"].excess is None
    assert table["none", "worst", "identification_excess"].value is None


def test_without_a_prior_there_is_no_floor_and_that_is_said(tmp_path):
    table = completed(tmp_path, identification([1] * N, [0] * N))
    assert table["none", "worst", "identification"].floor is None
    assert "no floor" in table["none", "worst", "identification_excess"].note


def test_originals_are_the_ceiling_of_all_and_have_none_themselves(tmp_path):
    rows = [row("original", [1, 1, 1, 1, 1, 0]), *identification([1] * N, [0] * N)]
    table = completed(tmp_path, rows, subject=subject_of(rates=[0.1] * N))
    assert table["none", "worst", "identification"].ceiling == pytest.approx(5 / 6)
    original = table["none", "original", "identification"]
    assert (original.floor, original.ceiling, original.excess) == (None, None, None)
    assert ("none", "original", "identification_excess") not in table


def test_the_floor_of_other_metrics_is_the_priors_control(tmp_path):
    rows = [
        row("control-prior", [0.2] * N, "ssim"),
        row(ATTACKS[0], [0.5] * N, "ssim"),
        row(ATTACKS[1], [0.4] * N, "ssim"),
    ]
    table = completed(tmp_path, rows)
    assert table["none", "worst", "ssim"].floor == pytest.approx(0.2)
    assert table["none", "worst", "ssim"].excess is None


def test_the_floor_agrees_with_guessing_blindly_again_and_again(tmp_path):
    subject = toy_subject(attacked=12, gallery=14)
    rows = identification([0] * 12, [0] * 12)
    found = complete(rows, {}, subject, toy_plan(tmp_path), Rng(0))
    floor = next(s.floor for s in found if (s.attack, s.metric) == ("worst", "identification"))
    images = subject.prior.sample(2 * 2000, Rng(9))
    named = subject.oracle.name_faces(images).view(2, 2000, 1)
    hits = (named == subject.faces.people).any(0).float().mean()
    assert floor == pytest.approx(float(hits), abs=0.02)
