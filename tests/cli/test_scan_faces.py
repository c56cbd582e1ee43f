"""Alignment, pairs and heads by the command line, from folders to the result."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from audit.toy_subject import SIZE, people
from PIL import Image
from portraits import portrait

import leakaudit.cli.doctor
import leakaudit.cli.scan  # noqa: F401 - the commands register themselves
from leakaudit.audit import own
from leakaudit.core.rng import Rng
from leakaudit.report.json import read_result

PRESET = """
[attacks.blackbox-decoder]
training.steps = 4
training.batch = 8
[training]
prior.steps = 2
oracle.steps = 2
probe.steps = 2
"""
NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, answers=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4)
        self.act = nn.ReLU()
        self.last = nn.Linear(4, answers)
    def forward(self, x):
        x = self.act(self.conv(x))
        return self.last(x.mean((2, 3)))
class Around(Net):
    def forward(self, x):
        return super().forward(x) + x.mean((1, 2, 3))[:, None]
class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2)
    def forward(self, feature):
        return self.last(feature.mean((2, 3)))
class Wide(Head):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)
def three():
    return Net(3)
"""


@pytest.fixture
def folders(tmp_path):
    """Ten people with four pictures each, LFW's way, 40 others, attributes and a network."""
    for name, count, pictures in (("private", 10, 4), ("public", 40, 1)):
        images, who = people(count, pictures, Rng(3, (name,)))
        for index, (image, person) in enumerate(zip(images, who.tolist(), strict=True)):
            place = tmp_path / name / f"{name}_{chr(97 + person)}"
            place.mkdir(parents=True, exist_ok=True)
            array = (image * 255).round().byte().permute(1, 2, 0).numpy()
            stem = f"{place.name}_{index % pictures + 1:04d}"
            Image.fromarray(array).save(place / f"{stem}.png")
    with (tmp_path / "attributes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "red", "bright"])
        for index, path in enumerate(sorted((tmp_path / "private").rglob("*.png"))):
            rows.writerow([path.name, index % 2, index // 2 % 2])
    (tmp_path / "small.toml").write_text(PRESET)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


@pytest.fixture
def scan(leakaudit, folders):
    def run(*options, layer="act", factory="Net"):
        done = leakaudit(
            "scan", "--encoder", folders / f"net.py:{factory}", "--layer", layer,
            "--images", folders / "private", "--public", folders / "public", "--input-size", SIZE,
            "--preset", folders / "small.toml", "--run-dir", folders / "run", *options,
        )  # fmt: skip
        path = folders / "run" / "result.json"
        return done, read_result(path) if done.code == 0 and path.is_file() else None

    return run


def ids(result) -> dict[str, str]:
    return {doubt.id: doubt.severity for doubt in result.doubts}


def test_the_clouds_own_half_is_the_head(scan, folders):
    done, result = scan("--attributes", folders / "attributes.csv", "--head", "cloud")
    assert done.code == 0, done.said
    assert result.subject["head"] == "the network's own rest behind 'act'"
    assert {row.metric for row in result.utility} == {"auc", "accuracy", "auc:red", "auc:bright"}
    assert not any("probe" in line for line in result.subject["trained"])
    assert result.score("none", "worst", "verification").value is not None


def test_a_users_head_is_the_head(scan, folders):
    torch.save({"last.weight": torch.ones(2, 4), "last.bias": torch.zeros(2)}, folders / "h.pt")
    done, result = scan(
        "--attributes", folders / "attributes.csv", "--head", folders / "net.py:Head",
        "--head-weights", folders / "h.pt",
    )  # fmt: skip
    assert done.code == 0, done.said
    assert result.subject["head"] == "the user's net.py:Head"
    assert len(result.subject["head_sha256"]) == 64


def test_without_a_head_the_probe_is_said(scan, folders):
    done, result = scan("--attributes", folders / "attributes.csv")
    assert done.code == 0, done.said
    assert "linear probe" in result.subject["head"]


@pytest.mark.parametrize(
    ("layer", "factory", "options", "told"),
    [
        ("act", "three", ("--head", "cloud"), "one logit for each of the 2 attributes"),
        ("act", "Net", ("--head", "cloud", "--head-weights", "x.pt"), "from --weights"),
        ("act", "Net", ("--head", "nowhere.py:Head"), "There is no such Python file"),
        ("act", "Net", ("--head", "resnet"), "doesn't name a network"),
    ],
)
def test_a_head_that_cannot_be_is_told(scan, folders, layer, factory, options, told):
    done, _ = scan(
        "--attributes", folders / "attributes.csv", *options, layer=layer, factory=factory
    )
    assert done.code == 2 and told in done.said


def test_a_head_that_the_feature_does_not_reach_is_told_before_any_picture_is_read(scan, folders):
    done, _ = scan(
        "--attributes", folders / "attributes.csv", "--head", "cloud", factory="Around"
    )  # fmt: skip
    assert done.code == 2, done.said
    assert "doesn't follow from the feature at 'act' alone" in done.said
    assert "leakaudit layers" in done.said and "--head file.py:factory" in done.said
    assert "Private faces" not in done.said


@pytest.mark.parametrize("head", ["cloud", "net.py:Wide"])
def test_a_head_that_does_not_fit_is_told_before_anything_is_trained(
    scan, folders, monkeypatch, head
):
    def stop(*_, **__):
        raise AssertionError

    monkeypatch.setattr(own, "make_judges", stop)
    monkeypatch.chdir(folders)
    done, _ = scan("--attributes", folders / "attributes.csv", "--head", head, factory="three")
    assert done.code == 2
    assert "one logit for each of the 2 attributes" in done.said


def test_a_head_without_attributes_is_told(scan):
    done, _ = scan("--head", "cloud")
    assert done.code == 2 and "--head needs --attributes" in done.said


def test_weights_behind_the_split_must_be_there_for_the_clouds_half(scan, folders):
    torch.manual_seed(0)
    state = {"conv.weight": torch.randn(4, 3, 4, 4), "conv.bias": torch.zeros(4)}
    torch.save(state, folders / "edge.pt")
    given = ("--attributes", folders / "attributes.csv", "--weights", folders / "edge.pt")
    done, _ = scan(*given, "--head", "cloud")
    assert done.code == 2 and "last.weight" in done.said


def test_pairs_say_what_is_attacked_and_compared(scan, folders):
    letters = "abcdefghij"
    same = [f"private_{c}\t1\t3" for c in letters]
    two = [
        f"private_{c}\t2\tprivate_{d}\t4" for c, d in zip(letters, letters[1:] + "a", strict=True)
    ]
    (folders / "pairs.txt").write_text("\n".join(["1\t10", *same, *two]) + "\n")
    done, result = scan("--pairs", folders / "pairs.txt")
    assert done.code == 0, done.said
    assert "10 of 10 pairs of one person" in done.said
    assert result.subject["images"] == 10 and len(result.subject["pairs_sha256"]) == 64
    clean = result.score("none", "original", "verification")
    assert clean.value is not None and "comparisons of different people" in clean.note


def test_pairs_that_lie_in_the_folder_are_pointed_at(scan, folders):
    (folders / "private" / "pairs.txt").write_text("1\n")
    done, _ = scan()
    assert done.code == 0 and "--pairs takes and compares its pairs" in done.said


def test_a_faulty_pairs_file_is_told(scan, folders):
    (folders / "pairs.txt").write_text("ann 1\n")
    done, _ = scan("--pairs", folders / "pairs.txt")
    assert done.code == 2 and "Line 1 is no pair" in done.said


def test_people_on_both_sides_are_doubted_and_named_on_the_terminal_only(scan, folders):
    (folders / "public" / "private_c").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folders / "public/private_c/other.png")
    done, result = scan("--fail-on", "identification>0.999@value")
    assert "On both sides by name: private_c" in done.said
    result = read_result(folders / "run" / "result.json")
    assert ids(result)["overlapping-people"] == "serious"
    assert "private_c" not in (folders / "run" / "result.json").read_text()
    assert "few-public" in ids(result)


def test_aligned_faces_are_scanned_and_others_skipped(leakaudit, tmp_path):
    for k in range(10):
        for n in range(4):
            place = tmp_path / "private" / f"ann{chr(97 + k)}"
            place.mkdir(parents=True, exist_ok=True)
            face = portrait(10 * k + 1).rotate(4 * n - 6, fillcolor=(90, 90, 90))
            face.save(place / f"{n}.png")
    (tmp_path / "public").mkdir()
    for k in range(20):
        portrait(500 + k).save(tmp_path / "public" / f"{k}.png")
    Image.new("RGB", (90, 90), "grey").save(tmp_path / "public" / "wall.png")
    (tmp_path / "small.toml").write_text(PRESET)
    (tmp_path / "net.py").write_text(NET)
    done = leakaudit(
        "scan", "--encoder", tmp_path / "net.py:Net", "--layer", "act", "--images",
        tmp_path / "private", "--public", tmp_path / "public", "--input-size", SIZE, "--preset",
        tmp_path / "small.toml", "--run-dir", tmp_path / "run", "--align", "mtcnn",
    )  # fmt: skip
    assert done.code == 0, done.said
    assert "without a face that was found" in done.said
    assert read_result(tmp_path / "run" / "result.json").subject["align"] == "mtcnn"


@pytest.mark.parametrize("command", ["scan", "doctor"])
def test_align_and_crop_exclude_each_other(leakaudit, folders, command):
    sources = (
        "--encoder",
        folders / "net.py:Net",
        "--layer",
        "act",
        "--images",
        folders / "private",
    )
    public = ("--public", folders / "public") if command == "scan" else ()
    done = leakaudit(command, *sources, *public, "--align", "mtcnn", "--crop", "0,0,9,9")
    assert done.code == 2 and "--crop and --align" in done.said
    done = leakaudit(command, *sources, *public, "--align", "mtcn")
    assert done.code == 2 and "no way of aligning" in done.said


def test_both_sides_are_cut_or_the_verdict_is_in_doubt(scan):
    """Pictures of one extent, of which the private ones alone are cut, are of two framings."""
    box = "4,4,28,28"
    done, cut = scan("--crop", box)
    assert done.code == 0, done.said
    assert ids(cut)["public-uncut"] == "serious"
    (told,) = (doubt for doubt in cut.doubts if doubt.id == "public-uncut")
    assert f"--public-crop {box}" in told.what_to_do
    assert "--public-crop 0,0,32,32" in told.what_to_do
    assert (cut.subject["crop"], cut.subject["public_crop"]) == (box, "none")
    done, both = scan("--crop", box, "--public-crop", box)
    assert done.code == 0 and "public-uncut" not in ids(both), done.said
    assert both.subject["public_sha256"] != cut.subject["public_sha256"]
    assert both.subject["faces_sha256"] == cut.subject["faces_sha256"]
    done, _ = scan("--public-crop", "9,9,3,3")
    assert done.code == 2 and "holds no pixels" in done.said
    done, _ = scan("--public-crop", box, "--align", "mtcnn")
    assert done.code == 2 and "--public-crop and --align" in done.said


def test_doctor_aligns_too(leakaudit, folders, tmp_path):
    for k in range(2):
        for n in range(2):
            (tmp_path / "faces" / f"p{k}").mkdir(parents=True, exist_ok=True)
            portrait(k + 1).rotate(6 * n).save(tmp_path / "faces" / f"p{k}" / f"{n}.png")
    done = leakaudit(
        "doctor", "--encoder", folders / "net.py:Net", "--layer", "act", "--images",
        tmp_path / "faces", "--input-size", SIZE, "--align", "mtcnn:1.3",
    )  # fmt: skip
    assert done.code == 0 and "4 of 4 pictures used" in done.said


@pytest.mark.parametrize("option", ["--align", "--pairs", "--head", "--head-weights"])
def test_the_demo_brings_its_own(leakaudit, option):
    done = leakaudit("scan", "--demo", option, "x")
    assert done.code == 2 and option in done.said
