import json
from dataclasses import replace

import jsonschema  # type: ignore[import-untyped]
import pytest
from report.sample import tuned_result

from audit.toy_subject import (
    Constant,
    cheapen,
    toy_plan,
    toy_preset,
    toy_subject,
    train_once,
)  # fmt: skip
from leakaudit.audit.gates import Row, parse_gate
from leakaudit.audit.knobs import is_auto, knob_of, split_targets, with_setting
from leakaudit.audit.scan import ScanOptions
from leakaudit.audit.store import RunStore
from leakaudit.audit.tune import (
    Target,
    TuneOptions,
    concluded,
    concluded_search,
    refuse_beyond,
    refuse_twins,
    tune,
)
from leakaudit.audit.tuned import spec_of
from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.types import Figure, Tried
from leakaudit.report.json import SCHEMA_PATH, parse_result, result_text


@pytest.fixture(autouse=True)
def _cheap(monkeypatch, tmp_path):
    cheapen(monkeypatch, tmp_path)
    train_once(monkeypatch)


def tuned(tmp_path, *targets, specs=("gaussian",), how=None, subject=None, resume=False):
    preset = toy_preset(tmp_path, steps=300)
    plan = toy_plan(tmp_path, attacks=["blackbox-decoder"], steps=300)
    knobs = [knob_of(spec, preset=preset) for spec in specs]
    goals = [Target.parse(text) for text in targets]
    how = how or TuneOptions(evaluations=5, precision=1.5)
    store = RunStore(tmp_path / "run", resume=resume)
    told = subject or toy_subject()
    return tune(told, plan, knobs, goals, store, ScanOptions(), how, lambda what, share: None)


def test_noise_is_tuned_to_the_least_that_hides_people(tmp_path):
    result = tuned(tmp_path, "worst-static.identification<=0.3@value")
    (found,) = result.tuning
    assert found.status == "met", result.verdict.reason
    assert found.knob == "sigma"
    figures = {one.value: one.figures[0].value for one in found.tried}
    assert figures[found.chosen] <= 0.3
    assert all(value > 0.3 for setting, value in figures.items() if setting < found.chosen)
    assert result.verdict.status == "pass"
    assert result.verdict.exit_code == 0
    assert next(iter(result.plan["defences"])) == "none"
    assert {one.label for one in found.tried} == set(result.plan["defences"]) - {"none"}


def test_a_tuned_result_is_what_the_schema_says_and_comes_back(tmp_path):
    text = result_text(tuned(tmp_path, "identification<=0.3@value"))
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert result_text(parse_result(text, where="here")) == text


def test_a_target_that_no_setting_meets_is_breached(tmp_path):
    result = tuned(
        tmp_path, "worst-static.psnr<=1", how=TuneOptions(evaluations=3), specs=("gaussian",)
    )
    (found,) = result.tuning
    assert found.status == "missed"
    assert found.chosen is None
    assert "meets it" in found.reason
    assert result.verdict.exit_code == 1


def test_a_cost_that_is_too_high_is_said(tmp_path):
    targets = ("worst-static.identification<=0.3", "utility.auc_drop<=-0.5")
    (found,) = tuned(tmp_path, *targets).tuning
    assert found.status == "missed"
    assert found.chosen is not None
    assert "auc_drop" in found.reason


def test_a_target_on_utility_alone_asks_for_the_most_privacy_at_that_cost(tmp_path):
    (found,) = tuned(tmp_path, "utility.auc_drop<=0.15").tuning
    assert found.status == "met"
    drops = {one.value: one.figures[0].value for one in found.tried}
    assert all(drop > 0.15 for setting, drop in drops.items() if setting > found.chosen)


def test_settings_asked_for_are_measured_in_any_case(tmp_path):
    how = TuneOptions(evaluations=2, values=(0.25, 2.0))
    (found,) = tuned(tmp_path, "identification<=0.3", how=how).tuning
    assert [one.value for one in found.tried] == [0.25, 2.0]


def test_settings_stand_as_they_grow_and_choices_only_are_held_against_each_other(tmp_path):
    how = TuneOptions(evaluations=3, values=(2.0, 0.05))
    result = tuned(tmp_path, "worst-static.identification<=0.3@value", how=how)
    (found,) = result.tuning
    assert len(found.tried) == 3
    told = ["none", *(f"gaussian:sigma={one.value:g}" for one in found.tried)]
    assert list(result.plan["defences"]) == told
    assert [one.value for one in found.tried] == sorted(one.value for one in found.tried)
    for rows in (result.scores, result.utility, result.convergence):
        assert [name for name in dict.fromkeys(row.defence for row in rows) if name in told] == told
    pairs = {(c.defence, c.other) for c in result.comparisons if c.kind == "defence"}
    assert pairs == {(found.label, "none")}


def test_a_setting_outside_of_the_search_is_refused_before_any_work(tmp_path):
    knobs = [knob_of("gaussian", preset=toy_preset(tmp_path))]
    refuse_beyond(knobs, (0.5, 2.0))
    with pytest.raises(UsageError, match="1000 lies outside"):
        refuse_beyond(knobs, (0.5, 1000.0))


def test_a_search_that_ran_out_of_scans_says_how_far_it_came(tmp_path):
    result = tuned(tmp_path, "worst-static.psnr<=1", how=TuneOptions(evaluations=1))
    assert "no sigma that was tried meets it" in result.tuning[0].reason
    assert "takes more --evaluations" in result.tuning[0].reason


def test_only_the_first_defence_decides(tmp_path):
    how = TuneOptions(evaluations=2)
    specs = ("gaussian", "crafter:beta=auto")
    result = tuned(tmp_path, "worst-static.psnr<=1", how=how, specs=specs)
    assert [gate.severity for gate in result.gates] == ["fail", "warn"]
    assert len(result.tuning) == 2


@pytest.mark.slow
def test_a_resumed_search_comes_to_the_same(tmp_path):
    first = tuned(tmp_path, "identification<=0.3")
    again = tuned(tmp_path, "identification<=0.3", resume=True)
    assert first.tuning == again.tuning


def test_a_target_that_was_never_measured_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="identification"):
        tuned(tmp_path, "worst-static.identificaton<=0.1")


@pytest.mark.parametrize(
    "text", ["identification", "crafter.worst.identification<=0.1", "identification=0.1"]
)
def test_a_target_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--target"):
        Target.parse(text)


def row(value, low, high):
    return Row("d", "worst", "identification", value, low, high, 64, None, "up")


def test_a_target_is_held_by_its_value_or_surely_by_the_bad_end():
    assert Target.parse("identification<=0.1").beyond(row(0.1, 0.0, 0.3))[0] <= 1e-12
    assert Target.parse("identification<0.1").beyond(row(0.1, 0.0, 0.3))[0] > 0
    surely = Target.parse("identification<=0.1", surely=True)
    assert surely.beyond(row(0.05, 0.0, 0.3))[0] == pytest.approx(0.2)
    assert surely.gate_on("d") == '"d".worst.identification>0.1'


@pytest.mark.parametrize("limit", [1 / 3, 2 / 3, 0.1, 1e-7])
def test_the_gate_of_a_target_says_its_limit_exactly(limit):
    gate = parse_gate(Target.parse(f"identification<={limit!r}").gate_on("d"))
    assert gate.threshold == limit


def test_a_target_from_below_is_mirrored():
    target = Target.parse("utility.auc>=0.9")
    assert target.beyond(row(0.8, 0.7, 0.95)) == pytest.approx((0.1, -0.05, 0.2))
    assert target.level(0.1) == pytest.approx(0.8)
    assert target.gate_on("d").endswith("utility.auc<0.9@value")


@pytest.mark.parametrize(
    ("expr", "op"),
    [("identification>0.1", "<"), ("chosen.ssim>=0.3", "<="), ("utility.auc<=0.9", ">=")],
)
def test_a_target_that_asks_for_what_is_bad_is_refused(expr, op):
    """Written as a gate: the search would call the setting met that leaks."""
    with pytest.raises(UsageError, match="that is bad") as refused:
        Target.parse(expr)
    assert f"Write {op}:" in (refused.value.todo or "")


def test_the_settings_around_the_least_one_follow_from_single_intervals(tmp_path):
    knob = knob_of("gaussian", preset=toy_preset(tmp_path))
    spans = {1.0: (0.5, 0.4, 0.6), 2.0: (0.2, 0.05, 0.3), 4.0: (0.05, 0.0, 0.09)}
    tried = tuple(
        Tried(s, f"g:{s:g}", (Figure("identification<=0.1", *v, v[0], v[0] <= 0.1),))
        for s, v in spans.items()
    )
    told = concluded_search(knob, tried, 4.0, [Target.parse("identification<=0.1")])
    assert (told.low, told.high, told.label) == (1.0, 4.0, "g:4")
    assert concluded_search(knob, tried[:2], None, [Target.parse("identification<=0.1")]).low == 1.0


def test_a_lucky_setting_among_leaking_ones_decides_nothing(tmp_path):
    """.96 at one setting but .99 at a stricter one: the fit pools both, and no gate may pass."""
    base, target = tuned_result(), Target.parse("worst.identification<=0.97")
    labels = [one.label for one in base.tuning[0].tried]
    tried = tuple(
        Tried(setting, label, (Figure(target.expr, value, 0.0, 1.0, 0.975, value <= 0.97),))
        for setting, label, value in ((2.0, labels[0], 0.96), (12.0, labels[1], 0.99))
    )
    knob = knob_of("gaussian", preset=toy_preset(tmp_path))
    told = concluded_search(knob, tried, None, [target])
    assert told.status == "undecided"
    assert "sigma=2 meets it by its own figures" in told.reason
    result = concluded(replace(base, tuning=(told,)), [target])
    assert (result.verdict.status, result.verdict.exit_code) == ("inconclusive", 3)
    assert {gate.status for gate in result.gates} == {"inconclusive"}


def test_the_only_setting_that_holds_of_several_decides_nothing(tmp_path):
    base, target = tuned_result(), Target.parse("worst.identification<=0.97")
    labels = [one.label for one in base.tuning[0].tried]
    tried = tuple(
        Tried(setting, label, (Figure(target.expr, value, 0.0, 1.0, value, value <= 0.97),))
        for setting, label, value in ((2.0, labels[0], 0.99), (12.0, labels[1], 0.96))
    )
    told = concluded_search(knob_of("gaussian", preset=toy_preset(tmp_path)), tried, None, [target])
    assert told.status == "undecided"
    assert "sigma=12 alone meets it" in told.reason
    assert "the luckiest one is no proof" in told.reason
    other = (*tried, replace(tried[0], value=20.0))
    knob = knob_of("gaussian", preset=toy_preset(tmp_path))
    assert "a stricter one doesn't" in concluded_search(knob, other, None, [target]).reason
    result = concluded(replace(base, tuning=(told,)), [target])
    assert (result.verdict.status, result.verdict.exit_code) == ("inconclusive", 3)


def test_a_knob_is_found_by_its_name_or_by_auto(tmp_path):
    preset = toy_preset(tmp_path)
    assert knob_of("crafter", preset=preset).name == "beta"
    knob = knob_of("crafter:outer_steps=2,beta=auto", preset=preset)
    assert (knob.start, knob.at(3.0).label) == (4.0, "crafter:outer_steps=2,beta=3")
    assert knob_of("gaussian:sigma=auto", preset=preset, between=(0.1, 0.2)).start == 0.2
    assert is_auto("crafter:beta=auto,damping=0.1")
    assert not is_auto("crafter:beta=4")
    assert split_targets("crafter:beta=auto,target=identification<=0.1,damping=0.1") == (
        "crafter:beta=auto,damping=0.1",
        ("identification<=0.1",),
    )


@pytest.mark.parametrize(
    ("spec", "bare"),
    [
        ("crafter:target=psnr<=9,beta=auto", "crafter:beta=auto"),
        ("crafter:beta=auto, target = psnr<=9 ", "crafter:beta=auto"),
        ("crafter: beta = auto , target=psnr<=9,damping=1", "crafter: beta = auto ,damping=1"),
        ("crafter:target=psnr<=9", "crafter"),
        ("a/mine.py:make:target=psnr<=9,s=auto", "a/mine.py:make:s=auto"),
        ("a/mine.py:make", "a/mine.py:make"),
        ("crafter", "crafter"),
    ],
)
def test_targets_are_read_wherever_they_stand(tmp_path, spec, bare):
    assert split_targets(spec) == (bare, ("psnr<=9",) if "psnr" in spec else ())
    named = spec.replace("psnr", "utility.auc:Smiling_drop")
    assert split_targets(named)[0] == bare
    assert split_targets(bare) == (bare, ())
    assert is_auto(spec) == is_auto(bare) == ("auto" in spec)
    if is_auto(bare) and bare.startswith("crafter"):
        assert knob_of(bare, preset=toy_preset(tmp_path)).at(3).label.count("beta=3") == 1


def test_a_metric_may_have_a_colon_and_nothing_is_left_of_a_spec_without_settings():
    named = "crafter:target=utility.auc:Smiling_drop<=0.05,beta=auto"
    assert split_targets(named) == ("crafter:beta=auto", ("utility.auc:Smiling_drop<=0.05",))
    for bare in ("crafter", "a/mine.py:make"):
        assert split_targets(bare) == (bare, ())


def test_ends_are_as_labels_tell_them(tmp_path):
    """A search must not confirm a setting by itself, under another number of the same name."""
    knob = knob_of("gaussian", preset=toy_preset(tmp_path), between=(0.5, 3.33333333))
    assert knob.most == float(knob.at(knob.most).label.partition("=")[2]) == 3.33333


def held_to(tmp_path, least, most):
    file = tmp_path / f"mine{most}.py"
    file.write_text(
        "def hide(strength):\n"
        f"    if not {least} <= strength <= {most}:\n"
        f"        raise ValueError('strength must be {least} to {most}')\n"
        "    return lambda f, rng: f * strength\n"
    )
    return f"{file}:hide:strength=auto"


def test_a_search_reaches_as_far_as_the_defence_takes_it(tmp_path):
    knob = knob_of(held_to(tmp_path, 0.5, 5), preset="quick")
    assert (knob.start, knob.least, knob.most) == (1.0, 0.5, 4.0)
    with pytest.raises(UsageError, match=r"strength must be 0\.5 to 5.*--between 0\.5,6"):
        knob_of(held_to(tmp_path, 0.5, 5), preset="quick", between=(0.5, 6.0))
    with pytest.raises(UsageError, match=r"takes strength=1 .*--between"):
        knob_of(held_to(tmp_path, 1, 1), preset="quick")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("none", "no setting"),
        ("crafter:beta=auto,damping=auto", "one setting"),
        ("crafter:unshade=auto", "no number"),
        ("crafter-z:steps=auto", "whole numbers"),
        ("crafter:betta=auto", "betta"),
        ("craftr", "craftr"),
    ],
)
def test_what_has_no_knob_is_refused(tmp_path, spec, why):
    with pytest.raises((UsageError, UnknownNameError), match=why):
        knob_of(spec, preset=toy_preset(tmp_path))


@pytest.mark.slow
def test_a_users_own_defence_is_tuned_too(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "def noisy(strength=1.0):\n"
        "    return lambda f, rng: f + strength * torch.randn(f.shape, generator=rng)\n"
    )
    (found,) = tuned(
        tmp_path, "worst-static.identification<=0.3", specs=(f"{file}:noisy:strength=auto",)
    ).tuning
    assert found.status == "met"
    assert found.spec.endswith("strength=auto")


def test_two_searches_with_rows_of_one_name_are_refused(tmp_path):
    files = [tmp_path / folder / "mine.py" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text("def hide(strength=1.0):\n    return lambda f, rng: f + strength\n")
    specs = [f"{file}:hide:strength=auto" for file in files]
    for both in (specs, ["crafter", "crafter:beta=auto"]):
        with pytest.raises(UsageError, match="rows of one name"):
            tuned(tmp_path, specs=both)
    refuse_twins([knob_of(spec, preset="quick") for spec in ("crafter", "crafter-z", specs[0])])


def test_where_the_audit_has_no_power_nothing_is_met(tmp_path):
    """Of a constant feature nobody is named, which says nothing about the defence."""
    subject = toy_subject(Constant())
    how = TuneOptions(evaluations=2)
    result = tuned(tmp_path, "worst-static.identification<=0.5", subject=subject, how=how)
    assert result.tuning[0].status == "undecided"
    assert result.verdict.exit_code == 3


def test_what_was_tuned_is_not_taken_for_a_defence_with_other_settings():
    result = tuned_result()
    label = spec_of(result)
    name = label.partition(":")[0]
    assert spec_of(result, name) == label
    with pytest.raises(UsageError, match="other settings than"):
        spec_of(result, f"{name}:plan_size=8")


OWN = "mine.py:hide"


def test_a_tuned_defence_of_ones_own_is_looked_for_where_it_lies():
    """A result names no folder: whoever deploys says it, and the settings found are added."""
    base = tuned_result()
    tuning = replace(
        base.tuning[0], spec=f"{OWN}:soft=2,keep=auto", knob="keep", label=f"{OWN}:soft=2,keep=0.4",
        chosen=0.4,
    )  # fmt: skip
    result = replace(base, tuning=(tuning,))
    assert spec_of(result, f"a/b/{OWN}") == f"a/b/{OWN}:soft=2,keep=0.4"
    assert spec_of(result, f"a/{OWN}:keep=auto,soft=2") == f"a/{OWN}:keep=0.4,soft=2"
    with pytest.raises(UsageError, match="other settings than"):
        spec_of(result, f"a/{OWN}:soft=3")
    with pytest.raises(UsageError, match="was not tuned"):
        spec_of(result, "a/mine.py:another")
    with pytest.raises(UsageError, match="a defence of your own"):
        spec_of(result)


@pytest.mark.parametrize(
    ("spec", "made"),
    [
        ("crafter", "crafter:beta=2"),
        ("crafter:tolerance=0", "crafter:tolerance=0,beta=2"),
        ("crafter:beta=auto,tolerance=0", "crafter:beta=2,tolerance=0"),
        ("a/mine.py:hide", "a/mine.py:hide:beta=2"),
        ("a/mine.py:hide:soft=1", "a/mine.py:hide:soft=1,beta=2"),
        ("pkg.mod:hide", "pkg.mod:hide:beta=2"),
    ],
)
def test_a_setting_is_added_where_the_specification_has_room_for_it(spec, made):
    assert with_setting(spec, "beta", "2") == made
