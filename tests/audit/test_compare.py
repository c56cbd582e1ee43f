from types import SimpleNamespace

import pytest
import torch

from leakaudit.audit.compare import comparisons, false_security, wins
from leakaudit.core.rng import Rng
from leakaudit.core.types import Score, Win
from leakaudit.maths.intervals import paired_rate_difference, tango

N = 40
PEOPLE = torch.arange(N)
THREATS = {
    "blackbox-decoder": "BlackBox",
    "whitebox-latent": "WhiteBox",
    "adaptive-decoder": "AdaptiveBlackBox",
    "linkage-classifier": "Informed",
    "control-prior": "Control",
    "original": "-",
}


def faces(*named):
    """Hits (N,) at these faces: numbers, or ranges of them."""
    hits = torch.zeros(N)
    for place in named:
        hits[list(place) if isinstance(place, range) else place] = 1
    return tuple(hits.tolist())


def row(defence, attack, hits, *, floor=None):
    value = sum(hits) / N
    threat = THREATS.get(attack, attack)
    return Score(
        defence, attack, threat, "identification", value, value, value, N, "share", "up",
        floor=floor, per_face=hits,
    )  # fmt: skip


def compared(*rows, defences=("none", "d"), people=PEOPLE):
    plan = SimpleNamespace(defences=[SimpleNamespace(label=label) for label in defences])
    subject = SimpleNamespace(faces=SimpleNamespace(people=people))
    found = comparisons(rows, subject, plan, Rng(0))
    return {(c.kind, c.defence, c.other, c.metric): c for c in found}


STATIC, STUDIED = faces(range(4)), faces(range(2, 24))
FALSE = (
    row("none", "blackbox-decoder", faces(range(36))),
    row("none", "worst-static", faces(range(36)), floor=0.1),
    row("none", "worst", faces(range(36)), floor=0.1),
    row("d", "blackbox-decoder", STATIC),
    row("d", "adaptive-decoder", STUDIED),
    row("d", "worst-static", STATIC, floor=0.1),
    row("d", "worst-adaptive", STUDIED, floor=0.1),
    row("d", "worst", faces(range(24)), floor=0.2),
)


def test_wins_count_faces_named_by_one_attack_alone():
    rows = [
        row("d", "original", faces(range(N))),
        row("d", "control-prior", faces(30)),
        row("d", "linkage-classifier", faces(range(N))),
        row("d", "worst", faces(range(9))),
        row("d", "blackbox-decoder", faces(range(4))),
        row("d", "whitebox-latent", faces(3, 4)),
        row("d", "adaptive-decoder", faces(4, 7, 8)),
    ]
    believed = {"d": ("adaptive-decoder",) * 30 + ("blackbox-decoder",) * 10}
    assert wins(rows, believed) == (
        Win("d", "blackbox-decoder", 4, 3, 10),
        Win("d", "whitebox-latent", 2, 0, 0),
        Win("d", "adaptive-decoder", 3, 2, 30),
    )
    assert {win.chosen for win in wins(rows)} == {None}
    assert wins([]) == ()


def test_what_one_attack_alone_names_is_what_the_worst_case_would_lose_without_it():
    one, two = faces(range(10)), faces(range(5, 12))
    found = {w.attack: w for w in wins([row("d", "blackbox-decoder", one),
                                        row("d", "whitebox-latent", two)])}  # fmt: skip
    union = (torch.tensor(one) + torch.tensor(two) > 0).sum()
    for name, other in (("blackbox-decoder", two), ("whitebox-latent", one)):
        assert found[name].only == union - torch.tensor(other).sum()


def test_false_security_is_what_the_adaptive_attacks_name_more_on_the_same_faces():
    found = compared(*FALSE)
    gap = found["false-security", "d", "worst-static", "identification"]
    assert gap.attack == "worst-adaptive"
    expected = tango(20, 2, N)
    assert (gap.difference, gap.low, gap.high) == (expected.value, expected.low, expected.high)
    assert gap.difference == pytest.approx(18 / 40)
    assert (gap.n, gap.note) == (N, None)
    assert ("false-security", "none", "worst-static", "identification") not in found


def test_with_equal_floors_the_excess_gap_is_the_gap_over_what_chance_leaves():
    found = compared(*FALSE)
    gap = found["false-security", "d", "worst-static", "identification"]
    above = found["false-security", "d", "worst-static", "identification_excess"]
    for end in ("difference", "low", "high"):
        assert getattr(above, end) == pytest.approx(getattr(gap, end) / 0.9)


@pytest.mark.parametrize(("mine", "other"), [(0.05, 0.4), (0.4, 0.05)])
def test_with_other_floors_the_excess_gap_is_that_of_the_excesses(mine, other):
    rows = (
        row("d", "blackbox-decoder", STATIC),
        row("d", "adaptive-decoder", STUDIED),
        row("d", "worst-static", STATIC, floor=other),
        row("d", "worst-adaptive", STUDIED, floor=mine),
    )
    found = compared(*rows)
    above = found["false-security", "d", "worst-static", "identification_excess"]
    expected = (22 / 40 - mine) / (1 - mine) - (4 / 40 - other) / (1 - other)
    assert above.difference == pytest.approx(expected)
    plain = found["false-security", "d", "worst-static", "identification"]
    assert above.high - above.low > (plain.high - plain.low) / (1 - mine)
    assert above.low < above.difference < above.high


def test_more_guesses_on_one_side_are_said():
    more = row("d", "whitebox-latent", STATIC)
    gap = compared(*FALSE, more)["false-security", "d", "worst-static", "identification"]
    assert gap.note == "1 guesses a face against 2: identification_excess allows for that"


def test_false_security_is_told_for_the_defences_asked_for():
    assert {c.defence for c in false_security(FALSE, PEOPLE, Rng(0), ["none", "d"])} == {"d"}
    assert false_security(FALSE, PEOPLE, Rng(0), ["none"]) == ()
    assert false_security(FALSE[:5], PEOPLE, Rng(0), ["d"]) == ()


def test_every_pair_of_defences_is_compared_and_the_intervals_allow_for_it():
    counts = {"a": 36, "b": 20, "c": 6}
    rows = [
        row(label, attack, faces(range(k)), floor=0.1)
        for label, k in counts.items()
        for attack in ("blackbox-decoder", "worst")
    ]
    found = compared(*rows, defences=("a", "b", "c"))
    pairs = {key[1:3]: c for key, c in found.items() if key[0] == "defence"}
    assert set(pairs) == {("b", "a"), ("c", "a"), ("c", "b")}
    gap = pairs["c", "b"]
    expected = tango(0, 14, N, 1 - 0.05 / 3)
    assert (gap.difference, gap.low, gap.high) == (expected.value, expected.low, expected.high)
    assert gap.note == "one of 3 comparisons: interval at 98.33% (Bonferroni)"
    assert gap.attack == "worst"
    assert {key[3] for key in found} == {"identification"}, "equal floors need no excess"


def test_defences_with_other_numbers_of_guesses_are_compared_above_their_floors_too():
    above = compared(*FALSE)["defence", "d", "none", "identification_excess"]
    assert above.difference == pytest.approx((24 / 40 - 0.2) / 0.8 - (36 / 40 - 0.1) / 0.9)
    assert "2 guesses a face against 1" in above.note


def test_the_choice_is_held_against_the_best_attack_and_allows_for_hindsight():
    rows = (
        row("d", "blackbox-decoder", faces(range(10))),
        row("d", "whitebox-latent", faces(range(25))),
        row("d", "adaptive-decoder", faces(range(20))),
        row("d", "linkage-classifier", faces(range(40))),
        row("d", "chosen", faces(range(22))),
    )
    gap = compared(*rows)["chosen", "d", "whitebox-latent", "identification"]
    expected = tango(0, 3, N, 1 - 0.05 / 3)
    assert (gap.difference, gap.low, gap.high) == (expected.value, expected.low, expected.high)
    assert gap.note.startswith("'whitebox-latent' is the best of 3 in hindsight; one of 3")
    assert "chosen" not in {key[0] for key in compared(*rows[:-1])}


@pytest.mark.parametrize("hits", [faces(), faces(range(N))])
def test_comparisons_of_rows_that_agree_are_defined_and_have_a_width(hits):
    rows = [
        row(d, attack, hits, floor=0.05)
        for d in ("none", "d")
        for attack in ("blackbox-decoder", "adaptive-decoder", "worst-static", "worst-adaptive",
                       "worst", "chosen")
    ]  # fmt: skip
    found = compared(*rows)
    assert {key[0] for key in found} == {"false-security", "defence", "chosen"}
    for gap in found.values():
        assert gap.difference == 0
        assert gap.low < 0 < gap.high
        assert gap.high - gap.low > 0.1


def test_people_with_several_pictures_count_once():
    people = PEOPLE // 2
    gap = compared(*FALSE, people=people)["false-security", "d", "worst-static", "identification"]
    stream = Rng(0).derive("compare", "d", "worst-adaptive", "d", "worst-static").torch()
    same = paired_rate_difference(
        torch.tensor(STUDIED) > 0, torch.tensor(STATIC) > 0, people, stream
    )
    assert (gap.difference, gap.low, gap.high, gap.n) == (same.value, same.low, same.high, 20)


def test_the_order_of_attacks_changes_no_comparison():
    assert compared(*FALSE[::-1]) == compared(*FALSE)
