"""A user's own subject and an export on the simulated device: trained and released there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audit.edges import FACTORY, Small
from audit.toy_subject import people
from PIL import Image
from simulated import accelerator
from torch import Tensor, nn

from leakaudit.audit.edge import Edge
from leakaudit.audit.own import Sources, own_subjects
from leakaudit.audit.prior_training import PriorRequest, train_to_file
from leakaudit.core.keys import seed_key
from leakaudit.core.registry import configure
from leakaudit.core.rng import Rng
from leakaudit.defences import DEFENCES
from leakaudit.models import devices
from leakaudit.models.prior import Prior, PriorShape, PriorTraining
from leakaudit.models.prior_files import load_prior
from leakaudit.models.programs import Batch, Program

TRAINING = {
    "prior.steps": 2, "prior.batch": 4, "prior.critic_from": 0.5, "oracle.steps": 2,
    "oracle.batch": 4, "probe.steps": 2,
}  # fmt: skip


@pytest.fixture
def device(monkeypatch):
    """The device, with all in float32: half precision rounds otherwise on each kind of device."""
    monkeypatch.setattr(devices, "has_half", lambda _: False)
    with accelerator() as found:
        yield found


def save(folder: Path, images: Tensor, who: Tensor) -> None:
    for k, (image, person) in enumerate(zip(images, who, strict=True)):
        path = folder / f"p{int(person)}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path)


@pytest.fixture
def sources(tmp_path):
    save(tmp_path / "private", *people(6, 4, Rng(1)))
    save(tmp_path / "public", *people(64, 1, Rng(2)))
    rows = sorted((tmp_path / "private").rglob("*.png"))
    lines = [f"{p.parent.name}/{p.name},{k % 2},{k // 2 % 2}" for k, p in enumerate(rows)]
    (tmp_path / "attributes.csv").write_text("\n".join(["file,one,two", *lines]), encoding="utf-8")
    (tmp_path / "net.py").write_text(FACTORY, encoding="utf-8")
    return Sources(
        encoder=f"{tmp_path / 'net.py'}:make", layers=("a", "last"), images=tmp_path / "private",
        public=tmp_path / "public", folder=tmp_path / "cpu", size=32, cache=False,
        attributes=tmp_path / "attributes.csv",
    )  # fmt: skip


def test_judge_prior_and_probe_are_trained_on_the_device_as_on_the_cpu(sources, device, tmp_path):
    def made(where, folder):
        asked = replace(sources, device=where, folder=tmp_path / folder)
        return own_subjects(asked, training=TRAINING, say=lambda _: None, note=lambda _: None)

    for here, there in zip(made(torch.device("cpu"), "a"), made(device, "b"), strict=True):
        assert there.device == device and there.faces.images.device.type == "cpu"
        for name in ("encoder", "prior", "head"):
            mine, theirs = (getattr(subject, name).state_dict() for subject in (here, there))
            assert all(value.device == device for value in theirs.values()), name
            for key, value in mine.items():
                torch.testing.assert_close(theirs[key].cpu(), value, rtol=1e-3, atol=1e-3)
        few = here.faces.images[:4]
        torch.testing.assert_close(there.query(few).cpu(), here.query(few))
        torch.testing.assert_close(
            there.oracle.embed(few), here.oracle.embed(few), rtol=0, atol=1e-3
        )


def test_a_prior_that_is_trained_there_is_written_from_the_cpu(sources, device, tmp_path):
    def written(where, name):
        request = PriorRequest(
            public=sources.public, out=tmp_path / name, size=32, latent=6, width=8,
            training=PriorTraining(steps=3, batch=8), device=where,
        )  # fmt: skip
        made = train_to_file(request, note=lambda _: None, progress=lambda _, __: None)
        assert all(sheet.is_file() for sheet in made.sheets)
        return load_prior(made.out)[0].state_dict()

    here = written(torch.device("cpu"), "a.safetensors")
    there = written(device, "b.safetensors")
    for key, value in here.items():
        torch.testing.assert_close(there[key], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["gaussian", pytest.param("crafter", marks=pytest.mark.slow)])
def test_an_edge_releases_to_the_cpu_what_the_device_made(name, device):
    def released(where):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            prior = Prior(PriorShape(size=32, latent=6, width=8)).eval().requires_grad_(False)
        few = (
            {"start_steps": 2, "outer_steps": 2, "samples": 40, "search.steps": 3, "worth": 1.0}
            if name == "crafter"
            else {}
        )
        how = configure(DEFENCES.find(name), few, where=name)
        edge = Edge(Small().eval(), prior, how, seed_key(1), block=4, device=where)
        return edge.protect(people(6, 1, Rng(4))[0])

    here, there = released(torch.device("cpu")), released(device)
    assert there.features.device.type == "cpu" and not there.faults
    torch.testing.assert_close(there.features, here.features, rtol=0, atol=1e-3)
    assert there.losses.keys() == here.losses.keys()


def test_a_program_that_stays_at_home_answers_where_it_is_asked(device):
    net = nn.Conv2d(3, 4, 3)
    program = Program(net, name="net.pt2", batch=Batch(), at_home=True).to(device)
    images = torch.zeros(2, 3, 8, 8).to(device).requires_grad_()
    answer = program(images)
    assert net.weight.device.type == "cpu" and answer.device == device
    torch.testing.assert_close(answer.cpu(), net(images.detach().cpu()))
    (slope,) = torch.autograd.grad(answer.sum(), images)
    assert slope.device == device and float(slope.abs().max()) > 0
