"""Several layers in one scan, from folders to every output: one leaks all, one a mean colour."""

import json
import re

import jsonschema  # type: ignore[import-untyped]
import pytest
from audit.toy_subject import SIZE, people
from PIL import Image

import leakaudit.audit.scan
import leakaudit.cli.results
import leakaudit.cli.scan
from leakaudit.core.by_layer import by_depth, layer_of, parts
from leakaudit.core.rng import Rng
from leakaudit.report.json import SCHEMA_PATH, read_result

PRESET = """
[attacks.blackbox-ridge]
[training]
prior.steps = 2
oracle.steps = 2
"""
CODE = """
import torch
from torch import nn
from torch.nn import functional as fn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.leak = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        self.quarters = nn.AdaptiveAvgPool2d(2)
        self.mix = nn.Conv2d(3, 3, 1, bias=False)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.out = nn.Flatten()
        with torch.no_grad():
            self.leak.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4) / 16)
            self.mix.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, x):
        return self.out(self.mean(self.mix(self.quarters(self.leak(x)))))

def make():
    return Net()

class Judge(nn.Module):
    def forward(self, x):
        return fn.adaptive_avg_pool2d(x, 4).flatten(1) - 0.5

def judge():
    return Judge()
"""
GATE = "none.worst.identification>0.97"


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Thirty-two people with three pictures each, and sixty-nine others, of whom nine judge."""
    place = tmp_path_factory.mktemp("faces")
    for name, count, pictures in (("private", 32, 3), ("public", 69, 1)):
        images, who = people(count, pictures, Rng(3, (name,)))
        for index, (image, person) in enumerate(zip(images, who.tolist(), strict=True)):
            folder = place / name / f"p{person:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            array = (image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(array).save(folder / f"{index}.png")
    (place / "small.toml").write_text(PRESET)
    (place / "net.py").write_text(CODE)
    return place


@pytest.fixture
def scan(leakaudit, folders, tmp_path):
    def run(*options, folder="run"):
        place = tmp_path / folder
        done = leakaudit(
            "scan", "--encoder", f"{folders / 'net.py'}:make", "--images", folders / "private",
            "--public", folders / "public", "--input-size", SIZE, "--preset",
            folders / "small.toml", "--oracle", f"{folders / 'net.py'}:judge", "--run-dir", place,
            *options,
        )  # fmt: skip
        found = place / "result.json"
        return done, read_result(found) if found.is_file() else None

    return run


def scores(result):
    return {(s.defence, s.attack, s.metric): (s.value, s.low, s.high) for s in result.scores}


def test_each_layer_scores_as_it_does_alone_and_one_result_holds_all(scan, leakaudit, tmp_path):
    done, result = scan("--layer", "mean,leak", "--fail-on", GATE)
    assert done.code == 1, done.said
    data = json.loads((tmp_path / "run" / "result.json").read_text())
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(data)) == []
    assert [layer_of(part) for part in parts(result)] == ["mean", "leak"]
    assert [layer_of(part) for part in by_depth(result)] == ["leak", "mean"]
    for key in ("faces_sha256", "public_sha256", "prior_sha256", "oracle", "weights_sha256"):
        assert len({part.subject[key] for part in parts(result)}) == 1
    assert [part.subject["megabytes"] for part in parts(result)] == [12e-6, 768e-6]
    for part in parts(result):
        _, alone = scan("--layer", layer_of(part), folder=f"alone-{layer_of(part)}")
        assert "layers" not in alone.to_json()
        assert scores(part) == scores(alone)
    assert {p.name for p in (tmp_path / "run").iterdir() if p.suffix == ".html"} == {
        "report.html", "report-leak.html", "report-mean.html",
    }  # fmt: skip
    assert not (tmp_path / "run" / "stages").exists()
    assert "at each of 2 layers (mean, leak)" in done.said
    assert done.said.count("Encoder: No weights file was given") == 1


def test_a_second_leaky_layer_fails_the_scan_in_every_output(scan, leakaudit, tmp_path):
    outs = {kind: tmp_path / f"out.{kind}" for kind in ("md", "xml", "sarif", "prom", "html")}
    asked = [part for path in outs.values() for part in ("-o", path)]
    done, result = scan("--layer", "quarters", "--layer", "leak", "--fail-on", GATE, *asked)
    assert done.code == 1, done.said
    assert {gate.layer: gate.status for gate in result.gates} == {
        "quarters": "pass",
        "leak": "fail",
    }
    assert "quarters is the shallowest layer" in " ".join(done.out.split())
    assert done.out.rstrip().splitlines()[-1].startswith("FAIL: Gate breached: ")
    told = {kind: path.read_text() for kind, path in outs.items()}
    assert "leakaudit: Fail" in told["md"]
    assert 'failures="1"' in told["xml"]
    assert '"exitCode": 1' in told["sarif"]
    assert "leakaudit_exit_code 1.0" in told["prom"]
    assert '<header class="verdict fail">' in told["html"]
    own = (tmp_path / "run" / "report-quarters.html").read_text()
    assert '<header class="verdict pass">' in own  # by its own gates


def test_gate_and_report_agree_with_the_scan_from_the_file_alone(scan, leakaudit, tmp_path):
    done, result = scan("--layer", "quarters,leak", "--fail-on", GATE)
    kept = tmp_path / "run" / "result.json"
    again = leakaudit("gate", kept, "--fail-on", GATE, "-o", tmp_path / "judged.json")
    assert again.code == done.code == 1
    judged = read_result(tmp_path / "judged.json")
    assert (judged.gates, judged.verdict) == (result.gates, result.verdict)
    told = leakaudit("report", kept, "--layer", "quarters", "-o", tmp_path / "quarters.json")
    assert told.code == 0
    own = read_result(tmp_path / "quarters.json")
    assert (layer_of(own), own.layers, own.verdict.status) == ("quarters", (), "pass")
    unknown = leakaudit("report", kept, "--layer", "quartes", "-o", tmp_path / "x.json")
    assert unknown.code == 2
    assert "quarters" in unknown.said
    both = leakaudit("compare", kept, kept)
    assert both.code == 0
    assert "At layer leak" in both.out and "At layer quarters" in both.out
    alone = leakaudit("compare", tmp_path / "quarters.json", tmp_path / "quarters.json")
    assert "At layer" not in alone.out
    count = [int(done.out.split(" rows differ")[0].split()[-1]) for done in (both, alone)]
    assert count[0] == 2 * count[1] > 0


def test_verbose_lists_the_seconds_of_each_layer(scan):
    done, _ = scan("--layer", "quarters,leak", "-v")
    assert done.code == 0, done.said
    _, first, second = re.split(r"^At (?:quarters|leak):$", done.err, flags=re.MULTILINE)
    stage = re.compile(r"^ +\d+\.\d s  blackbox-ridge on none$", re.MULTILINE)
    assert len(stage.findall(first)) == len(stage.findall(second)) == 1
    assert done.err.index("At quarters:") < done.err.index("At leak:")
    alone, _ = scan("--layer", "quarters", "-v", folder="alone")
    assert "At quarters:" not in alone.err


def test_a_study_of_several_layers_is_refused_before_any_work(scan):
    done, result = scan("--layer", "quarters,leak", "--keep-study", "10")
    assert (done.code, result) == (2, None)
    assert "A study is of one layer" in done.said


def test_an_undecided_layer_makes_the_scan_inconclusive(scan):
    done, result = scan("--layer", "quarters,mean", "--fail-on", GATE)
    assert done.code == 3, done.said
    assert {g.layer: g.status for g in result.gates} == {"quarters": "pass", "mean": "inconclusive"}
    assert "Undecided, which is not safe, at mean" in " ".join(done.out.split())


def test_a_layer_that_is_named_twice_is_taken_once_and_said(scan):
    done, result = scan("--layer", "quarters", "--layer", "0.9,quarters")
    assert done.code == 0, done.said
    assert result.layers == ()
    assert result.subject["layer"] == "quarters"
    assert "Layer 'quarters' was asked for more than once, and is taken once" in done.said


@pytest.mark.parametrize(
    ("asked", "said"),
    [("leak,,mean", "An empty name of a layer"), ("leak,maen", "mean"), ("", "An empty name")],
)
def test_a_layer_that_is_not_there_is_refused_before_any_work(scan, asked, said):
    done, result = scan("--layer", asked)
    assert (done.code, result) == (2, None)
    assert said in done.said


@pytest.mark.slow
def test_a_scan_killed_at_its_second_layer_goes_on_to_the_same_scores(scan, monkeypatch):
    _, whole = scan("--layer", "quarters,leak", folder="whole")
    real = leakaudit.audit.scan.scan

    def killed(subject, *rest):
        if subject.about["layer"] == "leak":
            raise KeyboardInterrupt
        return real(subject, *rest)

    monkeypatch.setattr(leakaudit.audit.scan, "scan", killed)
    done, result = scan("--layer", "quarters,leak")
    assert (done.code, result) == (130, None)
    monkeypatch.setattr(leakaudit.audit.scan, "scan", real)
    done, result = scan("--layer", "quarters,leak", "--resume")
    assert done.code == 0, done.said
    assert [scores(part) for part in parts(result)] == [scores(part) for part in parts(whole)]


def test_a_policy_judges_every_layer(scan, leakaudit, tmp_path):
    scan("--layer", "quarters,leak", folder="base")
    policy = tmp_path / "policy.toml"
    policy.write_text(
        f'[[gate]]\nexpr = "{GATE}"\nid = "named"\n'
        '[[baseline]]\nrow = "none.worst.identification"\nresult = "base/result.json"\n'
        '[[suppress]]\nid = "named"\nreason = "known"\nowner = "team"\nexpires = 2999-01-01\n'
    )
    done, result = scan("--layer", "leak,quarters", "--policy", policy)
    assert done.code == 0, done.said
    assert sorted((g.layer, g.id, g.status) for g in result.gates) == [
        ("leak", "baseline-1", "pass"), ("leak", "named", "fail"),
        ("quarters", "baseline-1", "pass"), ("quarters", "named", "pass"),
    ]  # fmt: skip
    other, result = scan("--layer", "leak,mean", "--policy", policy, folder="other")
    assert other.code == 3
    assert "layers (leak, mean and quarters, leak)" in result.gates[1].reason
