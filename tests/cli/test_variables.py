"""Each option of each command has its variable, and the order of who outranks whom holds."""

import json

import pytest
import typer
from report.sample import sample_result

import leakaudit.cli.doctor
import leakaudit.cli.layers
import leakaudit.cli.results
import leakaudit.cli.scan  # noqa: F401 - the commands register themselves
from leakaudit.cli.app import app
from leakaudit.report.json import write_result

COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", ["scan", "gate", "report", "compare", "doctor", "layers"])
def test_every_option_has_the_variable_of_its_name(name):
    for parameter in COMMANDS[name].params:
        flag = next((text for text in parameter.opts if text.startswith("--")), None)
        if flag is not None and flag != "--help":
            wanted = "LEAKAUDIT_" + flag.removeprefix("--").replace("-", "_").upper()
            assert parameter.envvar == wanted, (name, flag)


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
