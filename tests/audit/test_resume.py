"""Scans and trainings killed -9, at each of their writes and at random moments, and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("kill_driver.py")
WRITES = {"toy": 12, "own": 8, "layers": 10, "prior": 5}
"""At least so many files are killed at: stages, checkpoints, prior, cache, result, report."""

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
    assert len(told["killed"]) >= WRITES[kind]
    assert len(told["runs"]) == 3
    for run in told["runs"]:
        other = [name for name in told["once"] if run["answer"].get(name) != told["once"][name]]
        assert run["answer"] == told["once"], f"killed at {run['at']}: {other}"
    if kind == "toy":
        assert len(told["once"]["scores"]) > 20
        assert told["once"]["scores"] != told["of another seed"]["scores"]
    if kind == "layers":
        assert {"0", "1"} < told["once"].keys()
        assert all(len(told["once"][layer]["scores"]) > 20 for layer in "01")
        assert max(len(finished_layers(left)) for left in told["killed"]) == 2


def finished_layers(left: list[str]) -> set[str]:
    """The folders of layers in which a killed run left a whole stage."""
    return {Path(name).parent.name for name in left if Path(name).parts[0] == "stages"
            and name.endswith(".json")}  # fmt: skip
