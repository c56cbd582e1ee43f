"""Scans and trainings killed -9, at each of their writes and at random moments, and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("kill_driver.py")
WRITES = {"toy": 12, "own": 11, "layers": 11, "prior": 8}
"""At least so many writes are killed at: stages, checkpoints, prior, cache, result, report."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked"),
]


@pytest.mark.parametrize("kind", list(WRITES))
def test_a_run_that_was_killed_ends_with_the_same_answer(tmp_path, kind) -> None:
    done = subprocess.run(
        [sys.executable, str(DRIVER), kind, str(tmp_path)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    at_writes = [run for run in told["runs"] if run["at"].startswith("write")]
    assert len(at_writes) >= WRITES[kind]
    assert len(told["runs"]) - len(at_writes) == 4
    for run in told["runs"]:
        other = [name for name in told["once"] if run["answer"].get(name) != told["once"][name]]
        assert run["answer"] == told["once"], f"killed at {run['at']}: {other}"
    if kind == "layers":
        assert {"0", "1"} < told["once"].keys()
        assert all(len(told["once"][layer]["scores"]) > 20 for layer in "01")
        assert max(len(finished_layers(run["left"])) for run in at_writes) == 2


def finished_layers(left: list[str]) -> set[str]:
    """The folders of layers in which a killed run left a whole stage."""
    return {Path(name).parent.name for name in left if Path(name).parts[0] == "stages"
            and name.endswith(".json")}  # fmt: skip


def test_what_is_compared_is_not_nothing(tmp_path) -> None:
    """The driver's answer holds scores, with numbers that a wrong resume would change."""
    done = subprocess.run(
        [sys.executable, "-c", ONCE, str(DRIVER.parent), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = json.loads(done.stdout)
    assert len(one["scores"]) > 20
    assert one["scores"] != other["scores"]


ONCE = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
folder = Path(sys.argv[2])
sys.argv = ["driver", "toy", str(folder)]
import kill_driver as driver, pytest
driver.cheapen(pytest.MonkeyPatch(), folder)
os.chdir(folder)
Path("small.toml").write_text(driver.PRESET)
arguments, answer = driver._toy(folder)
found = []
for seed in "01":
    driver._fresh(folder)
    driver._child([*arguments, "--seed", seed])
    found.append(answer(folder))
sys.stdout.write(json.dumps(found))
"""
