"""The shipped demo: its weights load, its judge sees, and Crafter's gradient points downhill."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch

import leakaudit.cli.scan  # noqa: F401 - the command registers itself
from leakaudit.cli.app import run
from leakaudit.core.rng import Rng
from leakaudit.defences import crafting
from leakaudit.defences.base import Workshop
from leakaudit.defences.crafter import Crafter, CrafterAtWork
from leakaudit.defences.goals import Own, privacy
from leakaudit.demo import load
from leakaudit.demo.load import FILES, WEIGHTS, demo_subject
from leakaudit.maths.hypergradient import gauss_newton, linearise, pull_at
from leakaudit.maths.inverse_hvp import ConjugateGradient
from leakaudit.models.best_response import LatentSearch
from leakaudit.models.subject import Subject
from leakaudit.report.json import read_result

TINY = """
[attacks.blackbox-decoder]
training.steps = 4
[attacks.whitebox-latent]
search.steps = 3
samples = 64
restarts = 1
widening.stages = 0
[defences.crafter]
worth = 1
start_steps = 1
outer_steps = 1
samples = 64
search.steps = 3
"""


@pytest.fixture(scope="module", autouse=True)
def _cheap_deployments() -> Iterator[None]:
    """A quarter of the public people, and a rougher mean curvature, which only preconditions.

    To draw and to measure them all takes longer than what is tested here.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crafting, "CROWD", 8)
        patch.setattr(crafting, "SAMPLES", 1)
        patch.setattr(load, "PUBLIC_PEOPLE", load.PUBLIC_PEOPLE // 4)
        patch.setattr(load, "public_images", cache(load.public_images))
        yield


@pytest.fixture(scope="module")
def subject() -> Subject:
    return demo_subject(1, attacked=20)


def test_the_shipped_weights_are_under_eight_megabytes():
    assert sum((WEIGHTS / f"{name}.safetensors").stat().st_size for name in FILES) < 8_000_000


def test_the_demos_oracle_names_new_people_by_their_originals(subject):
    named = subject.oracle.name_faces(subject.faces.images) == subject.faces.people
    assert subject.oracle.gallery_size == 200
    assert float(named.float().mean()) >= 0.9


def test_the_demos_head_reads_the_attributes_of_new_people(subject):
    logits = subject.head(subject.query(subject.faces.images))
    right = (logits > 0).float() == subject.faces.attributes
    assert float(right.float().mean()) > 0.95


@pytest.mark.slow
def test_a_small_step_against_the_hypergradient_lowers_the_privacy_loss_of_most_faces(subject):
    how = Crafter(worth=1.0, samples=200, search=LatentSearch(steps=60))
    workshop = Workshop(subject.encoder, subject.public, subject.prior)
    work = how.deploy(workshop, Rng(0))
    assert isinstance(work, CrafterAtWork)
    solve = ConjugateGradient(steps=15, tolerance=1e-4)
    images = subject.faces.images[:6]
    F = subject.query(images)
    z = work.invert(F)
    for _ in range(2):
        z = z + gauss_newton(linearise(work.response, z), F, solve=solve, damping=1e-3).x
    partners = torch.stack([work.partners(x, b"key") for x in images])
    goals = Own(work.measures, partners)
    before, slope = privacy(work.measures, goals, z)
    at = linearise(work.response, z)
    value = pull_at(at, slope, solve=solve, damping=1e-3).value
    length = value.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    size = 0.02 * F.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    stepped = F - size * value / length
    for _ in range(2):
        z = z + gauss_newton(linearise(work.response, z), stepped, solve=solve, damping=1e-3).x
    after, _ = privacy(work.measures, goals, z)
    assert float((after < before).float().mean()) >= 0.8


@pytest.mark.slow
def test_the_demo_scan_runs_end_to_end_and_says_that_too_few_faces_decide_nothing(tmp_path, capsys):
    preset = tmp_path / "tiny.toml"
    preset.write_text(TINY)
    folder = tmp_path / "run"
    arguments = ["scan", "--demo", "--attacked-people", "6", "--preset", str(preset)]
    code = run([*arguments, "--run-dir", str(folder), "--fail-on", "none.worst.ssim>0.999@value"])
    result = read_result(folder / "result.json")
    assert code == 3, capsys.readouterr().err
    assert result.verdict.status == "inconclusive"
    assert "too-few" in {doubt.id for doubt in result.doubts}
    assert list(result.plan["defences"]) == ["none", "crafter"]
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert not (folder / "stages").exists()
