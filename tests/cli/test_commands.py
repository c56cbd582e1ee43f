import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from report.sample import sample_result

from leakaudit.audit.plan import preset_names
from leakaudit.cli import app
from leakaudit.cli.outputs import parse_output
from leakaudit.cli.running import session
from leakaudit.core.errors import UsageError
from leakaudit.report.console import print_result
from leakaudit.report.json import read_result

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("identification>0.5", 1),
        ("gaussian.worst.identification>0.5@value", 1),
        ('"gaussian:sigma=0.1".identification>0.5', 1),
        ("worst-static.psnr>99", 0),
        ("psnr>99", 3),  # a defence that met static attacks only
        ("none.worst.psnr>99", 0),
        ("utility.auc_drop>0.9", 0),
        ("utility.auc_drp>0.9", 3),
        ("lpips<0.2", 3),
        ("crafter.worst.identification>0.5", 3),
        ("identification", 2),
    ],
)
def test_a_gate_on_a_finished_result_ends_with_its_code(leakaudit, result_file, gate, code):
    done = leakaudit("gate", result_file, "--fail-on", gate)
    assert done.code == code, done.out + done.err


def test_a_gate_agrees_with_the_scans_own_verdict(scan, leakaudit, tmp_path):
    gates = ["--fail-on", "worst-static.identification>0.5", "--fail-on", "ssim>2"]
    first = scan("--defence", "gaussian:sigma=0.1", *gates, attacked=32)
    again = leakaudit("gate", tmp_path / "run" / "result.json", *gates)
    assert first.code == again.code == 1
    assert first.out.splitlines()[-1] == again.out.splitlines()[-1]
    kept = read_result(tmp_path / "run" / "result.json")
    assert kept.verdict.exit_code == 1
    assert [gate.status for gate in kept.gates] == ["fail", "inconclusive"]


def test_a_gate_changes_no_file(leakaudit, result_file):
    before = result_file.read_bytes()
    leakaudit("gate", result_file, "--fail-on", "identification>0.5")
    assert result_file.read_bytes() == before


def test_gate_without_a_gate_is_wrong_usage(leakaudit, result_file):
    assert leakaudit("gate", result_file).code == 2


@pytest.mark.parametrize("command", ["gate", "report"])
@pytest.mark.parametrize("content", [None, "", "{}", "[1]", "{", '{"schema_version": 99}'])
def test_a_file_that_is_no_result_ends_with_two(leakaudit, tmp_path, command, content):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    more = ("--fail-on", "a>1") if command == "gate" else ("-o", str(tmp_path / "x.html"))
    done = leakaudit(command, path, *more)
    assert done.code == 2
    assert "result.json" in done.said
    assert done.out == ""


def test_a_report_is_rendered_again_in_any_kind(leakaudit, result_file, tmp_path):
    html, md, copy = (str(tmp_path / f"x.{kind}") for kind in ("html", "md", "json"))
    done = leakaudit("report", result_file, "-o", html, "-o", md, "-o", copy)
    assert done.code == 0
    assert done.out == ""
    assert Path(html).read_text().startswith("<!")
    assert "leakaudit: Measured" in Path(md).read_text()
    assert Path(copy).read_bytes() == result_file.read_bytes()
    for path in (html, md, copy):
        assert path in done.err


def test_a_report_on_stdout_is_the_report_alone(leakaudit, result_file, tmp_path):
    done = leakaudit("report", result_file, "-o", "-", "-o", tmp_path / "x.html")
    assert json.loads(done.out) == json.loads(result_file.read_text())


def test_a_run_folder_stands_for_its_result(leakaudit, result_file, tmp_path):
    folder = tmp_path / "a-run"
    folder.mkdir()
    empty = leakaudit("gate", folder, "--fail-on", "identification>1")
    assert empty.code == 2
    assert "result.json" in empty.said
    (folder / "result.json").write_bytes(result_file.read_bytes())
    assert leakaudit("report", folder, "-o", tmp_path / "x.html").code == 0


def test_a_report_without_an_output_is_wrong_usage(leakaudit, result_file):
    assert leakaudit("report", result_file).code == 2


def test_presets_are_listed_and_printed(leakaudit):
    listed = leakaudit("presets")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == preset_names()
    assert "the default" in next(x for x in listed.out.splitlines() if x.startswith("quick"))
    shown = leakaudit("presets", "quick")
    assert "[attacks.blackbox-decoder]" in shown.out
    wrong = leakaudit("presets", "quik")
    assert wrong.code == 2
    assert "Did you mean quick?" in wrong.said


def test_an_unknown_command_ends_with_two(leakaudit):
    done = leakaudit("scna", "--demo")
    assert done.code == 2
    assert "scan" in done.said


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["scan", "--help"]])
def test_help_and_version_end_with_zero(leakaudit, arguments):
    done = leakaudit(*arguments)
    assert done.code == 0
    assert "leakaudit" in done.out


def test_help_names_every_exit_code(leakaudit):
    text = " ".join(leakaudit("scan", "--help").out.split())
    for code in ("1 a gate is breached", "3 inconclusive", "4 run-time failure", "130 interrupted"):
        assert code in text


def test_a_closed_pipe_is_never_a_breach(leakaudit, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(app.typer, "echo", closed)
    assert leakaudit("presets").code == 4


def test_whoever_stops_listening_to_a_verdict_changes_nothing(monkeypatch):
    from rich.console import Console

    for error in (BrokenPipeError(32, "Broken pipe"), SystemExit(1)):
        console = Console()

        def closed(*_, error=error, **__):
            raise error

        monkeypatch.setattr(console, "print", closed)
        monkeypatch.setattr("leakaudit.report.console.os.dup2", lambda *_: None)
        print_result(sample_result(), console)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("report.html", ("html", "report.html")),
        ("a/b.HTM", ("html", "a/b.HTM")),
        ("result.json", ("json", "result.json")),
        ("summary.md", ("markdown", "summary.md")),
        ("html:page", ("html", "page")),
        ("markdown:a.b:c", ("markdown", "a.b:c")),
        ("./json:x.html", ("html", "./json:x.html")),
        ("-", ("json", "-")),
        ("html:-", ("html", "-")),
        ("junit.xml", ("junit", "junit.xml")),
        ("leakaudit.sarif", ("sarif", "leakaudit.sarif")),
        ("x.SARIF.json", ("sarif", "x.SARIF.json")),
        ("gitlab:quality.json", ("gitlab", "quality.json")),
        ("m.prom", ("openmetrics", "m.prom")),
        ("openmetrics:m.txt", ("openmetrics", "m.txt")),
    ],
)
def test_the_kind_of_an_output_is_said_or_seen(text, parsed):
    assert parse_output(text) == parsed


@pytest.mark.parametrize("text", ["report", "junit.xm", "html:", ":x.htm:", "jsn:x"])
def test_an_output_of_unknown_kind_is_a_usage_error(text):
    with pytest.raises(UsageError):
        parse_output(text)


def test_an_output_that_cant_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "page.html", tmp_path):
        with pytest.raises(UsageError) as refused:
            parse_output(f"html:{path}")
        assert str(path) in str(refused.value.where)


def test_a_run_folder_with_a_result_is_taken_again_and_that_is_said(tmp_path, capsys):
    for earlier in (False, True):
        with session(
            tmp_path / "r",
            resume=False,
            offline=False,
            quiet=False,
            verbose=False,
            to_stdout=False,
        ):
            (tmp_path / "r" / "result.json").write_text("{}")
        told = " ".join("".join(capsys.readouterr()).split())
        assert ("will be replaced" in told) == earlier


def _fresh(code: str) -> subprocess.CompletedProcess:
    """A fresh interpreter in the checkout, as a user's shell would start it."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_is_quick_and_imports_no_torch():
    code = (
        "import resource, sys\n"
        "from leakaudit.cli import app\n"
        "sys.argv = ['leakaudit', '--help']\n"
        "try:\n"
        "    app.main()\n"
        "finally:\n"
        "    heavy = {'torch', 'torchvision', 'numpy', 'skimage', 'ot', 'PIL'} & set(sys.modules)\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print(used.ru_utime, heavy, file=sys.stderr)\n"
    )
    start = time.perf_counter()
    done = _fresh(code)
    spent, _, heavy = done.stderr.strip().partition(" ")
    assert done.returncode == 0, done.stderr
    assert "scan" in done.stdout
    assert heavy == "set()"
    assert float(spent) < 1.5, f"{time.perf_counter() - start:.1f} s by the clock"


@pytest.mark.parametrize("command", ["gate", "report"])
def test_finished_results_are_read_without_torch(result_file, tmp_path, command):
    more = ["--fail-on", "psnr>99"] if command == "gate" else ["-o", str(tmp_path / "x.html")]
    arguments = [command, str(result_file), *more]
    done = _fresh(
        "import sys\n"
        "import leakaudit.cli.results\n"
        "from leakaudit.cli import app\n"
        f"code = app.run({arguments!r})\n"
        "print('torch' in sys.modules, code, file=sys.stderr)\n"
    )
    assert done.stderr.split()[-2:] == ["False", "3" if command == "gate" else "0"], done.stderr


def test_python_m_leakaudit_is_the_same_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "leakaudit", "report", str(tmp_path / "gone.json"), "-o", "-"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "gone.json" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [("leakaudit sc", "scan"), ("leakaudit gate --fai", "--fail-on")],
)
def test_a_shell_completes_commands_and_options(words, completed):
    asked = {"_LEAKAUDIT_COMPLETE": "complete_bash", "COMP_WORDS": words}
    done = subprocess.run(
        [sys.executable, "-m", "leakaudit"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **asked, "COMP_CWORD": str(len(words.split()) - 1)},
    )  # fmt: skip
    assert completed in done.stdout.split(), done.stderr
