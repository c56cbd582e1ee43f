"""Scans in children that are killed -9 at each write, or at random moments, and then resumed.

At the writes it is one run: each child goes on where the last one was killed, so that the answer
hangs on every state that a kill can leave. Run as a script: ``kill_driver.py KIND FOLDER``; writes
what came of it as JSON on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jinja2
import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import leakaudit.cli.prior  # noqa: E402
import leakaudit.cli.scan  # noqa: E402, F401 - commands register themselves
from audit.edges import write_networks  # noqa: E402
from audit.toy_subject import cheapen, toy_subject  # noqa: E402
from leakaudit.audit import floors, prior_training, priors  # noqa: E402
from leakaudit.cli.app import run  # noqa: E402
from leakaudit.demo import load  # noqa: E402
from leakaudit.models import prior_quality  # noqa: E402
from leakaudit.models.best_response import LatentSearch  # noqa: E402

PRESET = """
[attacks.blackbox-decoder]
training.steps = 8
training.batch = 8
[attacks.adaptive-ridge]
queries = 16
pairs = 60
[training]
prior.steps = 4
prior.batch = 4
oracle.steps = 4
oracle.batch = 8
"""
NET = """
from torch import nn
def make():
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
class Judge(nn.Module):
    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 4).flatten(1) - 0.5
"""
MOMENTS = 2
CHILDREN = 60
"""More than any run has writes: who needs more of them doesn't get on."""


def main() -> None:
    """Runs all and says what came of it."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    cheapen(pytest.MonkeyPatch(), folder)
    _shorten()
    os.chdir(folder)
    os.environ["LEAKAUDIT_CACHE"] = str(folder / "cache")
    (folder / "small.toml").write_text(PRESET)
    arguments, answer = KINDS[kind](folder)
    _warm(arguments)
    once = _once(arguments, answer, folder)
    killed = _killed_again_and_again(arguments, folder, whole_stages=kind == "layers")
    runs = [{"at": f"each of {len(killed)} writes", "answer": answer(folder)}]
    for moment in _moments(once["seconds"]):
        _fresh(folder)
        _child(arguments, lambda moment=moment: signal.setitimer(signal.ITIMER_REAL, moment))
        _child([*arguments, "--resume"])
        runs.append({"at": f"{moment:.2f} s", "answer": answer(folder)})
    told = {"once": once["answer"], "killed": killed, "runs": runs}
    if kind == "toy":
        told["of another seed"] = _once([*arguments, "--seed", "1"], answer, folder)["answer"]
    sys.stdout.write(json.dumps(told))


def _shorten() -> None:
    """Less of what every child does after its last write, or for a word to the user alone."""
    floors.DRAWS = 32
    priors.seconds_ahead = prior_training.seconds_ahead = lambda task: 60.0
    short = partial(prior_quality.best_reconstructions, how=LatentSearch(steps=3))
    prior_training.best_reconstructions = short  # type: ignore[assignment]


def _toy(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    load.demo_subject = lambda seed, *, attacked=64: toy_subject(attacked=8, gallery=12)  # type: ignore[assignment]
    arguments = ["scan", "--demo", "--preset", "small.toml", "--defence", "gaussian:sigma=0.3"]
    return [*arguments, "--quiet", "--run-dir", "run"], _scores


def _own(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    priors.CHECKPOINT_SECONDS = 0.0
    (folder / "net.py").write_text(NET)
    for name, people, pictures in (("faces", 6, 4), ("public", 40, 2)):
        _pictures(folder / name, people, pictures)
    arguments = ["scan", "--encoder", "net.py:make", "--layer", "0", "--input-size", "32"]
    arguments += ["--images", "faces", "--public", "public", "--preset", "small.toml"]
    # Without weights every process would draw another encoder.
    arguments += ["--weights", _weights(folder), "--attacks", "blackbox-decoder"]
    return [*arguments, "--quiet", "--run-dir", "run"], _scores


def _layers(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    """A scan at two layers of one network: prior and judge are given, so that it is quick."""
    arguments, _ = _own(folder)
    arguments[arguments.index("--layer") + 1] = "1,0"
    arguments[arguments.index("--attacks") + 1] = "blackbox-ridge"
    given = ["--oracle", "net.py:Judge", "--prior", str(write_networks(folder)[1])]
    return [*arguments, *given, "--defence", "gaussian:sigma=0.3"], _scores_of_layers


def _prior(folder: Path) -> tuple[list[str], Callable[[Path], object]]:
    _pictures(folder / "public", 40, 2)
    arguments = ["prior", "train", "--public", "public", "--out", "run/prior.safetensors"]
    arguments += ["--size", "32", "--latent", "6", "--width", "8", "--steps", "6", "--batch", "4"]
    return [*arguments, "--checkpoint-every", "0", "--quiet"], _bytes


def _scores(folder: Path) -> object:
    result = json.loads((folder / "run" / "result.json").read_text())
    return _told(result) | {"left": _left(folder)}


def _scores_of_layers(folder: Path) -> object:
    result = json.loads((folder / "run" / "result.json").read_text())
    parts = {part["subject"]["layer"]: _told(part) for part in (result, *result["layers"])}
    return parts | {"left": _left(folder)}


def _told(result: dict) -> dict:
    for row in result["convergence"]:
        row.pop("seconds")
    names = ("subject", "plan", "scores", "utility", "convergence", "doubts", "gallery", "verdict")
    return {name: result[name] for name in names}


def _bytes(folder: Path) -> object:
    out = folder / "run"
    return {path.name: path.read_bytes().hex() for path in sorted(out.iterdir())}


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run").rglob("*"))


def _weights(folder: Path) -> str:
    import torch
    from safetensors.torch import save_file
    from torch import nn

    torch.manual_seed(0)
    save_file(
        nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU()).state_dict(), folder / "w.safetensors"
    )
    return "w.safetensors"


def _pictures(folder: Path, people: int, pictures: int) -> None:
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(people)
    for person in range(people):
        (folder / f"{person}").mkdir(parents=True)
        patches = draw.integers(0, 255, (4, 4, 3))
        for k in range(pictures):
            noisy = (patches + draw.integers(-9, 9, (4, 4, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).resize((32, 32), Image.Resampling.NEAREST).save(
                folder / f"{person}" / f"{k}.png"
            )


def _warm(arguments: list[str]) -> None:
    """One run here: what children would import and compile each time is then there for all."""
    compiled, real = {}, jinja2.Environment.compile

    def compile_once(self: jinja2.Environment, source: str, name: str, filename: str) -> object:
        if name not in compiled:
            compiled[name] = real(self, source, name, filename)
        return compiled[name]

    jinja2.Environment.compile = compile_once  # type: ignore[assignment, method-assign]
    with contextlib.redirect_stdout(sys.stderr):
        assert run(arguments) == 0


def _once(arguments: list[str], answer: Callable[[Path], object], folder: Path) -> dict:
    _fresh(folder)
    start = time.monotonic()
    assert os.waitstatus_to_exitcode(_child(arguments)) == 0
    return {"seconds": time.monotonic() - start, "answer": answer(folder)}


def _killed_again_and_again(
    arguments: list[str], folder: Path, *, whole_stages: bool
) -> list[list[str]]:
    """What each killed child left, of as many as it took until one came to the end.

    Each dies at the first file that none has died at, in turn right after and right before it is
    put in its place; at the checkpoints, which have one name, three of them.
    With ``whole_stages`` only the second of a stage's two files counts, which ends the stage.
    """
    _fresh(folder)
    run, deaths, resume = folder / "run", folder / "deaths", []
    left: list[list[str]] = []
    deaths.write_text("")
    while len(left) < CHILDREN:
        deadly = partial(_deadly, deaths, whole_stages)
        if not os.WIFSIGNALED(_child([*arguments, *resume], deadly)):
            return left
        there = (path for path in run.rglob("*") if path.is_file())
        left.append(sorted(str(path.relative_to(run)) for path in there))
        resume = ["--resume"]
    raise AssertionError(f"after {CHILDREN} children there is still no end: {left[-2:]}")


def _deadly(deaths: Path, whole_stages: bool) -> None:
    """Kills this process at the first file that isn't among the ``deaths`` of the others."""
    real, known = os.replace, Counter(deaths.read_text().splitlines())
    before = known.total() % 2 == 1

    def replace(source: str, target: str) -> None:
        name = Path(target).name
        spared = whole_stages and name.endswith(".safetensors")
        if spared or known[name] >= (3 if "checkpoint" in name else 1):
            real(source, target)
            return
        if not before:
            real(source, target)
        with deaths.open("a") as file:
            file.write(f"{name}\n")
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]


def _moments(seconds: float) -> list[float]:
    draw = random.Random(0)
    return [seconds * draw.uniform(0.02, 0.98) for _ in range(MOMENTS)]


def _fresh(folder: Path) -> None:
    shutil.rmtree(folder / "run", ignore_errors=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)


def _child(arguments: list[str], first: Callable[[], object] = lambda: None) -> int:
    """The status of a forked child that runs the command line."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        first()
        code = 4
        try:
            os.dup2(2, 1)  # stdout is the driver's
            code = run(arguments)
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


KINDS = {"toy": _toy, "own": _own, "layers": _layers, "prior": _prior}

if __name__ == "__main__":
    main()
