import json

import pytest

from audit.toy_subject import toy_plan, toy_preset
from leakaudit.attacks import CONTROLS
from leakaudit.audit.plan import load_preset, make_plan, preset_names
from leakaudit.core.errors import UnknownNameError, UsageError


def plan_of(text, tmp_path, *, defences=(), attacks=None, has_prior=True, has_head=True):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return make_plan(
        preset=str(path), defences=defences, attacks=attacks, seed=0, has_prior=has_prior,
        has_head=has_head,
    )  # fmt: skip


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_makes_a_plan(name):
    plan = make_plan(
        preset=name, defences=["gaussian", "crafter"], attacks=None, seed=1, has_prior=True,
        has_head=True,
    )  # fmt: skip
    assert plan.preset == name
    assert {"blackbox-decoder", "whitebox-latent"} <= {attack.name for attack in plan.attacks}
    assert plan.passes_ahead(64, 4000) > 4000
    json.dumps(plan.to_json(), allow_nan=False)


def test_none_stands_first_and_once():
    for specs in ([], ["none"], ["gaussian", "none"], ["none", "none", "gaussian"]):
        plan = make_plan(
            preset="quick", defences=specs, attacks=None, seed=0, has_prior=True, has_head=True
        )
        labels = [named.label for named in plan.defences]
        assert labels[0] == "none"
        assert labels.count("none") == 1


def test_a_preset_sets_what_the_command_line_does_not(tmp_path):
    text = "[attacks.blackbox-decoder]\nbatch = 8\ntraining.steps = 7\n[defences.gaussian]\nsigma=2"
    plan = plan_of(text, tmp_path, defences=["gaussian", "gaussian:sigma=3"])
    assert plan.preset == "mine"
    assert plan.attacks[0].training.steps == 7
    assert plan.attacks[0].training.batch == type(plan.attacks[0])().training.batch
    assert [named.defence.sigma for named in plan.defences[1:]] == [2, 3]
    assert plan.to_json()["defences"] == {
        "none": {}, "gaussian": {"sigma": 2.0}, "gaussian:sigma=3": {"sigma": 3.0}
    }  # fmt: skip


def test_attacks_come_from_the_preset_unless_named(tmp_path):
    assert [a.name for a in toy_plan(tmp_path).attacks] == ["blackbox-decoder", "whitebox-latent"]
    named = toy_plan(tmp_path, attacks=["whitebox-latent", "whitebox-latent", "control-mean"])
    assert [a.name for a in named.attacks] == ["whitebox-latent"]


def test_controls_always_run_where_they_can(tmp_path):
    assert tuple(c.name for c in toy_plan(tmp_path).controls) == CONTROLS
    bare = toy_plan(tmp_path, prior=False, head=False)
    assert [c.name for c in bare.controls] == ["control-mean"]
    assert [a.name for a in bare.attacks] == ["blackbox-decoder"]


@pytest.mark.parametrize("attacks", [[], ["control-mean"], ["whitebox-latent"]])
def test_a_plan_without_an_attack_is_a_usage_error(tmp_path, attacks):
    with pytest.raises(UsageError, match="No attack is left"):
        toy_plan(tmp_path, attacks=attacks, prior=False)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("[attack.blackbox-decoder]", "attacks"),
        ("[attacks.blackbox-decodr]", "blackbox-decoder"),
        ("[attacks.blackbox-decoder]\nbatsh = 3", "batch"),
        ("[attacks.blackbox-decoder]\ntraining.step = 3", "steps"),
        ("[attacks.blackbox-decoder]\n[defences.gausian]\nsigma = 1", "gaussian"),
        ("[attacks.blackbox-decoder]\n[defences.gaussian]\nsigm = 1", "sigma"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest(tmp_path, text, near):
    with pytest.raises(UnknownNameError) as caught:
        plan_of(text, tmp_path, defences=["gaussian"])
    assert near in caught.value.near


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("attacks = 3", "'attacks' must be a table"),
        ("[attacks]\nblackbox-decoder = 3", r"'attacks\.blackbox-decoder' must be a table"),
        ("[attacks.blackbox-decoder]\n[defences]\ngaussian = 1", r"'defences\.gaussian' must be"),
        ("[attacks.blackbox-decoder]\nbatch = 'many'", "not of type int"),
        ("[attacks", "not valid TOML"),
        ("[attacks.a]\n[attacks.a]", "not valid TOML"),
    ],
)
def test_a_preset_of_the_wrong_shape_is_a_usage_error(tmp_path, text, why):
    with pytest.raises(UsageError, match=why):
        plan_of(text, tmp_path, defences=["gaussian"])


def test_an_unknown_preset_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"preset 'quik'.*quick"):
        load_preset("quik")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_preset_file_that_cant_be_read_is_a_usage_error(tmp_path, content):
    path = tmp_path / "gone.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"can't be read.*gone\.toml"):
        load_preset(str(path))


@pytest.mark.parametrize(
    ("specs", "why"),
    [
        (["gaussian", "gaussian"], "named twice"),
        (["gaussian:sigma=1", " gaussian:sigma=1 "], "named twice"),
        (["none:beta=2"], "takes no settings"),
        (["gaussian:sigma=-1"], "sigma must be 0 or more"),
        (["gaussian:sigma=nan"], "sigma must be 0 or more"),
        (["gausian"], "Did you mean gaussian"),
        (["gaussian:sgma=1"], "Did you mean sigma"),
        ([""], "empty defence"),
    ],
)
def test_a_wrong_defence_is_a_usage_error(tmp_path, specs, why):
    with pytest.raises(UsageError, match=why):
        make_plan(
            preset=toy_preset(tmp_path), defences=specs, attacks=None, seed=0, has_prior=True,
            has_head=True,
        )  # fmt: skip
