"""Real faces and a real judge, where ``LEAKAUDIT_DATA`` names them; nothing of them is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import leakaudit.cli.scan  # noqa: F401 - the command registers itself
from leakaudit.cli.app import run
from leakaudit.report.json import read_result

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
HERE = Path(__file__).parent

PRESET = """
[attacks.blackbox-decoder]
training.steps = 20
[attacks.whitebox-latent]
search.steps = 5
samples = 60
restarts = 1
[training]
public = 200
prior.steps = 20
oracle.steps = 20
"""


def test_a_scan_of_real_faces_with_a_judge_of_the_users_own_ends_with_a_result(tmp_path):
    data = Path(os.environ["LEAKAUDIT_DATA"])
    preset = tmp_path / "tiny.toml"
    preset.write_text(PRESET)
    folder = data / "celeba_dev120" / "images"
    code = run(
        [
            "scan", "--encoder", f"{HERE / 'mobilefacenet.py'}:ms1m",
            "--weights", str(data / "weights" / "mobilefacenet_ms1m_112x112_128d.pt"),
            "--layer", "blocks.5", "--images", str(folder),
            "--attributes", str(data / "celeba_dev120" / "attributes.csv"),
            "--crop", "42,85,136,179", "--public", str(data / "utkface_public8k" / "images"),
            "--oracle", f"{HERE / 'mobilefacenet.py'}:casia",
            "--oracle-weights", str(data / "weights" / "mobilefacenet_casia_112x96_128d.pt"),
            "--mean", "0,0,0", "--std", "1,1,1", "--attacked-people", "8",
            "--preset", str(preset), "--run-dir", str(tmp_path / "run"), "--quiet",
        ]
    )  # fmt: skip
    assert code == 0
    result = read_result(tmp_path / "run" / "result.json")
    clean = result.score("none", "original", "identification")
    assert clean is not None
    assert clean.value is not None
    assert clean.value > 0.5
    assert result.gallery_mode in {"redacted", "none"}
    assert all(picture.png is None for row in result.gallery for picture in row.pictures)
    assert {doubt.id for doubt in result.doubts} >= {"too-few"}
