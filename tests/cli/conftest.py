from dataclasses import dataclass
from pathlib import Path

import pytest
from audit.toy_subject import cheapen, toy_preset, toy_subject

import leakaudit.cli.results
import leakaudit.cli.scan
from leakaudit.cli import app
from leakaudit.demo import load

OURS = ("CI", "GITHUB_STEP_SUMMARY", "LEAKAUDIT_DEBUG", "NO_COLOR", "FORCE_COLOR", "COLUMNS")


@dataclass(frozen=True)
class Answer:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """stderr as one line: messages are wrapped to the width of the terminal."""
        return " ".join(self.err.replace("│", " ").split())


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    """An empty folder to work in, no variables of the outside, and the toy in the demo's place."""
    import os

    for name in os.environ:
        if name in OURS or name.startswith(("LEAKAUDIT_", "GITHUB_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path / "cache"))
    cheapen(monkeypatch, tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(
        load,
        "demo_subject",
        lambda seed, *, attacked=64: toy_subject(attacked=min(attacked, 32)),
    )


@pytest.fixture
def leakaudit(capsys):
    """Runs a command line; whatever happens, no traceback is shown."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = app.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Answer(code, out, err)

    return run


@pytest.fixture
def scan(leakaudit, tmp_path):
    """Scans the toy in the demo's place, by one attack and in a second."""

    def run(*arguments: str, attacked: int = 8, steps: int = 6) -> Answer:
        preset = toy_preset(tmp_path, steps=steps)
        fixed = ("--demo", "--preset", preset, "--attacks", "blackbox-decoder")
        people = ("--attacked-people", str(attacked), "--run-dir", tmp_path / "run")
        few = () if "--defence" in arguments else ("--defence", "none")
        return leakaudit("scan", *fixed, *people, *few, *arguments)

    return run


@pytest.fixture(scope="session")
def result_file(tmp_path_factory) -> Path:
    """A result that a whole scan of a defended, leaky toy has written."""
    from audit.toy_subject import toy_plan

    from leakaudit.audit.scan import ScanOptions, scan
    from leakaudit.audit.store import RunStore
    from leakaudit.report.json import write_result

    folder = tmp_path_factory.mktemp("result")
    plan = toy_plan(folder, "gaussian:sigma=0.1", attacks=["blackbox-decoder"], steps=300)
    store = RunStore(folder / "run", resume=False)
    result = scan(toy_subject(), plan, store, ScanOptions(), lambda what, share: None)
    return write_result(result, folder / "result.json")
