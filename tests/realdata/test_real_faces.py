"""Real faces and a real judge, where ``LEAKAUDIT_DATA`` names them; nothing of them is kept."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
import torch
import torchvision

import leakaudit.cli.scan  # noqa: F401 - the command registers itself
from leakaudit.cli.app import run
from leakaudit.core.by_layer import by_depth, layer_of, parts
from leakaudit.models.weights import save_safetensors
from leakaudit.report import depth
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


LAYERS = ("layer1", "layer2", "layer3")
TINY = """
[attacks.blackbox-decoder]
training.steps = 5
training.batch = 8
[attacks.whitebox-latent]
search.steps = 2
samples = 20
restarts = 1
[training]
public = 60
prior.steps = 5
prior.batch = 8
oracle.steps = 5
oracle.batch = 8
probe.steps = 5
"""


def labels_of_a_few(images: Path, table: Path, *, people: int, pictures: int) -> Path:
    """A table file,person of the first people: the other pictures are passed over, not aligned."""
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "person"])
        for person in sorted(images.iterdir())[:people]:
            for picture in sorted(person.iterdir())[:pictures]:
                rows.writerow([picture.relative_to(images).as_posix(), person.name])
    return table


@pytest.fixture(scope="module")
def three_layers(tmp_path_factory):
    """Aligned faces, a prior trained on aligned public ones, and a ResNet18 at three layers."""
    place, data = tmp_path_factory.mktemp("layers"), Path(os.environ["LEAKAUDIT_DATA"])
    (place / "tiny.toml").write_text(TINY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # ImageNet's weights aren't to be had here
        network = torchvision.models.resnet18(weights=None)
    save_safetensors(place / "drawn.safetensors", network.state_dict())
    images = data / "celeba_dev120" / "images"
    labels = labels_of_a_few(images, place / "labels.csv", people=10, pictures=4)
    code = run(
        [
            "scan", "--encoder", "torchvision:resnet18",
            "--weights", str(place / "drawn.safetensors"), "--layer", ",".join(LAYERS),
            "--images", str(images), "--labels", str(labels), "--align", "mtcnn",
            "--attributes", str(data / "celeba_dev120" / "attributes.csv"),
            "--public", str(data / "utkface_public8k" / "images"),
            "--oracle", f"{HERE / 'mobilefacenet.py'}:casia",
            "--oracle-weights", str(data / "weights" / "mobilefacenet_casia_112x96_128d.pt"),
            "--preset", str(place / "tiny.toml"), "--defence", "gaussian:sigma=0.5",
            "--fail-on", "worst-static.identification>0.9", "--no-cache",
            "--run-dir", str(place / "run"), "-o", str(place / "note.md"), "--quiet",
        ]
    )  # fmt: skip
    assert code in (0, 1, 3)
    result = read_result(place / "run" / "result.json")
    assert result.verdict.exit_code == code
    return result, (place / "note.md").read_text(), place / "run"


def test_real_aligned_faces_go_from_a_trained_prior_to_a_table_by_depth(three_layers):
    result, note, folder = three_layers
    assert [layer_of(part) for part in by_depth(result)] == list(LAYERS)
    for part in parts(result):
        assert (part.subject["align"], part.subject["people"]) == ("mtcnn", 10)
        assert 50 <= part.subject["public_images"] <= 60  # those in which no face is found go
    assert (folder / "prior.safetensors").is_file()
    rows = depth.rows(result)
    depths = [row.depth for row in rows if row.depth is not None]
    assert len(depths) == 3
    assert 0 < depths[0] < depths[1] < depths[2] < 1
    for row in rows:
        assert [cell.defence for cell in row.cells] == ["none", "gaussian:sigma=0.5"]
        assert all(cell.worst.n == 10 and 0 <= cell.ceiling <= 1 for cell in row.cells)
        assert all(0 <= cell.floor <= 1 for cell in row.cells)
    told = note.partition("### Where may I split?")[2]
    assert [line.split("`")[1] for line in told.splitlines() if line.startswith("| `layer")] == [
        *LAYERS
    ]


def test_the_verdict_on_real_faces_is_over_the_gates_of_all_layers(three_layers):
    result, _, _ = three_layers
    assert sorted(gate.layer for gate in result.gates) == list(LAYERS)
    assert all(gate.defence == "gaussian:sigma=0.5" for gate in result.gates)
    found = {gate.status for gate in result.gates}
    order = ("fail", "inconclusive", "pass")
    assert result.verdict.status == next(status for status in order if status in found)


def test_reports_of_real_faces_hold_none_of_them(three_layers):
    result, _, folder = three_layers
    for part in parts(result):
        assert all(picture.png is None for row in part.gallery for picture in row.pictures)
    assert {f"report-{layer}.html" for layer in LAYERS} < {p.name for p in folder.iterdir()}
    for report in folder.glob("report*.html"):
        assert "data:image" not in report.read_text()
