"""Outputs that don't spoil each other, commands told without folders, settings for others."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace

import pytest
from report.sample import sample_result, tuned_result

import leakaudit.cli.doctor
import leakaudit.cli.protect  # noqa: F401 - the commands register themselves
from leakaudit.audit.store import RunStore
from leakaudit.audit.study_file import FILE
from leakaudit.cli import running
from leakaudit.cli.progress import Reporter
from leakaudit.report.json import write_result


@pytest.fixture
def result(tmp_path):
    return write_result(sample_result("ungated"), tmp_path / "result.json")


# -- outputs


@pytest.mark.parametrize(
    "outputs",
    [("json:x.out", "html:x.out"), ("x.md", "markdown:./x.md"), ("-", "html:-")],
)
def test_two_outputs_at_one_place_are_refused(leakaudit, result, outputs):
    done = leakaudit("report", result, *(word for path in outputs for word in ("-o", path)))
    assert done.code == 2 and "Two outputs at one place" in done.said
    assert not done.out


@pytest.mark.parametrize("command", [("report",), ("gate", "--fail-on", "identification>0.99")])
def test_no_page_replaces_the_result_that_it_was_made_from(leakaudit, result, command):
    before = result.read_bytes()
    for told in (result, result.parent):
        done = leakaudit(*command[:1], told, *command[1:], "-o", f"html:{result}")
        assert done.code == 2 and "replace the result that is read" in done.said
    assert result.read_bytes() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    ("gate", "code"), [("identification>0.01", 1), ("identification>0.999", 4)]
)
def test_a_breach_outranks_an_output_that_cannot_be_written(
    leakaudit, result, gate, code, tmp_path
):
    kept = tmp_path / "kept.json"
    done = leakaudit(
        "gate", result, "--fail-on", gate, "-o", "html:/dev/full", "-o", f"json:{kept}"
    )
    assert done.code == code
    assert "/dev/full" in done.said
    assert json.loads(kept.read_text())["gates"]  # the others are written all the same
    assert ("FAIL" if code == 1 else "PASS") in done.out


# -- what goes to the report of the command


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["/home/Ada Lovelace/faces"], "faces"),
        (["html:out/of many/report.html"], "html:report.html"),
        (["/a b/x.py:f,/b/y.py:g"], "x.py:f,y.py:g"),
        (["my.py:f,sub/dir/x.py:g"], "my.py:f,x.py:g"),
        (["/a/b c/net.py:make:key=/d e/f"], "net.py:make:key=f"),
        (["crafter:beta=4"], "crafter:beta=4"),
        (["--images", "/data/clinic=St. Mary/p:2/pub"], "--images pub"),
        (["--policy", "/mnt/Jane Doe,Acme/policy.toml"], "--policy policy.toml"),
        (["--run-dir=/a=b c/d"], "--run-dir=d"),
        (["--weights", "--images", "x"], "--weights --images x"),
    ],
)
def test_the_command_is_told_without_folders(monkeypatch, typed, told):
    monkeypatch.setattr(sys, "argv", ["leakaudit", *typed])
    assert running.command_line() == f"leakaudit {told}"


# -- a run folder used again


def test_a_run_folder_used_again_keeps_nothing_of_the_earlier_scan(tmp_path):
    folder = tmp_path / "run"
    RunStore(folder, resume=False)
    stale = [folder / name for name in ("report-layer1.html", "result-study.json", FILE)]
    for path in stale:
        path.write_text("of another scan")
        os.utime(path, (time.time() - 60,) * 2)
    store = RunStore(folder, resume=False)
    with Reporter(quiet=True, verbose=False, to_stdout=True) as say:
        running.finish(replace(sample_result("ungated"), seconds={"scan": 1.0}), store, [], say)
    assert not any(path.exists() for path in stale)
    assert (folder / "result.json").is_file() and (folder / "report.html").is_file()


def test_what_a_scan_kept_for_a_study_stays(tmp_path):
    store = RunStore(tmp_path / "run", resume=False)
    (store.folder / FILE).write_text("of this scan")
    with Reporter(quiet=True, verbose=False, to_stdout=True) as say:
        running.finish(replace(sample_result("ungated"), seconds={"scan": 1.0}), store, [], say)
    assert (store.folder / FILE).is_file()


# -- settings that were meant for another command


def test_the_seed_of_scans_does_not_stand_for_the_secret_key_of_protect(leakaudit, monkeypatch):
    words = ("protect", "--encoder", "net.py:make", "--layer", "last", "--images", "nowhere",
             "--prior", "p.safetensors", "--beta", "2", "--out", "o")  # fmt: skip
    monkeypatch.setenv("LEAKAUDIT_SEED", "0")
    done = leakaudit(*words)
    assert done.code == 2 and "secret key" in done.said
    monkeypatch.setenv("LEAKAUDIT_PROTECT_SEED", "0")
    assert "secret key is needed" not in leakaudit(*words).said


def test_a_configured_encoder_does_not_keep_the_doctor_from_the_machine(leakaudit, tmp_path):
    config = tmp_path / "work" / "leakaudit.toml"
    config.write_text("[encoder]\nspec = 'net.py:make'\n")
    done = leakaudit("doctor", "--format", "json")
    assert done.code == 0 and json.loads(done.out)["encoder"] is None
    assert "Only the machine is looked at" in done.said
    assert leakaudit("doctor", "--images", "faces").code == 2  # there is none
    config.unlink()
    done = leakaudit("doctor", "--encoder", "net.py:make")
    assert done.code == 2 and "needs --encoder and --images" in done.said


def test_a_project_that_says_nothing_of_leakaudit_is_passed_over(leakaudit, result, tmp_path,
                                                                 monkeypatch):  # fmt: skip
    (tmp_path / "work" / "leakaudit.toml").write_text("[gate]\nfail-on = 'identification>0.01'\n")
    inner = tmp_path / "work" / "package"
    inner.mkdir()
    monkeypatch.chdir(inner)
    assert leakaudit("gate", result).code == 1
    (inner / "pyproject.toml").write_text("[project]\nname = 'package'\n")
    assert leakaudit("gate", result).code == 1
    (inner / "pyproject.toml").write_text("[tool.leakaudit.gate]\nfail-on = 'identification>1'\n")
    assert leakaudit("gate", result).code == 0
    (inner / "pyproject.toml").write_text("[tool]\nleakaudit = 3\n")
    done = leakaudit("gate", result)
    assert done.code == 2 and "tool.leakaudit must be a table" in done.said


@pytest.mark.parametrize("words", [("--attacked-pictures", "3"), ("--no-cache",)])
def test_the_demo_ignores_no_option_silently(leakaudit, words):
    done = leakaudit("scan", "--demo", *words)
    assert done.code == 2 and f"can't take {words[0]}" in done.said


# -- results that are odd, and yet can be read


def test_a_tuned_setting_of_any_name_is_told(leakaudit, tmp_path):
    base = tuned_result()
    odd = replace(base.tuning[0], knob="[/b]sigma", targets=("worst.identification<=1e999",))
    path = write_result(replace(base, tuning=(odd,)), tmp_path / "r.json")
    done = leakaudit("gate", path, "--fail-on", "identification>0.99", "-o", tmp_path / "r.html")
    assert done.code in (0, 1) and "[/b]sigma" in done.out


def test_labels_are_told_as_they_are(leakaudit, tmp_path):
    base = sample_result("ungated")
    doubt = replace(
        base.doubts[0], severity="serious", why="fell on my.py:factory:x=2 and [/b]other"
    )
    path = write_result(replace(base, doubts=(doubt,)), tmp_path / "r.json")
    done = leakaudit("gate", path, "--fail-on", "identification>0.99")
    assert "my.py:factory:x=2" in " ".join(done.out.split())
    assert "[/b]other" in " ".join(done.out.split())


@pytest.mark.parametrize("value", [None, 3e4, 1e40])
def test_odd_faces_make_a_page_all_the_same(leakaudit, tmp_path, value):
    base = sample_result("ungated")
    scores = tuple(
        replace(s, per_face=(value, value), floor=None, ceiling=None) if s.per_face else s
        for s in base.scores
    )
    assert any(s.per_face for s in scores)
    path = write_result(replace(base, scores=scores), tmp_path / "r.json")
    assert leakaudit("report", path, "-o", tmp_path / "r.html").code == 0
    assert (tmp_path / "r.html").stat().st_size < 2_000_000
