"""The examples of docs/ci.md, as far as they can be run here: commands, policy, the own test."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import typer
import yaml

from leakaudit.audit.policy import read_policy
from leakaudit.cli.app import app
from leakaudit.cli.outputs import EXTENSIONS, KINDS, parse_output

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "ci"
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")


def commands(name):
    """The leakaudit commands in an example, lines of a folded block joined."""
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    found = []
    for k, line in enumerate(lines):
        if match := re.match(r"\s*(?:entry: )?(leakaudit (?:scan|gate) .*)", line):
            depth = len(line) - len(line.lstrip())
            more = []
            for following in lines[k + 1 :]:
                if ":" in line[:20] or len(following) - len(following.lstrip()) != depth:
                    break
                more.append(following.strip())
            found.append(" ".join([match[1], *more]))
    return found


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml", "pre-commit.yaml"])
def test_the_commands_of_an_example_are_understood(name):
    (line,) = commands(name)
    _, command, *arguments = shlex.split(line)
    parser = typer.main.get_command(app).commands[command]
    options = parser.make_context(command, list(arguments)).params
    assert options["policy"] == Path("ci/policy.toml")
    for text in options["output"] or []:
        parse_output(text)


def test_what_the_examples_hand_on_is_what_they_write():
    for name, files in (
        ("github.yml", ["leakaudit.sarif", "junit.xml"]),
        ("gitlab.yml", ["junit.xml", "quality.json", "metrics.prom"]),
    ):
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        assert all(text.count(file) >= 2 for file in files)


def test_the_example_policy_and_that_of_the_page_are_policies(tmp_path):
    found = read_policy(EXAMPLES / "policy.toml")
    assert [gate.id for gate in found.gates] == ["naming", "likeness", "utility"]
    (tmp_path / "p.toml").write_text(re.search(r"```toml\n(.*?)```", PAGE, re.S)[1])
    assert read_policy(tmp_path / "p.toml").hushes[0].id == "naming"


def test_the_page_names_every_kind_and_extension():
    for word in (*KINDS, *EXTENSIONS.keys() - {".htm"}):
        assert f"`{word}`" in PAGE


@pytest.mark.parametrize(("policy", "failed"), [(">1", 0), (">0.1", 1)])
def test_the_example_of_a_test_of_ones_own_fails_with_a_breach(tmp_path, policy, failed):
    """With a stand-in for ``python -m leakaudit`` that gates a finished result."""
    from report.sample import sample_result

    from leakaudit.report.json import write_result

    write_result(sample_result("ungated"), tmp_path / "result.json")
    (tmp_path / "policy.toml").write_text(f'[[gate]]\nexpr = "none.worst.identification{policy}"\n')
    package = tmp_path / "leakaudit"
    package.mkdir()
    stand_in = (
        "import sys\nfrom leakaudit.cli import app\nimport leakaudit.cli.results\n"
        "at = sys.argv.index('--policy')\n"
        "assert sys.argv[1] == 'scan' and '--run-dir' in sys.argv\n"
        "sys.exit(app.run(['gate', 'result.json', *sys.argv[at:at + 2]]))\n"
    )
    (package / "__init__.py").write_text(f"__path__.append({str(ROOT / 'leakaudit')!r})\n")
    (package / "__main__.py").write_text(stand_in)
    settings = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-c", os.devnull]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, "--rootdir", str(tmp_path),
         str(EXAMPLES / "test_leakage.py")],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "LEAKAGE_POLICY": "policy.toml", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == failed, done.stdout + done.stderr
    assert ("FAIL: Gate breached" in done.stdout) == bool(failed)


@pytest.mark.parametrize(
    ("name", "schema"), [("github.yml", "github-workflows"), ("gitlab.yml", "gitlab-ci")]
)
def test_the_examples_are_valid_by_the_schemas_of_their_platforms(name, schema):
    found = importlib.util.find_spec("check_jsonschema")
    if found is None or not found.submodule_search_locations:
        pytest.skip("check-jsonschema, which carries the schemas, is not installed (extra 'test')")
    place = Path(found.submodule_search_locations[0], "builtin_schemas", "vendor", f"{schema}.json")
    rules = json.loads(place.read_text(encoding="utf-8"))
    checker = jsonschema.validators.validator_for(rules)(rules)
    told = yaml.load((EXAMPLES / name).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    if name == "github.yml":  # the base loader leaves words as words: 'on' stays a key
        told["jobs"]["audit"]["timeout-minutes"] = int(told["jobs"]["audit"]["timeout-minutes"])
    else:
        rule = told["leakaudit"]["allow_failure"]
        rule["exit_codes"] = [int(code) for code in rule["exit_codes"]]
    assert [f"{e.json_path}: {e.message}" for e in checker.iter_errors(told)] == []
    job = told["jobs"]["audit"] if name == "github.yml" else told["leakaudit"]
    job["timeout-minutes" if name == "github.yml" else "timeout"] = ["long"]
    assert not checker.is_valid(told), "the schema must be able to object"
