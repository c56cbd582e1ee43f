import errno
import json
import os
import stat

import pytest
from audit.toy_subject import toy_subject

from leakaudit.attacks import decoder
from leakaudit.audit import run as run_module
from leakaudit.audit import scan as scan_module
from leakaudit.demo import load
from leakaudit.report.json import read_result

LEAK = "identification>0.5"


def test_a_scan_without_a_gate_ends_with_zero_and_says_where_the_report_is(scan, tmp_path):
    done = scan()
    assert done.code == 0
    assert done.out.splitlines()[-1].startswith("MEASURED")
    assert str(tmp_path / "run" / "report.html") in done.said
    assert "encoder passes" in done.said
    run = tmp_path / "run"
    assert sorted(p.name for p in run.iterdir()) == [
        ".gitignore",
        ".leakaudit-run",
        "report.html",
        "result.json",
    ]
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert read_result(run / "result.json").verdict.exit_code == 0


def test_a_gate_that_holds_ends_with_zero(scan):
    done = scan("--fail-on", "psnr>99", "--fail-on", "ssim>1", attacked=32, steps=300)
    assert done.code == 0, done.out
    assert done.out.splitlines()[-1].startswith("PASS")


def test_a_breach_ends_with_one_whatever_the_doubts(scan):
    done = scan("--fail-on", LEAK, "--fail-on", "unknown>1")
    assert done.code == 1
    assert done.out.splitlines()[-1].startswith("FAIL")


@pytest.mark.parametrize("gate", ["identificaton>0.5", "psnr>99"])
def test_an_undecided_gate_ends_with_three(scan, gate):
    done = scan("--fail-on", gate)  # eight faces are too few for a pass
    assert done.code == 3
    assert done.out.splitlines()[-1].startswith("INCONCLUSIVE")
    assert ("Warning: gate" in done.said) == (gate != "psnr>99")


@pytest.mark.parametrize("more", [[], ["--quiet"]])
def test_a_misspelt_gate_is_told_before_the_scan(scan, monkeypatch, more):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_module, "scan_layers", stop)
    done = scan("--fail-on", "identificaton>0.5", "--fail-on", "identification>0.5", *more)
    assert done.code == 130
    assert done.said.count("Warning: ") == 1
    assert (
        "Warning: gate 'identificaton>0.5' will end inconclusive: metric 'identificaton' is not in "
        "this plan. Did you mean identification" in done.said
    )


def test_a_policys_misspelt_gate_and_baseline_are_told_before_the_scan(
    scan, monkeypatch, result_file, tmp_path
):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_module, "scan_layers", stop)
    (tmp_path / "p.toml").write_text(
        f'[[gate]]\nexpr = "worts.ssim>0.5"\n[[baseline]]\nrow = "worst.sim"\n'
        f'result = "{result_file}"\n'
    )
    done = scan("--policy", tmp_path / "p.toml")
    assert done.code == 130
    assert "gate 'worts.ssim>0.5' will end inconclusive" in done.said
    assert "gate 'worst.sim' will end inconclusive" in done.said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fail-on", "identification"], "gate can't be read"),
        (["--fail-on", "identification>many"], "--fail-on"),
        (["--preset", "quik"], "Did you mean quick?"),
        (["--preset", "gone.toml"], "preset can't be read"),
        (["--attacks", "blackbox-decodr"], "Did you mean blackbox-decoder"),
        (["--attacks", ","], "No attack is left"),
        (["--defence", "gausian"], "Did you mean gaussian?"),
        (["--defence", "gaussian:sigm=1"], "Did you mean sigma?"),
        (["--defence", "gaussian:sigma=loud"], "not of type float"),
        (["--device", "mps"], "run on cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "no device 'cuda:99'"),
        (["--batch-size", "0"], "whole number from 1"),
        (["--batch-size", "many"], "neither auto nor"),
        (["-o", "report.pdf"], "kind of this output isn't known"),
        (["-o", "pdf:report.html"], "Unknown output kind 'pdf'"),
        (["-o", ""], "kind of this output"),
        (["-o", "-", "--format", "pdf"], "Unknown output kind 'pdf'"),
        (["--images", "faces"], "brings its own"),
        (["--seed", "one"], "seed"),
        (["--gallery", "all"], "gallery"),
        (["--attacked-people", "0"], "attacked-people"),
        (["--failon", "a>1"], "--fail-on"),
        (["--demoo"], "--demo"),
        (["surplus"], "surplus"),
    ],
)
def test_wrong_usage_ends_with_two_and_says_what_is_wrong(scan, tmp_path, arguments, told):
    done = scan(*arguments)
    assert done.code == 2
    assert told.lower() in done.said.lower()
    assert done.out == ""
    assert not (tmp_path / "run" / "result.json").exists()


def test_resume_needs_a_run_folder(leakaudit):
    done = leakaudit("scan", "--demo", "--resume")
    assert done.code == 2
    assert "--run-dir" in done.said


def test_a_file_as_a_run_folder_is_wrong_usage(leakaudit, tmp_path):
    (tmp_path / "r.json").write_text("")
    done = leakaudit("scan", "--demo", "--run-dir", str(tmp_path / "r.json"))
    assert done.code == 2
    assert "This is a file" in done.said


def test_a_scan_of_nothing_says_what_is_missing(leakaudit):
    done = leakaudit("scan")
    assert done.code == 2
    for word in ("--encoder", "--images", "--public", "--layer", "--demo"):
        assert word in done.said


OWN = ("scan", "--encoder", "net.py:make", "--input-size", "32")
NET = """
from torch import nn
def make():
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
"""


@pytest.fixture
def own(leakaudit, tmp_path):
    """Scans folders with a small network of the user's own."""
    (tmp_path / "work" / "net.py").write_text(NET)

    def run(*arguments, layer="0"):
        return leakaudit(*OWN, "--layer", layer, "--public", tmp_path.parent / "public", *arguments)

    return run


def _picture(path, shade):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), (shade, 90, 120)).save(path)


def test_a_missing_folder_ends_with_two(own, tmp_path):
    done = own("--images", tmp_path / "gone")
    assert done.code == 2
    assert "gone" in done.said


def test_a_folder_without_pictures_ends_with_two(own, tmp_path):
    (tmp_path / "faces").mkdir()
    done = own("--images", tmp_path / "faces")
    assert done.code == 2
    assert "no pictures" in done.said


def test_one_person_alone_ends_with_two(own, tmp_path):
    for shade in (10, 80, 200):
        _picture(tmp_path / "faces" / "ada" / f"{shade}.png", shade)
    done = own("--images", tmp_path / "faces")
    assert done.code == 2
    assert "Only one person" in done.said


def test_an_unknown_layer_ends_with_two_and_the_known_names(own, tmp_path):
    done = own("--images", tmp_path, layer="conv9")
    assert done.code == 2
    assert "Unknown layer 'conv9'" in done.said
    assert "last" in done.said


def test_features_that_are_not_numbers_end_with_two(scan, monkeypatch):
    from audit.toy_subject import Broken

    monkeypatch.setattr(
        load, "demo_subject", lambda seed, *, attacked: toy_subject(Broken(), attacked=8)
    )
    done = scan()
    assert done.code == 2
    assert "NaN" in done.said


def _raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ZeroDivisionError("by zero"), "failed unexpectedly (ZeroDivisionError: by zero)"),
        (MemoryError(), "ran out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "ran out of memory"),
        (RuntimeError("x" * 40), "This is a bug"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ""),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (SystemExit(1), ""),
    ],
)
def test_a_crash_ends_with_four_and_never_looks_like_a_breach(scan, monkeypatch, error, told):
    monkeypatch.setattr(scan_module, "run", _raising(error))
    done = scan()
    assert done.code == 4
    assert told in done.said


def test_a_crash_shows_its_trace_on_request(scan, monkeypatch, capsys):
    from leakaudit.cli import app

    monkeypatch.setattr(scan_module, "run", _raising(ZeroDivisionError("by zero")))
    monkeypatch.setenv("LEAKAUDIT_DEBUG", "1")
    assert app.run(["scan", "--demo", "--defence", "none"]) == 4
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["stages", "result"])
def test_a_full_disk_ends_with_four_and_says_so(scan, monkeypatch, which):
    real = os.replace

    def full(source, target):
        if (which == "stages") == ("stages" in str(target)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    done = scan()
    assert done.code == 4
    assert "No space left" in done.said
    assert "Free some space" in done.said


def test_an_unwritable_output_is_refused_before_the_scan(scan, tmp_path):
    (tmp_path / "file").write_text("")
    done = scan("-o", tmp_path / "file" / "report.html")
    assert done.code == 2
    assert "Nothing can be written" in done.said
    assert not (tmp_path / "run" / "result.json").exists()


def test_an_output_that_became_unwritable_ends_with_four_and_keeps_the_result(
    scan, tmp_path, monkeypatch
):
    real = decoder.DecoderTrained.reconstruct

    def meanwhile(self, features, rng):
        (tmp_path / "folder").write_text("")  # somebody's file, where the report's folder was to be
        return real(self, features, rng)

    monkeypatch.setattr(decoder.DecoderTrained, "reconstruct", meanwhile)
    done = scan("-o", tmp_path / "folder" / "report.html")
    assert done.code == 4
    assert (tmp_path / "run" / "result.json").is_file()


def test_an_interruption_ends_with_130_and_says_how_to_go_on(scan, monkeypatch, tmp_path):
    real, calls = decoder.DecoderTrained.reconstruct, []

    def stopped(self, features, rng):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, features, rng)

    monkeypatch.setattr(decoder.DecoderTrained, "reconstruct", stopped)
    done = scan("--defence", "gaussian:sigma=0.5")
    assert done.code == 130
    assert "Interrupted." in done.said
    assert f"--resume --run-dir {tmp_path / 'run'}" in done.said.replace("/ ", "/")
    assert list((tmp_path / "run" / "stages").glob("*.safetensors"))
    again = scan("--defence", "gaussian:sigma=0.5", "--resume")
    assert again.code == 0
    assert len(calls) == 3  # the first of both was not made again
    assert not (tmp_path / "run" / "stages").exists()


def test_dash_puts_pure_json_on_stdout(scan, tmp_path):
    done = scan("-o", "-", "-o", tmp_path / "copy.html", "-o", f"json:{tmp_path / 'copy'}")
    assert done.code == 0
    assert json.loads(done.out) == json.loads((tmp_path / "copy").read_text())
    assert "MEASURED" in done.err
    assert (tmp_path / "copy.html").read_text().startswith("<!")
    html = scan("-o", "-", "--format", "html")
    assert html.out.startswith("<!")


def test_the_command_is_told_without_folders(scan, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["leakaudit", "scan", "--run-dir", str(tmp_path / "run")])
    scan()
    assert read_result(tmp_path / "run" / "result.json").command == "leakaudit scan --run-dir run"


def test_quiet_says_nothing_but_the_result(scan):
    done = scan("--quiet")
    assert done.err == ""
    assert "MEASURED" in done.out


def test_verbose_says_every_step_and_what_each_took(scan):
    done = scan("-v")
    assert done.code == 0
    assert "blackbox-decoder on none (" in done.err
    assert "s  blackbox-decoder on none" in done.err
    assert "blackbox-decoder on none" not in scan().err
    assert scan("-v", "-q").code == 2


def test_the_step_summary_is_added_where_github_wants_it(scan, monkeypatch, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert scan().code == 0
    text = summary.read_text()
    assert text.startswith("before\n")
    assert "leakaudit: Measured" in text


def test_a_step_summary_that_cant_be_written_fails_nothing(scan, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    done = scan()
    assert done.code == 0
    assert "summary can't be written" in done.said


def test_progress_in_a_log_is_a_line_and_no_bar(scan, monkeypatch):
    monkeypatch.setenv("CI", "1")
    done = scan()
    assert "rendering the demo's people" in done.err
    assert "\x1b" not in done.err + done.out
    assert "━" not in done.err


def _seen_plan(monkeypatch):
    seen = []

    class EnoughError(Exception):
        pass

    def stop(subject, plan, *_):
        seen.append(plan)
        raise EnoughError

    monkeypatch.setattr(scan_module, "run", stop)
    return seen


def test_a_flag_outranks_the_environment_which_outranks_the_file_and_the_default(
    leakaudit, monkeypatch, tmp_path
):
    seen = _seen_plan(monkeypatch)
    base = ("scan", "--demo", "--defence", "none", "--run-dir", str(tmp_path / "run"))
    leakaudit(*base)
    (tmp_path / "work" / "leakaudit.toml").write_text("[scan]\nseed = 1\n")
    leakaudit(*base)
    monkeypatch.setenv("LEAKAUDIT_SEED", "2")
    leakaudit(*base)
    leakaudit(*base, "--seed", "3")
    assert [plan.seed for plan in seen] == [0, 1, 2, 3]


def test_the_file_may_set_lists_flags_and_one_of_a_list(leakaudit, monkeypatch, tmp_path):
    seen = _seen_plan(monkeypatch)
    file = tmp_path / "work" / "leakaudit.toml"
    file.write_text("[scan]\ndemo = true\ndefence = ['gaussian', 'gaussian:sigma=2']\n")
    leakaudit("scan")
    file.write_text("[scan]\ndemo = true\ndefence = 'gaussian:sigma=3'\nattacked-people = 4\n")
    leakaudit("scan")
    labels = [[named.label for named in plan.defences] for plan in seen]
    assert labels == [["none", "gaussian", "gaussian:sigma=2"], ["none", "gaussian:sigma=3"]]


def test_the_nearest_pyproject_is_read_from_a_folder_below(leakaudit, monkeypatch, tmp_path):
    seen = _seen_plan(monkeypatch)
    (tmp_path / "work" / "pyproject.toml").write_text(
        "[project]\nname = 'x'\n[tool.leakaudit.scan]\nseed = 7\ndemo = true\n"
    )
    (tmp_path / "work" / "below").mkdir()
    monkeypatch.chdir(tmp_path / "work" / "below")
    leakaudit("scan")
    assert [plan.seed for plan in seen] == [7]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[scn]\nseed = 1", "Unknown command 'scn'"),
        ("seed = 1", "Unknown command 'seed'"),
        ("scan = 1", "'scan' must be a table"),
        ("[scan]\nsed = 1", "Did you mean seed"),
        ("[scan]\npeople_limit = 1", "Unknown option 'people_limit'"),
        ("[scan]\nseed = 'one'", "seed"),
        ("[scan]\nseed = [1]", "not a word or number"),
        ("[scan]\nseed = true", "not a word or number"),
        ("[scan]\nseed = 2020-01-01", "not a word or number"),
        ("[scan]\nquiet = 3", "neither true nor false"),
        ("[scan]\nfail-on = [[1]]", "not a word or number"),
        ("[scan]\nfail-on = 'nonsense'", "gate can't be read"),
        ("[scan", "configuration can't be read"),
    ],
)
def test_a_wrong_configuration_file_ends_with_two(leakaudit, tmp_path, text, told):
    (tmp_path / "work" / "leakaudit.toml").write_text(text)
    done = leakaudit("scan", "--demo")
    assert done.code == 2
    assert told in done.said


def test_a_number_is_read_where_a_path_is_wanted(leakaudit, tmp_path):
    (tmp_path / "work" / "leakaudit.toml").write_text("[scan]\nimages = 3\n")
    done = leakaudit("scan", "--demo")
    assert done.code == 2
    assert "brings its own" in done.said


def test_the_run_module_is_what_a_scan_calls():
    assert scan_module.run is run_module.run
