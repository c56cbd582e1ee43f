from dataclasses import replace

import pytest

from leakaudit.report import view, words
from report.sample import sample_result


def test_groups_part_attacks_worst_cases_controls_and_ceiling():
    groups = {group.id: group.attacks for group in view.attack_groups(sample_result())}
    assert groups["attacks"] == ("blackbox-decoder", "whitebox-latent")
    assert groups["worst"] == ("worst-static", "worst", "chosen")
    assert groups["floor"][0] == "control-prior"
    assert groups["ceiling"] == ("original",)


def test_a_headline_reads_the_worst_case_and_else_the_strongest_attack():
    result = sample_result()
    row = view.headline(result, "crafter:beta=2")
    assert row.worst is not None
    assert row.worst.attack == "worst"
    assert row.auc is not None
    bare = replace(result, scores=tuple(s for s in result.scores if s.attack not in view.WORST))
    strongest = view.headline(bare, "crafter:beta=2").worst
    assert strongest is not None
    assert strongest.attack == "blackbox-decoder"


def test_a_tail_is_never_a_control_or_an_original():
    tails = view.tails(sample_result())
    assert [score.defence for score in tails] == ["none", "gaussian:sigma=0.5", "crafter:beta=2"]
    assert all(score.attack == "blackbox-decoder" for score in tails)


def test_failed_gates_and_serious_doubts_come_first():
    assert [gate.status for gate in view.gates(sample_result("fail"))] == ["fail", "pass"]
    assert view.doubts(sample_result("inconclusive"))[0].severity == "serious"


def test_the_steps_follow_the_verdict_and_then_each_doubt_once():
    result = sample_result("ungated")
    steps = view.next_steps(replace(result, doubts=result.doubts * 2))
    assert "--fail-on" in (steps[0].command or "")
    assert [step.text for step in steps[1:]] == [result.doubts[0].what_to_do]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0.000"), (-0.0, "0.000"), (0.947, "0.947"), (0.00312, "0.00312"),
     (2.5e-7, "2.50e-07"), (3e7, "3.00e+07"), (-0.0117, "-0.012")],
)  # fmt: skip
def test_numbers_keep_what_matters(value, shown):
    assert words.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.42, "0.4 s"), (35.2, "35 s"), (203.0, "3 min 23 s"), (None, "–")]
)
def test_durations_are_told_for_readers(value, shown):
    assert words.seconds(value) == shown


def test_cleaning_shows_control_characters_and_drops_reversed_reading():
    assert words.clean("a\x1b\x00\u202eb\udcffc\nd\x7f") == "a␛␀\ufffdb\ufffdc d\ufffd"


def test_shares_are_told_in_per_cent_and_psnr_in_decibel():
    assert words.measure(0.5, "identification", "fraction") == "50.0%"
    assert words.measure(11.23, "psnr", "dB") == "11.2 dB"
    assert words.measure(0.5, "ssim", "index") == "0.500"
