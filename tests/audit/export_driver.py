"""One export in a process, then another that is killed -9 five times at random moments.

Run as a script: ``export_driver.py FOLDER ARGUMENT...``, the command line but for ``--out``. Writes
``FOLDER/whole`` and a part of ``FOLDER/killed``; as JSON on stdout, how each child ended, and how
many shards there were then. Children are forked, so that torch is imported and the trial of rows
made once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import leakaudit.cli.protect  # noqa: E402, F401 - the command registers itself
from audit.toy_subject import cheapen  # noqa: E402
from leakaudit.cli.app import run  # noqa: E402

KILLS = 5


def main() -> None:
    """Runs all and says what came of it."""
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    cheapen(pytest.MonkeyPatch(), folder)
    assert run([*arguments, "--out", str(folder / "whole")]) == 0
    chance, told = random.Random(0), []
    for _ in range(KILLS):
        status = _killed([*arguments, "--out", str(folder / "killed")], folder / "killed", chance)
        told.append({"status": status, "shards": _shards(folder / "killed")})
    sys.stdout.write(json.dumps(told))


def _killed(arguments: list[str], out: Path, chance: random.Random) -> int:
    """How a child ended that was killed soon after its first shard."""
    before = _shards(out)
    pid = os.fork()
    if pid == 0:
        code = 4
        try:
            code = run(arguments)
        finally:
            os._exit(code)
    while _shards(out) == before:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the child ended before it was killed"
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.15))  # while a record, a shard or the manifest is made
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _shards(out: Path) -> int:
    return len(list(out.glob("shard-*")))


if __name__ == "__main__":
    main()
