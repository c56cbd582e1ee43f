"""Results that earlier and later versions of leakaudit wrote."""

import json

import pytest
from report.sample import sample_result

from leakaudit.cli.outputs import KINDS

PLACE = {"defence": "none", "attack": "worst", "threat": "worst"}
FIRST = {  # each key that version 0.1.0 wrote at first, and no other
    "schema_version": 1,
    "tool": {"name": "leakaudit", "version": "0.1.0"},
    "created": "2026-01-01T00:00:00+00:00",
    "command": "leakaudit scan --demo",
    "seed": 0,
    "device": "cpu",
    "subject": {"encoder": "demo", "layer": "layer1", "people": 64},
    "plan": {"preset": "quick", "attacks": {"blackbox-decoder": {}}, "defences": {"none": {}}},
    "scores": [
        {**PLACE, "metric": "identification", "value": 0.9, "low": 0.8, "high": 0.95, "n": 64,
         "unit": "fraction", "leak_grows": "up", "floor": 0.02, "ceiling": 1.0, "excess": 0.9,
         "note": None, "per_face": None},
    ],
    "utility": [
        {"defence": "none", "metric": "auc", "value": 0.9, "low": 0.8, "high": 0.95, "n": 64,
         "drop": 0.0, "drop_low": 0.0, "drop_high": 0.0, "note": None},
    ],
    "convergence": [
        {"defence": "none", "attack": "blackbox-decoder", "steps": 9, "encoder_passes": 90,
         "final_loss": 0.1, "last_change": 0.01, "converged": True, "seconds": 1.5,
         "curve": [0.2, 0.1], "note": None},
    ],
    "doubts": [
        {"id": "averaging-not-run", "severity": "note", "raised_if": "it is random",
         "why": "so", "what_to_do": "average", "rows": [["*", "*"]]},
    ],
    "gates": [
        {"expr": "identification>0.5", "value": 0.9, "bound": 0.95, "threshold": 0.5,
         "status": "fail", "reason": "too many", "defence": "none", "attack": "worst",
         "metric": "identification"},
    ],
    "verdict": {"status": "fail", "reason": "Gate breached.", "exit_code": 1},
    "adversaries": [{"threat": "BlackBox", "attacks": ["blackbox-decoder"],
                     "holds": ["public images"], "never_holds": ["weights"]}],
    "gallery_mode": "none",
    "gallery": [{"rule": "most alike", "person": "person 1", "pictures": [
        {"role": "original", "defence": "none", "attack": "original", "png": None, "named": True,
         "similarity": 1.0}]}],
    "seconds": {"scan": 3.0},
    "versions": {"torch": "2.4"},
}  # fmt: skip


@pytest.fixture
def older(tmp_path):
    path = tmp_path / "older.json"
    path.write_text(json.dumps(FIRST))
    return path


@pytest.mark.parametrize(("gate", "code"), [("identification>0.99", 0), ("identification>0.5", 1)])
def test_an_older_result_is_gated(leakaudit, older, gate, code):
    assert leakaudit("gate", older, "--fail-on", gate).code == code


def test_an_older_result_is_rendered_in_every_format(leakaudit, older, tmp_path):
    outputs = [part for kind in KINDS for part in ("-o", f"{kind}:{tmp_path / kind}")]
    assert leakaudit("report", older, *outputs).code == 0
    assert all((tmp_path / kind).stat().st_size for kind in KINDS)
    assert ">Fail<" in (tmp_path / "html").read_text()


def test_older_results_are_compared(leakaudit, older):
    done = leakaudit("compare", older, older)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("0 of 2 rows differ")


def test_an_older_result_is_a_baseline_of_results_of_its_kind(leakaudit, older, tmp_path):
    policy = tmp_path / "p.toml"
    policy.write_text('[[baseline]]\nrow = "worst.identification"\nresult = "older.json"\n')
    assert leakaudit("gate", older, "--policy", policy).code == 0


@pytest.mark.parametrize("command", ["gate", "report", "compare"])
def test_a_result_of_a_newer_schema_ends_with_two_and_says_so(leakaudit, tmp_path, command):
    data = {**sample_result().to_json(), "schema_version": 2, "new": {}}
    path = tmp_path / "newer.json"
    path.write_text(json.dumps(data))
    more = {"gate": ["--fail-on", "ssim>1"], "report": ["-o", "x.html"], "compare": [path]}
    done = leakaudit(command, path, *more[command])
    assert done.code == 2
    assert "is 2, but this leakaudit reads 1; update leakaudit" in done.said
    assert "by hand" not in done.said
