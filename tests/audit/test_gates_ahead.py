"""Gates that the plan can't decide are told before the scan, and no others are."""

from dataclasses import replace
from pathlib import Path

import pytest

from audit.toy_subject import cheapen, embed, toy_plan, toy_preset, toy_subject
from leakaudit.audit.gates_ahead import warnings
from leakaudit.audit.plan import make_plan
from leakaudit.audit.scan import ScanOptions, scan
from leakaudit.audit.store import RunStore
from leakaudit.models.oracle import IdentityOracle

DEFENCE = "gaussian:sigma=0.1"
ATTACKS = ["blackbox-decoder", "whitebox-latent", "adaptive-ridge"]
QUICK = "[attacks.adaptive-ridge]\nqueries = 16\npairs = 60\n"


@pytest.fixture(scope="module")
def subject():
    return toy_subject(attacked=8, gallery=12)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return toy_plan(tmp_path_factory.mktemp("plan"), DEFENCE, attacks=ATTACKS)


def told(layers, *exprs):
    return warnings({expr: expr for expr in exprs}, layers)


@pytest.mark.parametrize(
    ("expr", "why"),
    [
        ("identificaton>0.2", "metric 'identificaton' is not in this plan. Did you mean identif"),
        ("worst.identificaton>0.2", "Did you mean identification"),
        ("worts.identification>0.2", "attack 'worts' is not in this plan. Did you mean worst"),
        ("blackbox-decodr.ssim>0.2", "Did you mean blackbox-decoder"),
        ("whitebox-dip.identification>0.2", "attack 'whitebox-dip' is not in this plan"),
        ("gausian.worst.ssim>0.2", "defence 'gausian' is not in this plan"),
        ("crafter.worst.ssim>0.2", "defence 'crafter' is not in this plan"),
        ('"gaussian:sigma=9".worst.ssim>0.2', "defence 'gaussian:sigma=9' is not in this plan"),
        ("gaussian.identification>0.2", "'gaussian' is a defence: write gaussian.worst.identif"),
        ("original.identification>0.2", "attack 'original' is not in this plan"),
        ("none.worst-adaptive.ssim>0.2", "attack 'worst-adaptive' is not in this plan"),
        ("none.original.identification_excess>0.2", "metric 'identification_excess'"),
        ("utility.auc_drp>0.02", "metric 'auc_drp' is not in this plan. Did you mean auc_drop"),
        ("utility.auc:smile_drop>0.02", "metric 'auc:smile_drop'"),
        ("human.macro_f1>0.5", "attack 'human' is not in this plan"),
    ],
)
def test_a_row_that_no_such_plan_gives_is_told(subject, plan, expr, why):
    (warning,) = told([(subject, plan)], expr)
    assert warning.startswith(f"gate '{expr}' will end inconclusive: ")
    assert why in warning
    assert "was not measured" not in warning


def test_what_a_scan_measures_is_never_warned_of(tmp_path, monkeypatch):
    cheapen(monkeypatch, tmp_path)
    subject = toy_subject(attacked=8, gallery=12)
    further = IdentityOracle(embed, subject.faces.images, subject.faces.people, name="other")
    subject = replace(subject, judges=(further,))
    preset = Path(toy_preset(tmp_path, steps=2))
    preset.write_text(preset.read_text() + QUICK)
    plan = make_plan(
        preset=str(preset), defences=[DEFENCE], attacks=ATTACKS, seed=0, has_prior=True,
        has_head=True,
    )  # fmt: skip
    done = scan(
        subject, plan, RunStore(tmp_path / "run", resume=False), ScanOptions(), lambda *_: None
    )
    exprs = {f'"{s.defence}".{s.attack}.{s.metric}>0.5' for s in done.scores}
    exprs |= {f'"{u.defence}".utility.{u.metric}<0.5' for u in done.utility}
    exprs |= {f'"{u.defence}".utility.{u.metric}_drop>0.5' for u in done.utility}
    assert len(exprs) > 100
    assert told([(subject, plan)], *sorted(exprs)) == ()


def test_what_a_subject_lacks_is_told(subject, tmp_path):
    blind = toy_subject(attacked=8, gallery=12, prior=False, head=False)
    plan = toy_plan(tmp_path, attacks=["blackbox-decoder"], prior=False, head=False)
    assert told([(blind, plan)], "epsilon_pii>3")
    assert told([(blind, plan)], "utility.auc<0.5")
    assert told([(blind, plan)], "identification>0.5") == ()


def test_a_layer_that_lacks_the_row_is_named_and_the_same_word_is_said_once(
    subject, plan, tmp_path
):
    other = toy_plan(tmp_path, "gaussian:sigma=0.7", attacks=ATTACKS)
    places = [replace(subject, about={"layer": name}) for name in ("one", "two")]
    layers = [(places[0], plan), (places[1], other)]
    gate = f'"{DEFENCE}".worst.identification>0.2'
    (warning,) = told(layers, gate)
    assert warning.startswith(f"at two, gate '{gate}' will end inconclusive")
    (warning,) = told(layers, "identificaton>0.2")
    assert warning.startswith("gate 'identificaton>0.2'")


def test_a_row_of_a_policys_baseline_is_told_as_it_is_written(subject, plan):
    (warning,) = warnings({"worst.identificaton": "worst.identificaton>0"}, [(subject, plan)])
    assert warning.startswith("gate 'worst.identificaton' will end inconclusive")
