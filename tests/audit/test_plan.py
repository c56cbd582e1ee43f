import json

import pytest

from audit.toy_subject import toy_plan, toy_preset
from leakaudit.attacks import ATTACKS, CONTROLS
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.audit import plan as module
from leakaudit.audit.gates import parse_gate
from leakaudit.audit.own import Budget
from leakaudit.audit.plan import load_preset, make_plan, preset_names
from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.registry import configure
from leakaudit.core.resources import resource
from leakaudit.core.threats import Informed
from leakaudit.defences.crafter import Crafter


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


@pytest.mark.parametrize("name", preset_names())
def test_an_adaptive_attack_has_no_smaller_budget_than_its_static_sibling(name):
    """It keeps the static attack among its candidates: a weaker copy would lose to it."""
    plan = make_plan(
        preset=name, defences=["gaussian"], attacks=None, seed=0, has_prior=True, has_head=True
    )
    attacks = {attack.name: attack for attack in plan.attacks}
    pairs = [attacks[name].pairs for name in ("blackbox-ridge", "linkage") if name in attacks]
    for attack in attacks.values():
        linear = attack.holds.adaptive and hasattr(attack, "pairs") and attack.holds is not Informed
        if linear and attack.name != "adaptive-generator":  # which fits no map of its own
            assert attack.pairs >= max(pairs, default=0), attack.name
        search = getattr(attack, "latent", None)
        static = attacks.get("whitebox-latent")
        if search is not None and static is not None:
            budgets = [(a.restarts, a.samples, a.search.steps) for a in (search, static)]
            assert all(x >= y for x, y in zip(*budgets, strict=True)), attack.name


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


# -- what can't be run is left out, and said -----------------------------------------------------


def test_what_is_left_out_is_said_with_the_reason(tmp_path):
    assert toy_plan(tmp_path).left_out == ()
    bare = toy_plan(tmp_path, prior=False, head=False)
    told = {
        "whitebox-latent": "there is no prior",
        "control-prior": "there is no prior",
        "control-attributes": "there is no head",
    }
    assert dict(bare.left_out) == told
    assert bare.to_json()["left_out"] == told
    assert not told.keys() & bare.to_json()["attacks"].keys()


def test_an_attack_says_itself_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(WhiteBoxLatent, "needs", ("head", "recogniser"))
    plan = make_plan(
        preset=toy_preset(tmp_path), defences=[], attacks=None, seed=0, has_prior=True,
        has_head=False, has_recogniser=False,
    )  # fmt: skip
    assert dict(plan.left_out)["whitebox-latent"] == "there is no head and no recogniser"
    assert "whitebox-latent" in {attack.name for attack in toy_plan(tmp_path, prior=False).attacks}


def test_where_nothing_is_left_the_reasons_are_told(tmp_path):
    with pytest.raises(UsageError, match=r"No attack is left.*whitebox-latent: there is no prior"):
        toy_plan(tmp_path, attacks=["whitebox-latent"], prior=False)


# -- a user's own defence and attack -------------------------------------------------------------

OWN = """
def shift(by=1.0): return lambda features, rng: features + by
class Mine:
    holds = "BlackBox"
    def __init__(self, k): self.k = k
    def prepare(self, held, rng): pass
    def reconstruct(self, features): return features
def attack(k=1): return Mine(k)
def prior(): return Mine(1)
def needy():
    mine = Mine(1)
    mine.needs = ("prior",)
    return mine
"""


@pytest.fixture
def own(tmp_path):
    """Writes the user's file under this name and gives its path."""

    def written(name="own.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(OWN, encoding="utf-8")
        return str(path)

    return written


def test_a_users_defence_stands_beside_ours(tmp_path, own):
    path = own()
    plan = toy_plan(tmp_path, "gaussian", f"{path}:shift", f" {path}:shift:by=.5 ")
    assert [named.label for named in plan.defences] == [
        "none", "gaussian", "own.py:shift", "own.py:shift:by=.5"
    ]  # fmt: skip
    told = plan.to_json()["defences"]["own.py:shift:by=.5"]
    assert told["spec"] == "own.py:shift:by=.5" and told["settings"] == {"by": 0.5}
    assert str(tmp_path) not in json.dumps(plan.to_json())


def test_files_of_one_name_are_told_apart_and_one_file_is_named_once(tmp_path, own):
    one, other = own("a/own.py"), own("b/own.py")
    plan = toy_plan(tmp_path, f"{one}:shift", f"{other}:shift")
    assert [named.label for named in plan.defences] == ["none", "own.py:shift", "own.py:shift#2"]
    with pytest.raises(UsageError, match="named twice"):
        toy_plan(tmp_path, f"{one}:shift:by=2", f"{tmp_path}/b/../a/own.py:shift:by=2.0")


def test_a_users_attack_stands_beside_ours_under_a_name_that_gates_can_spell(tmp_path, own):
    path = own("my own.v2.py")
    plan = toy_plan(tmp_path, attacks=["blackbox-decoder", f"{path}:attack", f"{path}:attack:k=3"])
    names = [attack.name for attack in plan.attacks]
    assert names == ["blackbox-decoder", "my-own-v2-attack", "my-own-v2-attack-2"]
    for name in names:
        assert parse_gate(f"{name}.identification>0.1").attack == name
    assert [plan.to_json()["attacks"][name]["settings"] for name in names[1:]] == [{}, {"k": 3}]
    assert str(tmp_path) not in json.dumps(plan.to_json())


def test_an_attack_that_is_named_twice_runs_once(tmp_path, own, monkeypatch):
    path = own()
    monkeypatch.chdir(tmp_path)
    plan = toy_plan(tmp_path, attacks=[f"{path}:attack", "own.py:attack", "own.py:attack"])
    assert [attack.name for attack in plan.attacks] == ["own-attack"]


@pytest.mark.parametrize(
    ("file", "factory", "name"),
    [
        ("control.py", "prior", "own-control-prior"),
        ("worst.py", "attack", "worst-attack"),
        ("whitebox.py", "attack", "whitebox-attack"),
    ],
)
def test_a_users_attack_takes_no_row_of_ours(tmp_path, own, file, factory, name):
    plan = toy_plan(tmp_path, attacks=[f"{own(file)}:{factory}"])
    assert [attack.name for attack in plan.attacks] == [name]


def test_names_of_our_attacks_and_of_joined_rows_are_taken(monkeypatch):
    for name in (*ATTACKS.names(), *module.RESERVED, "control-shuffled"):
        assert module._free_name(name, {}) == f"own-{name}"
    assert module._free_name("mine", {"mine": 1, "mine-2": 1}) == "mine-3"


def test_a_users_attack_that_needs_what_is_missing_is_left_out(tmp_path, own):
    plan = toy_plan(tmp_path, attacks=["blackbox-decoder", f"{own()}:needy"], prior=False)
    assert dict(plan.left_out)["own-needy"] == "there is no prior"
    assert [attack.name for attack in plan.attacks] == ["blackbox-decoder"]


def test_a_preset_may_name_a_users_code_and_set_what_is_not_typed(tmp_path, own, monkeypatch):
    own()
    monkeypatch.chdir(tmp_path)
    text = '[attacks."own.py:attack"]\nk = 5\n[defences."own.py:shift"]\nby = 7.5'
    plan = plan_of(text, tmp_path, defences=["own.py:shift", "own.py:shift:by=1"])
    assert plan.to_json()["attacks"]["own-attack"]["settings"] == {"k": 5}
    settings = [plan.to_json()["defences"][d.label]["settings"] for d in plan.defences[1:]]
    assert settings == [{"by": 7.5}, {"by": 1}]
    with pytest.raises(UsageError, match="Settings belong into the table"):
        plan_of('[attacks."own.py:attack:k=5"]', tmp_path)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("gone.py:make", r"no such Python file.*gone\.py"),
        ("own.py", "No factory is named.*file.py:factory"),
        ("own.py:shft", "factory 'shft'.*shift"),
        ("own.py:shift:bye=1", "'bye'.*Did you mean by"),
        ("gone.mod:make", "Importing gone.mod raised ModuleNotFoundError"),
        ("own/shift:make", "neither a Python file nor a module"),
    ],
)
def test_a_wrong_name_of_a_users_code_is_a_usage_error(tmp_path, own, monkeypatch, spec, why):
    own()
    monkeypatch.chdir(tmp_path)
    for kind in ({"attacks": [spec]}, {"defences": [spec]}):
        with pytest.raises(UsageError, match=why):
            plan_of("[attacks.blackbox-decoder]", tmp_path, **kind)


# -- other packages' attacks ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"control": True}, "counts as a control"),
        ({"name": "control-mine"}, "counts as a control"),
        ({"name": "worst"}, "counts as a control"),
        ({"holds": int}, "holds none of: .*BlackBox"),
        ({"needs": ("prio",)}, "need 'prio'.*prior"),
    ],
)
def test_another_packages_attack_is_no_control_and_holds_what_we_know(monkeypatch, change, why):
    attack = WhiteBoxLatent()
    for key, value in change.items():
        monkeypatch.setattr(WhiteBoxLatent, key, value)
    with pytest.raises(UsageError, match=why):
        module._checked(attack)


PAPERS = {"paper-celeba64": 1.0, "paper-lfw128": 0.25, "paper-vggface112": Crafter().beta}


@pytest.mark.parametrize("preset", PAPERS)
def test_a_papers_preset_carries_its_numbers_into_the_resolved_plan(preset):
    plan = make_plan(
        preset=preset, defences=["crafter"], attacks=None, seed=0, has_prior=True, has_head=True
    )
    told = plan.to_json()
    latent = told["attacks"]["whitebox-latent"]
    assert (latent["search"]["steps"], latent["restarts"]) == (600, 1)
    assert told["attacks"]["whitebox-hybrid"]["descent"]["steps"] == 150
    assert told["attacks"]["adaptive-averaging"]["releases"] == 5
    assert told["attacks"]["adaptive-prior"]["latent"]["search"]["steps"] == 600
    crafter = told["defences"]["crafter"]
    assert (crafter["outer_steps"], crafter["search"]["steps"]) == (500, 80)
    assert crafter["beta"] == PAPERS[preset]
    assert told["preset"] == preset and told["left_out"] == {}


@pytest.mark.parametrize("preset", PAPERS)
def test_each_number_of_a_papers_preset_has_its_source_behind_it(preset):
    lines = resource("presets", f"{preset}.toml").read_text(encoding="utf-8").splitlines()
    settings = [line for line in lines if "=" in line and not line.startswith("#")]
    assert len(settings) > 20
    assert not [line for line in settings if "  # " not in line]


def test_a_papers_training_is_one_that_an_own_scan_takes():
    for preset in PAPERS:
        table = load_preset(preset)[1]["training"]
        configure(Budget, table, where=preset)
