import shlex
from dataclasses import replace

import pytest

from leakaudit.audit.tune import Target
from leakaudit.audit.tuned import chosen_here, untried
from leakaudit.core.types import Adversary, Comparison
from leakaudit.defences import DEFENCES
from leakaudit.report import contrasts, groups, steps, view, words
from leakaudit.report.dpia import render_dpia
from leakaudit.report.html import render_html
from leakaudit.report.markdown import render_markdown
from leakaudit.report.steps import next_steps
from report.sample import MANY, adaptive_result, sample_result, tuned_result


def test_groups_part_attacks_by_what_they_know_from_worst_cases_controls_and_ceiling():
    found = groups.attack_groups(adaptive_result())
    assert [g.id for g in found] == ["worst", "static", "adaptive", "informed", "floor", "ceiling"]
    of = {group.id: group.attacks for group in found}
    assert of["worst"] == ("worst-static", "worst-adaptive", "worst", "chosen")
    assert of["static"][:3] == ("blackbox-decoder", "blackbox-ridge", "linkage")
    assert "adaptive-averaging" in of["adaptive"]
    assert of["informed"] == ("linkage-classifier", "linkage-gallery")
    assert of["floor"][0] == "control-prior"
    assert of["ceiling"] == ("original",)


def test_empty_groups_are_left_out():
    assert [g.id for g in groups.attack_groups(sample_result())] == [
        "worst", "static", "floor", "ceiling"
    ]  # fmt: skip


def test_attacks_that_make_no_picture_are_told_apart():
    named = groups.without_pictures(adaptive_result())
    assert named == (
        "linkage", "adaptive-linkage", "adaptive-averaging-linkage", "linkage-classifier",
        "linkage-gallery",
    )  # fmt: skip
    assert groups.without_pictures(sample_result()) == ()


def test_an_unmeasured_metric_gives_the_reason_that_most_rows_give():
    (metric, why), *_ = view.unmeasured(adaptive_result())
    assert (metric, why.split(" ")[1]) == ("lpips", "weights")


def test_every_attack_of_the_suite_has_words():
    assert set(MANY) <= words.ATTACKS.keys()


def test_false_security_is_told_with_both_kinds_of_attack():
    lax, grave = contrasts.false_security(adaptive_result())
    assert (lax.defence, grave.defence) == ("gaussian:sigma=0.5", "crafter:beta=2")
    assert grave.static is not None
    assert grave.adaptive is not None
    assert (grave.static.attack, grave.adaptive.attack) == ("worst-static", "worst-adaptive")
    assert grave.excess is not None
    assert grave.excess.metric == "identification_excess"
    assert contrasts.false_security(sample_result()) == ()


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.02, 0.3, "False security:"),
        (-0.02, 0.3, "No false security seen"),
        (0.0, 0.3, "No false security seen"),
        (-0.3, -0.02, "name fewer"),
        (None, None, "could not be measured"),
    ],
)
def test_the_meaning_of_a_gap_follows_its_interval(low, high, said):
    gap = Comparison("false-security", "d", "worst-static", "worst-adaptive", "identification",
                     0.1, low, high, 40)  # fmt: skip
    row = contrasts.FalseSecurity("d", None, None, gap, excess=None)
    assert said in contrasts.meaning(row)


@pytest.mark.parametrize(
    ("faces", "above_floors", "said"),
    [
        ((0.02, 0.3), (0.01, 0.2), "False security:"),
        ((0.02, 0.3), (-0.01, 0.2), "Perhaps false security: attacks that studied the defence name "
         "more"),
        ((0.02, 0.3), (-0.2, -0.01), "can't be told from their further guesses"),
        ((-0.02, 0.3), (0.01, 0.3), "had fewer guesses"),
        ((-0.3, -0.02), (0.01, 0.3), "had fewer guesses"),
        ((-0.3, -0.02), (-0.3, 0.01), "had fewer guesses"),
        ((-0.3, -0.02), (-0.3, -0.01), "name fewer: see"),
        ((-0.02, 0.3), (-0.1, 0.2), "No false security seen"),
        ((-0.02, 0.3), (-0.3, -0.1), "No false security seen"),
        ((0.02, 0.3), (None, None), "False security:"),
    ],
)  # fmt: skip
def test_false_security_is_told_where_faces_and_their_excess_agree(faces, above_floors, said):
    gap, excess = (
        Comparison("false-security", "d", "worst-static", "worst-adaptive", metric, 0.1, *ends, 40)
        for metric, ends in (("identification", faces), ("identification_excess", above_floors))
    )
    assert said in contrasts.meaning(contrasts.FalseSecurity("d", None, None, gap, excess))


def test_differences_are_told_in_points_or_in_the_metrics_own_unit():
    gap = Comparison("defence", "d", "none", "worst", "identification", -0.456, -0.5, 0.02, 40)
    assert (contrasts.difference(gap), contrasts.span(gap)) == ("-45.6", "-50.0 to +2.0")
    assert contrasts.told(gap) == "d minus none, both worst"
    other = replace(gap, metric="ssim", kind="chosen", attack="chosen", other="linkage")
    assert (contrasts.difference(other), contrasts.span(other)) == ("-0.456", "-0.500 to 0.020")
    assert contrasts.told(other) == "chosen minus linkage, behind d"
    blank = replace(gap, difference=None, low=None)
    assert (contrasts.difference(blank), contrasts.span(blank)) == (words.ABSENT, "")


def test_winners_stand_beside_each_other_by_defence():
    result = adaptive_result()
    rows = {row.attack: row.wins for row in contrasts.winners(result, view.defences(result))}
    assert [win.named if win else None for win in rows["adaptive-averaging"]] == [None, 62, None]
    assert "linkage-classifier" not in rows
    for winner in contrasts.deciding(result, view.defences(result)):
        assert any(win is not None and (win.only or win.chosen) for win in winner.wins)
    most = contrasts.foremost(result, "crafter:beta=2")
    assert [win.attack for win in most][:2] == ["adaptive-linkage", "adaptive-ridge"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.281, "+28.1"), (-0.5, "-50.0"), (0.0, "0.0"), (-0.0001, "0.0"), (None, "–")],
)
def test_points_carry_their_sign(value, shown):
    assert words.points(value) == shown


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
    steps = next_steps(replace(result, doubts=result.doubts * 2))
    assert "--fail-on" in (steps[0].command or "")
    assert [step.text for step in steps[1:]] == [result.doubts[0].what_to_do]


def judged(status, **changes):
    """A result whose first gate, of this status and with these changes, decides."""
    base = sample_result("pass")
    gate = replace(base.gates[0], status=status, **changes)
    return replace(
        base, gates=(gate, *base.gates[1:]), verdict=replace(base.verdict, status=status)
    )


def test_a_pass_is_kept_by_its_own_gates():
    result = sample_result("pass")
    command = next_steps(result)[0].command
    for gate in result.gates:
        assert f"--fail-on '{gate.expr}'" in command
    assert "identification>0.1" not in command
    by_policy = replace(result, gates=tuple(replace(g, file="p.toml") for g in result.gates))
    assert "--policy FILE -o" in next_steps(by_policy)[0].command
    both = replace(result, gates=(by_policy.gates[0], *result.gates[1:]))
    assert f"--policy FILE --fail-on '{result.gates[1].expr}'" in next_steps(both)[0].command
    many = replace(
        result, gates=tuple(replace(result.gates[0], expr=f"psnr>{k}") for k in range(9))
    )
    assert "--policy FILE -o" in next_steps(many)[0].command


def breached(expr, defence="none", attack="worst", metric="identification"):
    return {"expr": expr, "defence": defence, "attack": attack, "metric": metric}


TUNE = "leakaudit tune ... --defence "


@pytest.mark.parametrize(
    ("changes", "command", "told"),
    [
        (
            breached("worst.identification>0.1", "crafter:beta=2"),
            TUNE + "crafter --target 'worst.identification<=0.1' --surely",
            "Strengthen the defence",
        ),
        (
            breached("x.identification>0.1@value", "crafter:outer_steps=8,beta=2,damping=1"),
            TUNE + "crafter:outer_steps=8,damping=1 --target 'worst.identification<=0.1'",
            "tune finds the least",
        ),
        (
            breached("feature_similarity>=0.5", metric="feature_similarity"),
            TUNE + "crafter --target 'worst.feature_similarity<0.5' --surely",
            "split deeper",
        ),
        (breached("ssim>0.5", "mine.py:hide:x=1", metric="ssim"), None, "Strengthen the defence"),
        (breached("u>0.05", "crafter:beta=8", "utility", "auc_drop"), None, "smaller β"),
        (breached("u<0.8", "none", "utility", "auc"), None, "look at the head"),
        # Gates on the audit itself: no defence mends them.
        (breached("identification<0.3"), None, "Its reason above"),
        (breached("identification<0.9", "none", "original"), None, "Its reason above"),
        (breached("identification>0.05", "none", "control-prior"), None, "Its reason above"),
        (breached("macro_f1>0.3", "none", "human", "macro_f1"), None, "Its reason above"),
    ],
)
def test_a_breach_is_followed_by_the_search_for_what_would_hold(changes, command, told):
    step = next_steps(judged("fail", **changes))[0]
    assert step.command == command
    assert told in step.text
    if command:
        words = shlex.split(command)
        Target.parse(words[words.index("--target") + 1], surely="--surely" in words)


def test_the_settings_that_a_search_leaves_open_are_the_defences_own():
    known = {name: DEFENCES.find(name).knob for name in DEFENCES.names()}
    assert {name: known[name] for name in steps._KNOBS} == steps._KNOBS
    ours = {name for name, knob in known.items() if knob}
    assert ours <= steps._KNOBS.keys()


def test_a_failure_without_a_failing_gate_is_no_bug_of_ours():
    result = replace(sample_result("pass"), verdict=sample_result("fail").verdict)
    assert "A gate is breached" in next_steps(result)[0].text


def searched(targets, *, adaptive=()):
    """A search whose choice was attacked by ``adaptive`` too, by whoever wrote them."""
    base = tuned_result()
    label = base.tuning[0].label
    row = next(s for s in base.scores if s.metric == "identification")
    more = tuple(replace(row, defence=label, attack=name) for name in adaptive)
    return replace(
        base, scores=(*base.scores, *more), tuning=(replace(base.tuning[0], targets=targets),),
        adversaries=(*base.adversaries, Adversary("AdaptiveBlackBox", adaptive, (), ())),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "adaptive", "silent"),
    [
        (("worst-static.identification<=0.1",), ("adaptive-decoder",), True),
        (("worst-static.psnr<=1", "utility.auc_drop<=0.05"), ("adaptive-decoder",), True),
        (("identification<=0.1",), ("adaptive-decoder",), False),
        (("worst-adaptive.identification<=0.1",), ("adaptive-decoder",), False),
        (("mine-attacker.identification<=0.1",), ("mine-attacker",), False),
        (("worst.identification<=0.1",), (), True),  # none of them ran
    ],
)
def test_what_a_search_came_to_is_told_to_be_no_audit(targets, adaptive, silent):
    result = searched(targets, adaptive=adaptive)
    step = next_steps(result)[0]
    assert "looks a little better on them" in step.text
    assert ("had no say" in step.text) is silent
    assert step.command == f"leakaudit scan ... --defence {result.tuning[0].label}"
    for text in (render_markdown(result), render_dpia(result)):
        assert "looks a little better on them" in text
    assert bool(untried(result, result.tuning[0])) is silent
    assert ("had no say" in chosen_here(result, result.tuning[0]).why) is silent


def test_a_search_that_chose_nothing_cautions_of_no_choice():
    base = searched(("identification<=0.1",))
    none = replace(base.tuning[0], chosen=None, label=None, status="undecided", reason="bad luck")
    result = replace(
        base, tuning=(none,), doubts=(), verdict=replace(base.verdict, status="inconclusive")
    )
    step = next_steps(result)[0]
    assert step.text == "The search decided nothing: bad luck."
    for text in (render_markdown(result), render_dpia(result), render_html(result)):
        assert "looks a little better" not in text
    missed = replace(result, verdict=replace(result.verdict, status="fail"))
    assert "No setting that was tried" in next_steps(missed)[0].text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0.000"), (-0.0, "0.000"), (0.947, "0.947"), (0.00312, "0.00312"),
     (2.5e-7, "2.50e-07"), (3e7, "3.00e+07"), (-0.0117, "-0.012")],
)  # fmt: skip
def test_numbers_keep_what_matters(value, shown):
    assert words.number(value) == shown


def test_who_is_called_a_person_already_is_not_called_so_twice():
    assert [words.someone(name) for name in ("34", "person 34")] == ["person 34"] * 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.00112, "0.001"), (-0.0004, "0.000"), (-0.0117, "-0.012"), (1.0, "1.000")],
)
def test_an_auc_and_its_drop_have_three_decimals(value, shown):
    assert words.area(value) == shown
    assert words.area_span(value, 0.5) == ("" if value is None else f"{shown} to 0.500")


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
