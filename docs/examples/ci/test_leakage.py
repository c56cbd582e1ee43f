"""A project's own test: the encoder that ships may leak no more than the policy allows.

The audit runs once a session; what it says then stands in the test's failure.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

SUBJECT = os.environ.get(
    "LEAKAGE_SUBJECT",
    "--encoder model/encoder.py:encoder --weights model/encoder.safetensors --layer layer1 "
    "--images faces/private --public faces/public --defence crafter",
)
POLICY = os.environ.get("LEAKAGE_POLICY", "ci/policy.toml")


@pytest.fixture(scope="session")
def audit(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The finished scan; exit code 0 passes, 1 is a breach, 3 is undecided."""
    folder = tmp_path_factory.mktemp("audit") / "run"
    command = [sys.executable, "-m", "leakaudit", "scan", *shlex.split(SUBJECT)]
    command += ["--policy", POLICY, "--run-dir", str(folder), "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_encoder_leaks_no_more_than_allowed(audit):
    """All gates of the policy hold; else pytest shows which not, and why."""
    assert audit.returncode == 0, audit.stdout + audit.stderr
