"""So that pytest is the one command: formatting, lint and types are tests like the others."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(module: str, *arguments: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (it comes with the extra 'test')")
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_code_is_formatted():
    _run("ruff", "format", "--check", ".")


def test_the_linter_has_nothing_to_say():
    _run("ruff", "check", ".")


@pytest.mark.slow
def test_the_types_hold():
    _run("mypy", "-p", "leakaudit")
