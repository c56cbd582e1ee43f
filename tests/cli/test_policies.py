import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from report.sample import sample_result

from leakaudit.report.json import read_result, write_result

NAMING = '[[gate]]\nid = "naming"\nexpr = "none.worst.identification>0.5"\n'
RATCHET = '[[baseline]]\nrow = "none.worst.identification"\nresult = "result.json"\n'
HUSH = '[[suppress]]\nid = "naming"\nreason = "known"\nowner = "ada"\nexpires = {}\n'
LATER, EARLIER = "9999-01-01", "2020-01-01"


@pytest.fixture
def here(tmp_path):
    """A finished result and a place for policies beside it."""
    write_result(sample_result("ungated"), tmp_path / "result.json")
    return tmp_path


@pytest.fixture
def gate(leakaudit, here):
    def run(policy, *more):
        (here / "policy.toml").write_text(policy)
        return leakaudit("gate", here / "result.json", "--policy", here / "policy.toml", *more)

    return run


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (NAMING, 1),
        (NAMING + 'severity = "warn"', 0),
        (NAMING + "min_n = 100000", 3),
        (NAMING + HUSH.format(LATER), 0),
        (NAMING + HUSH.format(EARLIER), 1),
        (NAMING + HUSH, 2),
        (RATCHET, 0),
        (RATCHET.replace("result.json", "gone.json"), 2),
        (RATCHET.replace("identification", "identifcation"), 3),
        ("", 2),
    ],
)
def test_a_policy_on_a_finished_result_ends_with_its_code(gate, policy, code):
    done = gate(policy)
    assert done.code == code, done.out + done.err


def test_a_wrong_key_names_the_file_and_the_line(gate):
    done = gate("\n" + NAMING + "severty = 'warn'")
    assert done.code == 2
    assert "policy.toml, line 2, [[gate]] 1" in done.said
    assert "Did you mean severity?" in done.said


def test_a_suppressed_gate_stays_visible_in_every_output(gate, here):
    kinds = ("html", "json", "md", "xml", "sarif", "prom")
    paths = [here / f"x.{kind}" for kind in kinds] + [here / "quality"]
    outputs = [part for path in paths[:-1] for part in ("-o", path)]
    done = gate(NAMING + HUSH.format(LATER), *outputs, "-o", f"gitlab:{paths[-1]}")
    assert done.code == 0, done.err
    assert "suppressed until 9999-01-01 by ada (known)" in " ".join(done.out.split())
    for path in paths:
        text = path.read_text()
        assert "suppressed" in text, path
        assert path.suffix == ".prom" or "ada" in text, path
    assert ET.parse(here / "x.xml").getroot().get("failures") == "0"
    again = read_result(here / "x.json")
    assert again.gates[0].suppressed.owner == "ada"


def test_an_incompatible_baseline_is_refused_and_said(gate, here):
    other = json.loads((here / "result.json").read_text())
    other["subject"]["layer"] = "layer3"
    (here / "other.json").write_text(json.dumps(other))
    done = gate(RATCHET.replace("result.json", "other.json"))
    assert done.code == 3
    assert "layer (layer1 and layer3)" in " ".join(done.out.split())


def test_a_scan_with_a_policy_and_a_gate_after_it_agree(scan, leakaudit, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(NAMING.replace(">0.5", ">0") + '[[gate]]\nexpr = "none.worst.lpips>9"\n')
    first = scan("--policy", policy, "-o", tmp_path / "x.sarif", "-q")
    assert first.code == 1, first.err
    kept = read_result(tmp_path / "run" / "result.json")
    assert [gate.id for gate in kept.gates] == ["naming", "gate-2"]
    run = json.loads((tmp_path / "x.sarif").read_text())["runs"][0]
    assert run["invocations"][0]["exitCode"] == 1
    again = leakaudit("gate", tmp_path / "run" / "result.json", "--policy", policy)
    assert again.code == 1
    assert again.out.splitlines()[-1] == first.out.splitlines()[-1]


def test_a_scan_reads_its_policy_before_any_work(scan, tmp_path):
    done = scan("--policy", tmp_path / "gone.toml")
    assert done.code == 2
    assert not (tmp_path / "run").exists()


def test_two_results_stand_side_by_side(leakaudit, here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    other = sample_result("ungated")
    fewer = tuple(
        replace(s, value=0.01, low=0.0, high=0.03)
        if (s.defence, s.attack, s.metric) == ("crafter:beta=2", "worst", "identification")
        else s
        for s in other.scores
    )
    write_result(replace(other, scores=fewer), here / "b.json")
    done = leakaudit("compare", here / "result.json", here / "b.json")
    assert done.code == 0, done.err
    row = next(line.split() for line in done.out.splitlines() if "worst.identification" in line
               and "crafter" in line)  # fmt: skip
    assert row[1:5] == ["worst.identification", "0.234", "0.010", "-0.224"]
    assert row[-1] == "better"
    assert done.out.splitlines()[-1].startswith("1 of ")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("subject", "weights_sha256"), "0" * 64, "weights sha256"),
        (("subject", "layer"), "layer2", "layer (layer1 and layer2)"),
        (("subject", "people"), 9, "people (64 and 9)"),
        (("plan", "preset"), "own", "preset (quick and own)"),
        (("plan", "attacks", "whitebox-latent", "steps"), 3, "steps (150 and 3)"),
    ],
)
def test_results_that_can_not_be_compared_are_refused(leakaudit, here, path, value, said):
    data = json.loads((here / "result.json").read_text())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (here / "b.json").write_text(json.dumps(data))
    done = leakaudit("compare", here / "result.json", here / "b.json")
    assert done.code == 2
    assert said in done.said
    assert done.out == ""


def test_the_step_summary_is_written_within_its_limit(gate, here, monkeypatch):
    path = here / "summary.md"
    path.write_text("x" * 999_500)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    gate(NAMING)
    added = path.read_text()[999_500:]
    assert added.startswith("## ❌ leakaudit: Fail")
    assert added.endswith("the whole of it is in the report.*\n")
    assert path.stat().st_size <= 1_000_000
