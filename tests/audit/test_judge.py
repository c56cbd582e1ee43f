import math
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from leakaudit.audit.comparable import obstacles, worsening
from leakaudit.audit.gates import Row, Rule
from leakaudit.audit.judge import judged
from leakaudit.audit.policy import Hush, Limit, Policy
from leakaudit.core.types import Doubt, Result, Score, Utility, Verdict
from leakaudit.maths.rates import tango, wilson

TODAY = date(2030, 1, 15)
BASE = Path("base.json")


def row(value, *, reach=0.05, worse="up", n=64, metric="identification"):
    return Row("none", "worst", metric, value, value - reach, value + reach, n, None, worse)


def result(value=0.5, *, reach=0.05, n=64, doubts=(), metric="identification", **other):
    score = Score("none", "worst", "worst", metric, value, value - reach, value + reach, n, "share",
                  "down" if metric == "lpips" else "up")  # fmt: skip
    kept = Utility("none", "auc", 0.9, 0.88, 0.92, n, 0.0, -0.01, 0.01)
    values = {
        "subject": {"weights_sha256": "a", "layer": "layer1", "people": 64},
        "plan": {"preset": "quick", "attacks": {"decoder": {"steps": 9}}, "defences": {"none": {}}},
        **other,
    }
    created = values.pop("created", "")
    return Result(
        {}, created, "", 0, "cpu", scores=(score,), utility=(kept,), convergence=(),
        doubts=tuple(doubts), gates=(), verdict=Verdict("ungated", "", 0), **values,
    )  # fmt: skip


def limited(now, *bases, rule=None, today=TODAY, **settings):
    """The one gate and the verdict of a limit of ``now`` against these baselines."""
    paths = tuple(Path(f"base{k}.json") for k in range(len(bases)))
    limit = Limit(rule or Rule("worst.identification", "ratchet"), paths, **settings)
    told = judged(now, [], Policy(limits=(limit,)), dict(zip(paths, bases, strict=True)), today)
    return told.gates[0], told.verdict


@pytest.mark.parametrize(
    ("value", "reach", "status"),
    [(0.5, 0.05, "pass"), (0.56, 0.05, "pass"), (0.6, 0.05, "fail"), (0.6, 0.08, "pass"),
     (0.2, 0.05, "pass")],
)  # fmt: skip
def test_a_row_may_get_worse_only_within_the_noise_of_both(value, reach, status):
    gate, verdict = limited(result(value, reach=reach), result(0.5, reach=reach))
    assert gate.status == verdict.status == status
    assert gate.value == pytest.approx(value - 0.5)
    assert gate.bound == pytest.approx(value - 0.5 - math.hypot(reach, reach))


def test_what_leaks_more_when_lower_is_worse_when_lower():
    rule = Rule("worst.lpips")
    now, base = result(0.3, metric="lpips"), result(0.5, metric="lpips")
    assert limited(now, base, rule=rule)[0].status == "fail"
    assert limited(base, now, rule=rule)[0].status == "pass"


def test_utility_that_is_lost_is_worse():
    now = replace(result(), utility=(replace(result().utility[0], value=0.7, low=0.68, high=0.72),))
    gate, _ = limited(now, result(), rule=Rule("utility.auc"))
    assert gate.status == "fail"
    assert gate.value == pytest.approx(0.2)


def test_an_allowance_is_added_to_the_noise():
    assert limited(result(0.6), result(0.5), allow=0.02)[0].status == "fail"
    assert limited(result(0.6), result(0.5), allow=0.04)[0].status == "pass"


def test_a_stored_spread_of_runs_widens_the_noise():
    assert limited(result(0.6), result(0.5), spread=0.0)[0].status == "fail"
    assert limited(result(0.6), result(0.5), spread=0.05)[0].status == "pass"


def test_the_spread_is_taken_from_repeated_baselines():
    by, low, high = worsening(row(0.6, reach=0), [row(v, reach=0) for v in (0.4, 0.5, 0.6)])
    half = 4.30 * 0.1 * math.sqrt(1 + 1 / 3)  # Student, two degrees of freedom
    assert (by, low, high) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    steady = [row(0.5, reach=0)] * 3
    assert worsening(row(0.6, reach=0), steady) == pytest.approx((0.1, 0.1, 0.1))


def test_one_run_given_twice_is_no_spread():
    gate, verdict = limited(result(0.5), result(0.5), result(0.5, created="again"))
    assert gate.status == verdict.status == "inconclusive"
    assert "base0.json and base1.json are one run" in gate.reason
    assert limited(result(0.5), result(0.5), result(0.5), spread=0.01)[0].status == "pass"
    asked = result(0.5)
    people = replace(asked.scores[0], attack="human", metric="macro_f1")
    studied = replace(asked, scores=(*asked.scores, people))
    assert limited(result(0.5), asked, studied)[0].status == "inconclusive"


def test_an_uneven_interval_turns_with_the_direction():
    one = Row("n", "a", "m", 0.6, 0.5, 0.62, 9, None, "up")
    other = Row("n", "a", "m", 0.4, 0.39, 0.45, 9, None, "up")
    by, low, high = worsening(one, [other])
    assert (by, low, high) == pytest.approx(
        (0.2, 0.2 - math.hypot(0.1, 0.05), 0.2 + math.hypot(0.02, 0.01))
    )
    down = [replace(r, worse="down") for r in (one, other)]
    assert worsening(down[0], [down[1]]) == pytest.approx((-by, -high, -low))


def of_faces(named, **subject):
    """A result of 30 people, one picture each, of whom the first ones are named."""
    about = {"images": 30, "people": 30, "faces_sha256": "f", **subject}
    one = result(named / 30, reach=0, n=30, subject=about)
    hits = tuple(float(k < named) for k in range(30))
    ends = wilson(named, 30)
    score = replace(one.scores[0], per_face=hits, low=ends.low, high=ends.high)
    return replace(one, scores=(score,))


def test_the_same_faces_are_paired():
    """Three times the leakage of ten in a hundred is no noise, though both intervals overlap."""
    gate, _ = limited(of_faces(9), of_faces(3))
    found = tango(6, 0, 30)
    assert gate.status == "fail"
    assert (gate.value, gate.bound) == pytest.approx((0.2, found.low))
    assert limited(of_faces(6), of_faces(3))[0].status == "pass"
    assert limited(of_faces(3), of_faces(9))[0].status == "pass"
    assert limited(of_faces(9), of_faces(3), spread=0.06)[0].status == "pass"


@pytest.mark.parametrize("other", [{"images": 60}, {"faces_sha256": None}])
def test_other_faces_or_several_of_a_person_are_not(other):
    assert limited(of_faces(9, **other), of_faces(3, **other))[0].status == "pass"


@pytest.mark.parametrize(
    ("now", "base", "said"),
    [
        (result(subject={"layer": "layer2"}), result(), "layer (layer2 and layer1)"),
        (result(subject={**result().subject, "people": 9}), result(), "people (9 and 64)"),
        (result(plan={**result().plan, "preset": "own"}), result(), "preset (own and quick)"),
        (result(plan={**result().plan, "attacks": {"decoder": {"steps": 3}}}), result(),
         "settings of the attack decoder: steps (3 and 9)"),
        (result(plan={**result().plan, "attacks": {}}), result(), "decoder was run in one of them"),
        (result(schema_version=2), result(), "schema version (2 and 1)"),
    ],
)  # fmt: skip
def test_a_baseline_of_something_else_decides_nothing(now, base, said):
    gate, verdict = limited(now, base)
    assert (gate.status, verdict.exit_code) == ("inconclusive", 3)
    assert said in gate.reason


def test_a_baseline_may_be_of_an_earlier_encoder_but_a_comparison_may_not():
    new = result(subject={**result().subject, "weights_sha256": "b"})
    assert limited(new, result())[0].status == "pass"
    assert obstacles(new, result(), same_weights=False) == ()
    assert obstacles(new, result(), same_weights=True) == ("weights sha256 (b and a)",)


def about(**more):
    """A result whose subject says more."""
    return result(subject={**result().subject, **more})


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ({"prior": "given"}, {"prior": "trained here"}, "prior (given and trained here)"),
        ({"prior": "given", "prior_sha256": "p"}, {"prior": "given", "prior_sha256": "q"},
         "prior (p and q)"),
        ({"preprocessing": {"mean": [0.5], "std": [1]}},
         {"preprocessing": {"mean": [0], "std": [1]}}, "preprocessing: mean ([0.5] and [0])"),
    ],
)  # fmt: skip
def test_what_weakens_the_attacks_is_no_improvement(a, b, said):
    """Another prior or other channels: a baseline would take their weaker attacks for progress."""
    for same_weights in (False, True):
        assert obstacles(about(**a), about(**b), same_weights=same_weights) == (said,)
    trained = {"plan": {**result().plan, "training": {"prior": {"steps": 1}}}}
    (told,) = obstacles(result(**trained), result(), same_weights=False)
    assert told.startswith("training (")


def test_priors_that_each_scan_trained_and_another_networks_channels_are_compared():
    here = [about(prior="trained here", prior_sha256=sha) for sha in "pq"]
    assert obstacles(*here, same_weights=True) == ()
    earlier = about(prior_sha256="p")  # which didn't say where it came from
    assert obstacles(earlier, here[1], same_weights=True) == ()
    measured, read = about(preprocessing={"mean": (0.5,)}), about(preprocessing={"mean": [0.5]})
    assert obstacles(measured, read, same_weights=True) == ()
    new = about(weights_sha256="b", preprocessing={"mean": [0]})
    assert obstacles(new, about(preprocessing={"mean": [0.5]}), same_weights=False) == ()


def test_a_further_defence_is_no_obstacle_but_other_settings_of_one_are():
    more = result(plan={**result().plan, "defences": {"none": {}, "crafter": {"beta": 2}}})
    other = result(plan={**result().plan, "defences": {"none": {}, "crafter": {"beta": 3}}})
    assert obstacles(result(), more, same_weights=True) == ()
    assert "beta (2 and 3)" in obstacles(more, other, same_weights=True)[0]


def test_a_row_that_the_baseline_lacks_or_that_has_too_few_faces_decides_nothing():
    bare = replace(result(), scores=())
    assert "not in the baseline" in limited(result(), bare)[0].reason
    few = limited(result(n=64), result(n=10), rule=Rule("identification", min_n=40))[0]
    assert few.status == "inconclusive"
    assert "from 10 where at least 40" in few.reason
    assert "attack 'wrst'" in limited(result(), result(), rule=Rule("wrst.ssim"))[0].reason


def test_a_serious_doubt_undoes_a_pass_but_no_breach():
    doubt = Doubt("too-few", "serious", "x", "y", "z")
    assert limited(result(doubts=[doubt]), result())[0].status == "inconclusive"
    assert limited(result(0.9, doubts=[doubt]), result())[0].status == "fail"


def asked(*hushes, severity="fail", today=TODAY, min_n=0, expr="identification>0.2"):
    rule = Rule(expr, "naming", severity, min_n, "p.toml", 3)
    told = judged(result(0.5), [], Policy((rule,), (), hushes), {}, today)
    return told.gates[0], told.verdict


def test_a_warning_is_told_but_does_not_count():
    gate, verdict = asked(severity="warn")
    assert (gate.status, gate.severity, gate.counts) == ("fail", "warn", False)
    assert "a warning only" in gate.reason
    assert (verdict.status, verdict.exit_code) == ("ungated", 0)
    assert "1 only warned of" in verdict.reason
    assert (gate.file, gate.line) == ("p.toml", 3)


@pytest.mark.parametrize(
    ("expires", "code"), [("2030-01-14", 1), ("2030-01-15", 0), ("2030-01-16", 0)]
)
def test_a_suppression_holds_up_to_its_last_day_and_is_always_told(expires, code):
    hush = Hush("naming", None, "new camera", "ada", date.fromisoformat(expires))
    gate, verdict = asked(hush)
    assert gate.status == "fail", "what was measured stays"
    assert verdict.exit_code == code
    assert gate.suppressed.active == (code == 0)
    assert "new camera" in gate.reason
    assert ("expired" in gate.reason) == (code == 1)
    assert ("1 suppressed" in verdict.reason) == (code == 0)


def test_a_suppression_of_another_defence_suppresses_nothing():
    hush = Hush("naming", "crafter:beta=2", "r", "o", date(2031, 1, 1))
    assert asked(hush)[1].exit_code == 1
    assert asked(replace(hush, defence="none"))[1].exit_code == 0


def test_too_few_faces_decide_no_gate():
    gate, verdict = asked(min_n=65)
    assert (gate.status, verdict.exit_code) == ("inconclusive", 3)
    assert asked(min_n=64)[1].exit_code == 1


def test_gates_of_the_command_line_and_of_a_policy_stand_together():
    policy = Policy((Rule("identification>0.9", "soft"),))
    told = judged(result(0.5), ["identification>0.2"], policy, {}, TODAY)
    assert [(g.id, g.status) for g in told.gates] == [(None, "fail"), ("soft", "pass")]
    assert told.verdict.exit_code == 1
