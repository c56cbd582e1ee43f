"""Several layers joined into one result: gates at each, one verdict over all, and back again."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from report.layered import PLACES, layered_result
from report.sample import sample_result

from leakaudit.audit.by_layer import concluded, joined, without_pictures
from leakaudit.audit.comparable import obstacles
from leakaudit.audit.gates import Rule, conclude
from leakaudit.audit.judge import judged
from leakaudit.audit.policy import Hush, Limit, Policy
from leakaudit.core.by_layer import by_depth, layer_of, parts

TODAY = date(2030, 1, 1)
BASE = Path("base.json")
LEAKY = "none.worst.identification>0.9"  # up to 99.6 % at layer1, 79 % at layer2


def status(result, layer):
    return next(p.verdict.status for p in concluded(result) if layer_of(p) == layer)


def test_the_first_layer_leads_and_the_others_follow_by_depth():
    result = layered_result(order=(1, 2, 0))
    assert layer_of(result) == "layer2"
    assert [layer_of(layer) for layer in result.layers] == ["layer1", "layer3"]
    assert [layer_of(part) for part in by_depth(result)] == ["layer1", "layer2", "layer3"]


def test_a_single_result_is_joined_taken_apart_and_judged_as_it_is():
    one = sample_result("fail")
    assert joined([one]) is one
    assert parts(one) == concluded(one) == (one,)
    told = judged(one, (LEAKY,), Policy(), {}, TODAY)
    assert [gate.layer for gate in told.gates] == [None]
    assert "at layer" not in told.verdict.reason


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_one_leaky_layer_fails_the_whole_wherever_it_stands(order):
    result = layered_result(LEAKY, order=order)
    assert (result.verdict.status, result.verdict.exit_code) == ("fail", 1)
    assert "at layer1, " in result.verdict.reason
    assert {layer: status(result, layer) for layer, _, _ in PLACES} == {
        "layer1": "fail", "layer2": "pass", "layer3": "pass",
    }  # fmt: skip


def test_layers_that_all_hold_pass_and_one_undecided_is_not_a_pass():
    assert layered_result("none.worst.identification>0.999").verdict.status == "pass"
    result = layered_result("none.worst.identification>0.999", "none.worst.lpips>0.1")
    assert result.verdict.exit_code == 3


def test_judging_again_gives_what_was_joined_at_first():
    first = layered_result(LEAKY, order=(2, 0, 1))
    again = judged(layered_result(order=(2, 0, 1)), (LEAKY,), Policy(), {}, TODAY)
    assert (again.gates, again.verdict) == (first.gates, first.verdict)
    assert judged(again, (LEAKY,), Policy(), {}, TODAY) == again


def test_the_verdict_is_that_of_the_gates_of_all_layers():
    result = layered_result(LEAKY)
    assert result.verdict == conclude(result.gates, result.scores)
    assert len(result.gates) == 3 == len({gate.layer for gate in result.gates})


def test_without_gates_the_verdict_names_every_layer():
    reason = layered_result().verdict.reason
    assert all(f"at {layer}, none" in reason for layer, _, _ in PLACES)


def test_a_suppression_holds_at_every_layer_and_is_said():
    hush = Hush("leak", None, "being mended", "team", date(2031, 1, 1))
    policy = Policy((Rule(LEAKY, id="leak"),), (), (hush,))
    result = judged(layered_result(), (), policy, {}, TODAY)
    assert result.verdict.status == "ungated"
    assert [gate.is_suppressed for gate in result.gates] == [True] * 3


def limited(now, base):
    policy = Policy((), (Limit(Rule("none.worst.identification"), (BASE,)),))
    return judged(now, (), policy, {BASE: base}, TODAY)


def test_each_layer_is_held_against_the_same_layer_of_the_baseline():
    base = layered_result(order=(2, 1, 0))
    same = limited(layered_result(), base)
    assert same.verdict.status == "pass"
    assert [gate.value for gate in same.gates] == [0, 0, 0]
    worse = limited(layered_result(shares=(1.0, 1.0, 0.25)), base)
    assert {gate.layer: gate.status for gate in worse.gates} == {
        "layer1": "pass", "layer2": "fail", "layer3": "pass",
    }  # fmt: skip


@pytest.mark.parametrize(
    "base", [parts(layered_result())[0], layered_result(names=("layer1", "layer2", "layer4"))]
)
def test_a_baseline_of_other_layers_decides_nothing(base):
    told = limited(layered_result(), base)
    assert told.verdict.exit_code == 3
    assert "layers (layer1, layer2, layer3 and layer1" in told.gates[0].reason


def test_results_of_the_same_layers_compare_whatever_their_order():
    one, other = layered_result(), layered_result(order=(2, 0, 1))
    assert obstacles(one, other, same_weights=True) == ()
    changed = replace(other.layers[0], plan={**other.layers[0].plan, "preset": "own"})
    other = replace(other, layers=(changed, *other.layers[1:]))
    assert obstacles(one, other, same_weights=True) == ("at layer1, preset (quick and own)",)
    assert obstacles(one, other, same_weights=True, layer="layer2") == ()


def test_only_the_first_layer_keeps_its_pictures_in_the_file():
    full = layered_result(order=(1, 0, 2))
    assert full.layers[0].gallery
    slim = without_pictures(full)
    assert slim.gallery == full.gallery
    assert all(not layer.gallery for layer in slim.layers)
