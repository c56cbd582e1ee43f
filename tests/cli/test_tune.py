import pytest
from audit.toy_subject import toy_preset, train_once

import leakaudit.cli.tune  # noqa: F401 - the command registers itself
from leakaudit.report.json import read_result


@pytest.fixture(autouse=True)
def _trained_once(monkeypatch):
    train_once(monkeypatch)


@pytest.fixture
def tune(leakaudit, tmp_path):
    """Tunes noise on the toy in the demo's place, by one attack."""

    def run(*arguments, steps=300):
        preset = toy_preset(tmp_path, steps=steps)
        fixed = ("--demo", "--preset", preset, "--attacks", "blackbox-decoder")
        people = ("--attacked-people", "32", "--run-dir", tmp_path / "run")
        few = () if "--evaluations" in arguments else ("--evaluations", "4")
        noise = () if "--defence" in arguments else ("--defence", "gaussian")
        return leakaudit("tune", *fixed, *people, *few, *noise, *arguments)

    return run


def test_tune_says_the_setting_and_ends_with_the_verdicts_code(tune, tmp_path):
    done = tune("--target", "worst-static.identification<=0.3")
    assert done.code == 0, done.out + done.err
    assert "chosen" in done.out
    assert done.out.splitlines()[-1].startswith("PASS")
    kept = read_result(tmp_path / "run" / "result.json")
    assert kept.tuning[0].status == "met"
    html = (tmp_path / "run" / "report.html").read_text()
    assert kept.tuning[0].label in html
    assert "Settings of gaussian:sigma=auto" in html
    assert "leakaudit scan ... --defence" in html


def test_a_gate_on_a_tuned_result_reads_each_setting(tune, leakaudit, tmp_path):
    tune("--target", "worst-static.identification<=0.3", "--values", "0.1", "--evaluations", "1")
    result = tmp_path / "run" / "result.json"
    assert leakaudit("gate", result, "--fail-on", "worst-static.identification>0.5").code == 1


def test_a_target_that_cannot_be_met_ends_with_one(tune):
    done = tune("--target", "worst-static.psnr<=1", "--evaluations", "2", steps=20)
    assert done.code == 1
    assert "can't be met" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--target", "identification"), "target can't be read"),
        (("--defence", "crafter:beta=2"), "beta is what is searched"),
        (("--between", "5,1"), "--between 5,1"),
        (("--target", "none.worst.identification<=0.1"), "names no defence"),
        (("--target", "identification<=0.1@value", "--surely"), "opposite"),
        (("--defence", "none"), "no setting"),
        (("--defence", "gaussian:sigm=auto"), "sigma"),
        (("--values", "1,zero"), "--values"),
        (("--between", "3"), "Two numbers"),
        (("--between", "3,1"), "the least first"),
        (("--resume",), "--resume needs"),
        (("--target", "worst-static.identificaton<=0.1"), "identification"),
    ],
)
def test_what_cannot_be_tuned_is_wrong_usage(leakaudit, tmp_path, arguments, why):
    preset = toy_preset(tmp_path, steps=6)
    few = ("--demo", "--preset", preset, "--attacks", "blackbox-decoder")
    done = leakaudit("tune", *few, "--attacked-people", "8", *arguments)
    assert done.code == 2, done.err
    assert why in done.said
    assert done.out == ""


def test_a_scan_tunes_first_where_a_setting_is_auto(scan, tmp_path):
    spec = "gaussian:sigma=auto,target=worst-static.identification<=0.5"
    done = scan("--defence", spec, attacked=32, steps=300)
    assert done.code == 0, done.err
    assert "Tuned: sigma=" in done.said
    result = read_result(tmp_path / "run" / "result.json")
    labels = list(result.plan["defences"])
    assert len(labels) == 2
    (doubt,) = [doubt for doubt in result.doubts if doubt.id == "tuned-here"]
    assert doubt.severity == "note"
    assert labels[1] in doubt.why and "worst-static.identification<=0.5" in doubt.why
    assert "had no say" in doubt.why
    assert doubt.bears_on(labels[1], "worst") and not doubt.bears_on("none", "worst")
    assert labels[1].startswith("gaussian:sigma=")
    assert "auto" not in labels[1]


def test_a_scan_whose_target_cannot_be_met_says_so(scan):
    spec = "gaussian:sigma=auto,target=worst-static.psnr<=1"
    done = scan("--defence", spec, attacked=8, steps=6)
    assert done.code == 2
    assert "No setting meets the target" in done.said


@pytest.mark.parametrize(
    ("command", "arguments", "why"),
    [
        ("scan", ("--attacks", "blackbox-decodr"), "blackbox-decoder"),
        ("scan", ("--defence", "crafter:beta=auto", "--defence", "gausian"), "gaussian"),
        ("scan", ("--defence", "crafter:betta=auto"), "beta"),
        ("tune", ("--attacks", "blackbox-decodr"), "blackbox-decoder"),
        ("tune", ("--defence", "crafterz"), "crafter-z"),
    ],
)
def test_a_misspelt_name_is_told_before_anything_is_read(leakaudit, command, arguments, why):
    own = ("--encoder", "torchvision:resnet18", "--layer", "layer1")
    done = leakaudit(command, *own, "--images", "nowhere", "--public", "nowhere", *arguments)
    assert done.code == 2
    assert why in done.said and "nowhere" not in done.said


def test_a_target_that_no_row_has_is_told_before_the_search(tune, monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the search began")

    monkeypatch.setattr("leakaudit.audit.tune.tune", never)
    done = tune("--target", "worst-static.identificaton<=0.1")
    assert done.code == 2
    assert "identification" in done.said
