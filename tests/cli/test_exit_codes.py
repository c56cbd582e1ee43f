"""The table of exit codes in docs/cli.md as one test, and what a shell sees of it."""

import errno
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from report.sample import sample_result

from leakaudit.audit import scan as scan_module
from leakaudit.report.json import write_result

ROOT = Path(__file__).resolve().parents[2]


def _raising(error):
    def fail(*_, **__):
        raise error

    return fail


def _out_of_memory():
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


GATE = "--fail-on"
LATER = 'id = "{}"\nreason = "known"\nowner = "ada"\nexpires = 9999-01-01\n'
RULE = '[[gate]]\nid = "g"\nexpr = "none.worst.identification>0.5"\n'
RATCHET = '[[baseline]]\nid = "b"\nrow = "none.worst.identification"\nresult = "{}"\n'

FINISHED = {  # on a finished result: what is asked, and the code; a policy is one of three lines
    "a gate holds": (["utility.auc_drop>0.9"], 0),
    "a gate is breached": (["none.worst.identification>0.5"], 1),
    "a breach outranks what is undecided": (["none.worst.identification>0.5", "lpips>9"], 1),
    "a breach outranks a doubt": (["worst.identification>0.1"], 1),
    "a policy's gate is breached": (RULE, 1),
    "a warning is breached": (RULE + 'severity = "warn"\n', 0),
    "a suppressed gate is breached": (RULE + "[[suppress]]\n" + LATER.format("g"), 0),
    "no worse than the baseline": (RATCHET.format("same.json"), 0),
    "worse than the baseline": (RATCHET.format("better.json"), 1),
    "a gate that can't be read": (["identification"], 2),
    "no gate": ([], 2),
    "a policy that can't be read": ("[[gate", 2),
    "a baseline that isn't there": (RATCHET.format("gone.json"), 2),
    "a missing metric": (["none.worst.lpips>0.5"], 3),
    "a metric that no run has": (["none.worst.identificaton>0.5"], 3),
    "an attack that wasn't run": (["none.whitebox-dip.ssim>0.5"], 3),
    "a defence that wasn't run": (["laplace.worst.ssim>0.5"], 3),
    "a serious doubt on the row": (["crafter.worst.identification>0.99"], 3),
    "too few samples": (RULE.replace(">0.5", ">2") + "min_n = 65\n", 3),
    "another layer's baseline": (RATCHET.format("other.json"), 3),
}
SCANS = {  # a scan of a toy: options, what fails, and the code
    "nothing asked": ([], None, 0),
    "a gate holds": ([GATE, "worst-static.psnr>99"], None, 0),
    "a gate is breached": ([GATE, "identification>0.5"], None, 1),
    "an unknown option": (["--encodr", "x"], None, 2),
    "an unknown attack": (["--attacks", "linkge"], None, 2),
    "a missing metric": ([GATE, "lpips>2"], None, 3),
    "a gate on something unmeasured": ([GATE, "identificaton>0.5"], None, 3),
    "no power": ([GATE, "psnr>99"], None, 3),
    "a crash": ([GATE, "identification>0.5"], ZeroDivisionError("by zero"), 4),
    "an exit of a library": ([], SystemExit(1), 4),
    "no space": ([], OSError(errno.ENOSPC, "No space left on device"), 4),
    "out of memory": ([], MemoryError(), 4),
    "out of memory in torch": ([], RuntimeError("DefaultCPUAllocator: can't allocate memory"), 4),
    "out of memory on the device": ([], _out_of_memory, 4),
    "an interruption": ([GATE, "identification>0.5"], KeyboardInterrupt(), 130),
}


@pytest.fixture
def finished(leakaudit, tmp_path):
    """Judges a result that has its doubts about defended rows by gates or a policy."""
    result = sample_result("inconclusive")

    def say(name, changed):
        write_result(changed, tmp_path / f"{name}.json")

    def better(score):
        if (score.defence, score.attack, score.metric) != ("none", "worst", "identification"):
            return score
        return replace(score, value=0.05, low=0.01, high=0.1)

    say("result", result)
    say("same", result)
    say("better", replace(result, scores=tuple(map(better, result.scores))))
    say("other", replace(result, subject={**result.subject, "layer": "layer3"}))

    def run(asked):
        if isinstance(asked, str):
            (tmp_path / "policy.toml").write_text(asked)
            more = ["--policy", tmp_path / "policy.toml"]
        else:
            more = [part for gate in asked for part in (GATE, gate)]
        return leakaudit("gate", tmp_path / "result.json", *more)

    return run


@pytest.mark.parametrize(
    ("command", "case"),
    [*(("gate", name) for name in FINISHED), *(("scan", name) for name in SCANS)],
)
def test_the_exit_code_is_that_of_the_table(command, case, finished, scan, monkeypatch):
    if command == "gate":
        asked, code = FINISHED[case]
        done = finished(asked)
    else:
        options, error, code = SCANS[case]
        if error is not None:
            error = error() if callable(error) else error
            monkeypatch.setattr(scan_module, "run", _raising(error))
        attacked, steps = (32, 300) if case == "a gate holds" else (8, 6)
        done = scan(*options, attacked=attacked, steps=steps)
    assert done.code == code, done.out + done.err
    last = done.out.splitlines()[-1].partition(":")[0] if done.out else ""
    words = {0: ("PASS", "MEASURED"), 1: ("FAIL",), 3: ("INCONCLUSIVE",)}
    assert last in words.get(code, ("",)), "the last line and the code tell the same"
    assert ("ran out of memory" in done.said) == ("memory" in case)


def test_every_code_of_the_table_is_reached():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    table = {int(code) for code in re.findall(r"^\| [^|]+ \| (\d+) \|", page, re.MULTILINE)}
    reached = {code for *_, code in (*FINISHED.values(), *SCANS.values())}
    assert reached == table == {0, 1, 2, 3, 4, 130}


PROCESS = {  # what happens inside a real process; the code that its parent sees
    "pass": ("pass", 0),
    "a crash": ("raise ZeroDivisionError", 4),
    "out of memory": ("raise MemoryError", 4),
    "an exit of a library": ("raise SystemExit(1)", 4),
    "control-C": ("raise KeyboardInterrupt", 130),
    "a pipe that nobody reads": ("raise BrokenPipeError(32, 'Broken pipe')", 4),
}


def _process(tmp_path, code):
    write_result(sample_result("pass"), tmp_path / "result.json")
    gate = [str(tmp_path / "result.json"), GATE, "utility.auc_drop>0.9"]
    program = (
        "import sys\n"
        f"sys.argv = {json.dumps(['leakaudit', 'gate', *gate])}\n"
        "import leakaudit.cli.app as app, leakaudit.report.json as door\n"
        "real = door.read_result\n"
        f"def read(path):\n    {code}\n    return real(path)\n"
        "door.read_result = read\n"
        "app.main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", PROCESS)
def test_the_parent_process_sees_the_code(name, tmp_path):
    happens, code = PROCESS[name]
    done = _process(tmp_path, happens)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_an_import_that_breaks_ends_with_four(tmp_path):
    program = (
        "import sys\nsys.argv = ['leakaudit', 'presets']\n"
        "sys.modules['leakaudit.cli.layers'] = None\n"
        "from leakaudit.cli.app import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "failed unexpectedly (ModuleNotFoundError" in done.stderr
