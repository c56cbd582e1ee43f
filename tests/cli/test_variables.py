"""Each option of each command has its variable, and the order of who outranks whom holds."""

import json
import re
from pathlib import Path

import pytest
import typer
from report.sample import sample_result

import leakaudit.cli.doctor
import leakaudit.cli.fetch
import leakaudit.cli.layers
import leakaudit.cli.prior
import leakaudit.cli.protect
import leakaudit.cli.results
import leakaudit.cli.scan
import leakaudit.cli.study
import leakaudit.cli.tune  # noqa: F401 - the commands register themselves
from leakaudit.cli.app import app
from leakaudit.report.json import write_result

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _all(command, name=""):
    """Every command, those of groups too, by what is typed."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return {name: command}
    below = (_all(one, f"{name} {word}".strip()) for word, one in inner.items())
    return {name: found for more in below for name, found in more.items()}


COMMANDS = _all(typer.main.get_command(app))


def test_all_commands_are_looked_at():
    assert {
        "scan", "protect", "tune", "gate", "report", "compare", "prior train", "layers", "doctor",
        "fetch", "presets", "study make", "study score",
    } == set(COMMANDS)  # fmt: skip


OWN = {
    ("study score", "--key"): "LEAKAUDIT_STUDY_KEY",  # LEAKAUDIT_KEY is protect's secret
    ("protect", "--seed"): "LEAKAUDIT_PROTECT_SEED",  # a scan's must not stand for the secret
    ("protect", "--batch-size"): "LEAKAUDIT_PROTECT_BATCH_SIZE",
    ("protect", "--fail-on"): "LEAKAUDIT_PROTECT_FAIL_ON",  # a scan's reads other rows
    ("report", "--layer"): "LEAKAUDIT_REPORT_LAYER",
}
"""Where an option of the same name means something else."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_the_variable_of_its_name(name):
    for parameter in COMMANDS[name].params:
        flag = next((text for text in parameter.opts if text.startswith("--")), None)
        if flag is not None and flag != "--help":
            wanted = "LEAKAUDIT_" + flag.removeprefix("--").replace("-", "_").upper()
            wanted = OWN.get((name, flag), wanted)
            assert parameter.envvar == wanted, (name, flag)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_docs_and_has_a_help_text(name):
    told = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    for parameter in COMMANDS[name].params:
        for flag in (text for text in parameter.opts if text.startswith("--")):
            assert re.search(rf"{flag}(?![a-z-])", told), f"{name} {flag} is not in docs/"
            assert parameter.help, f"{name} {flag}"


@pytest.mark.parametrize(
    ("table", "command", "told"),
    [
        ("[tune]\nevaluations = 0", ["tune", "--demo"], "evaluations"),
        ("[tune]\nevaluation = 3", ["tune", "--demo"], "Did you mean evaluations"),
        ("[protect]\nshard = '3/2'", ["protect", "--demo", "--beta", "1", "--out", "o"], "3/2"),
        ("[protect]\nshard_sise = 3", ["protect", "--demo"], "Did you mean shard-size"),
        ("[study.make]\nquestions = 0", ["study", "make", "run", "--out", "o"], "questions"),
        ("[study.mak]\nseed = 1", ["study", "make", "run", "--out", "o"], "Did you mean make"),
        ("[study]\nmake = 1", ["study", "make", "run", "--out", "o"], "must be a table"),
        ("[prior.train]\nsize = 8", ["prior", "train", "--public", "p", "--out", "o"], "size"),
        ("[prior.train]\nsteps = true", ["prior", "train"], "not a word or number"),
        ("[prior.trian]\nsteps = 9", ["prior", "train"], "Did you mean train"),
        ("[fetch]\nsha256 = 'x'", ["fetch", "--list"], "--list goes alone"),
    ],
)
def test_the_file_sets_options_of_every_command_and_is_strict(leakaudit, tmp_path, table, command,
                                                              told):  # fmt: skip
    (tmp_path / "work" / "leakaudit.toml").write_text(table)
    done = leakaudit(*command)
    assert done.code == 2, done.said
    assert told.lower() in done.said.lower()


@pytest.mark.parametrize(
    ("variables", "command", "told"),
    [
        ({"EVALUATIONS": "0"}, ["tune", "--demo"], "evaluations"),
        ({"OUT": "o", "BETA": "-1"}, ["protect", "--demo"], "no number from 0"),
        ({"OUT": "o", "QUESTIONS": "0"}, ["study", "make", "run"], "questions"),
        ({"STUDY_KEY": "gone.json"}, ["study", "score", "answers.csv"], "gone.json"),
        ({"OUT": "o.x", "PUBLIC": "gone"}, ["prior", "train"], "o.x"),
        ({"SHA256": "xyz"}, ["fetch", "facenet:vggface2"], "64 hexadecimal digits"),
    ],
)
def test_a_variable_stands_for_the_option_that_was_not_typed(
    leakaudit, monkeypatch, variables, command, told
):
    for name, value in variables.items():
        monkeypatch.setenv(f"LEAKAUDIT_{name}", value)
    done = leakaudit(*command)
    assert done.code == 2, done.said
    assert told.lower() in done.said.lower()


@pytest.fixture
def result(tmp_path):
    return write_result(sample_result("ungated"), tmp_path / "result.json")


def test_for_a_gate_a_flag_outranks_the_variable_which_outranks_the_file(
    leakaudit, result, monkeypatch, tmp_path
):
    (tmp_path / "work" / "leakaudit.toml").write_text("[gate]\nfail-on = 'psnr<>1'\n")
    assert leakaudit("gate", result).code == 2
    monkeypatch.setenv("LEAKAUDIT_FAIL_ON", "none.worst.identification>0.5")
    assert leakaudit("gate", result).code == 1
    assert leakaudit("gate", result, "--fail-on", "utility.auc_drop>0.9").code == 0


def test_a_policy_may_come_from_the_variable(leakaudit, result, monkeypatch, tmp_path):
    policy = tmp_path / "p.toml"
    policy.write_text('[[gate]]\nexpr = "none.worst.identification>0.5"\n')
    monkeypatch.setenv("LEAKAUDIT_POLICY", str(policy))
    assert leakaudit("gate", result).code == 1


@pytest.mark.parametrize("name", ["LEAKAUDIT_POLICY", "LEAKAUDIT_FAIL_ON"])
def test_an_empty_variable_of_a_gate_is_no_gate_and_is_refused(leakaudit, monkeypatch, name):
    """A variable that CI doesn't know comes as an empty one: nothing would be checked."""
    monkeypatch.setenv(name, "")
    done = leakaudit("scan", "--demo")
    assert done.code == 2
    assert f"{name} is set, and empty" in done.said


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("LEAKAUDIT_PROTECT_FAIL_ON", ("protect", "--demo", "--beta", "2", "--verify", "8")),
        ("LEAKAUDIT_TARGET", ("tune", "--demo")),
    ],
)
def test_other_commands_refuse_an_empty_one_too(leakaudit, monkeypatch, tmp_path, name, asked):
    monkeypatch.setenv(name, "")
    more = ("--out", str(tmp_path / "out")) if asked[0] == "protect" else ()
    done = leakaudit(*asked, *more)
    assert done.code == 2
    assert f"{name} is set, and empty" in done.said
    assert not (tmp_path / "out").exists()


def test_a_gate_that_cannot_fail_is_warned_of(leakaudit, result):
    done = leakaudit("gate", result, "--fail-on", "identification>1")
    assert "Warning: gate 'identification>1' can't fail" in done.err


def test_a_report_goes_where_the_variable_says_unless_a_flag_does(
    leakaudit, result, monkeypatch, tmp_path
):
    monkeypatch.setenv("LEAKAUDIT_OUTPUT", f"{tmp_path}/a.md {tmp_path}/b.html")
    assert leakaudit("report", result).code == 0
    assert (tmp_path / "a.md").exists() and (tmp_path / "b.html").exists()
    assert leakaudit("report", result, "-o", tmp_path / "c.md").code == 0
    assert sorted(path.name for path in tmp_path.glob("*.md")) == ["a.md", "c.md"]


def test_doctor_and_layers_read_their_variables_and_files(leakaudit, monkeypatch, tmp_path):
    (tmp_path / "work" / "leakaudit.toml").write_text("[doctor]\nformat = 'json'\n")
    assert "environment" in json.loads(leakaudit("doctor").out)
    monkeypatch.setenv("LEAKAUDIT_FORMAT", "text")
    assert not leakaudit("doctor").out.startswith("{")
    (tmp_path / "work" / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 4, 4))\n"
    )
    monkeypatch.setenv("LEAKAUDIT_FORMAT", "json")
    monkeypatch.setenv("LEAKAUDIT_INPUT_SIZE", "16")
    assert json.loads(leakaudit("layers", "net.py:make").out)["input_size"] == [16, 16]
    again = leakaudit("layers", "net.py:make", "--input-size", "32", "--format", "json")
    assert json.loads(again.out)["input_size"] == [32, 32]


@pytest.mark.parametrize("columns", ["60", "80", "100"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_told_whole_in_narrow_terminals(leakaudit, monkeypatch, name, columns):
    monkeypatch.setenv("COLUMNS", columns)
    told = leakaudit(*name.split(), "--help").out
    whole = re.sub(r"[\s│]+", "", told)
    for parameter in COMMANDS[name].params:
        assert re.sub(r"\s+", "", parameter.help or "") in whole, parameter.name
    assert max(map(len, told.splitlines())) <= int(columns)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LEAKAUDIT_FAILON", "LEAKAUDIT_FAIL_ON"),
        ("LEAKAUDIT_POLICI", "LEAKAUDIT_POLICY"),
        ("LEAKAUDIT_OFLINE", "LEAKAUDIT_OFFLINE"),
        ("LEAKAUDIT_STUDYKEY", "LEAKAUDIT_STUDY_KEY"),
        ("LEAKAUDIT_POLICYS", "LEAKAUDIT_POLICY"),
        ("LEAKAUDIT_POLICY_FILE", "LEAKAUDIT_POLICY"),
        ("LEAKAUDIT_SCAN_FAIL_ON", "LEAKAUDIT_FAIL_ON"),
    ],
)
def test_a_mistyped_variable_is_no_gate_that_is_silently_none(
    leakaudit, result, monkeypatch, name, meant
):
    monkeypatch.setenv(name, "none.worst.identification>0.5")
    done = leakaudit("gate", result)
    assert done.code == 2
    assert f"No option reads the variable {name}. Did you mean {meant}?" in done.said
    assert leakaudit("gate", "--help").code == 0


@pytest.mark.parametrize("name", ["LEAKAUDIT_SERVICE_HOST", "LEAKAUDIT_IMAGE"])
def test_a_variable_like_none_of_ours_is_warned_of(leakaudit, result, monkeypatch, name):
    monkeypatch.setenv(name, "10.0.0.1")
    done = leakaudit("gate", result, "--fail-on", "utility.auc_drop>0.9")
    assert done.code == 0
    assert f"Warning: no option reads {name};" in done.said


def test_variables_that_are_no_options_are_known(leakaudit, result, monkeypatch):
    for name in ("DEBUG", "DATA", "OFFLINE", "CACHE"):
        monkeypatch.setenv(f"LEAKAUDIT_{name}", "0")
    done = leakaudit("gate", result, "--fail-on", "utility.auc_drop>0.9")
    assert done.code == 0
    assert "no option reads" not in done.said
