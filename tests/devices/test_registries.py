"""Every attack, defence and metric runs on a device other than the CPU, and gives what it gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from contract import test_attacks, test_defences, test_metrics
from simulated import accelerator, moved
from small import SMALL
from toys import ToyHead, pooling_encoder

from leakaudit.attacks import ATTACKS
from leakaudit.attacks.base import Guess, ReadyAttack
from leakaudit.core.rng import Rng
from leakaudit.core.threats import Bench, ThreatModel
from leakaudit.defences import DEFENCES
from leakaudit.defences.base import Workshop
from leakaudit.metrics import METRICS

FEWER: dict[str, dict[str, Any]] = {
    "whitebox-pixel": {"descent.steps": 8},
    "whitebox-hybrid": {"descent.steps": 4},
    "whitebox-dip": {"descent.steps": 8},
    "whitebox-latent": {"search.steps": 10},
    "blackbox-decoder": {"training.steps": 12},
    "adaptive-averaging": {"releases": 2, "queries": 12, "pairs": 40},
    "adaptive-averaging-purifier": {"releases": 2, "queries": 12, "pairs": 40},
    "adaptive-purifier": {"queries": 12, "pairs": 40},
}
"""Where an operation takes a hundred times as long, a few steps say whether its tensors meet."""

LOOSE = {"adaptive-decoder": 0.05, "whitebox-dip": 1e-3}
"""The one chooses between starts that are equal but for rounding, the other runs grouped."""


@pytest.fixture
def device() -> Iterator[torch.device]:
    with accelerator() as found:
        yield found


def held(kind: type[ThreatModel], device: torch.device) -> ThreatModel:
    faces, encoder = test_attacks.faces(), pooling_encoder()
    things: dict[str, Any] = {
        "public": faces.public,
        "query": encoder,
        "encoder": encoder,
        "prior": faces.prior,
        "head": ToyHead(),
        "known": faces.images,
        "labels": faces.people,
    }
    things = moved(things, device) | {
        "release": lambda x, count: torch.stack([encoder(x)] * count),
        "recogniser": faces.oracle.embed,
        "bench": Bench(
            {
                name: partial(standing, name, device)
                for name in ("blackbox-decoder", "whitebox-latent")
            }
        ),
    }
    return kind(**{field.name: things[field.name] for field in dataclasses.fields(kind)})


def standing(name: str, device: torch.device) -> ReadyAttack:
    """One of the attacks that others build on, so that nobody trains it at length."""
    how = ATTACKS.make(name, SMALL[name] | FEWER[name])
    return how.prepare(held(how.holds, device), Rng(3, (name,)))


def guess(name: str, device: torch.device) -> Guess:
    how = ATTACKS.make(name, SMALL.get(name, {}) | FEWER.get(name, {}))
    ready = how.prepare(held(how.holds, device), Rng(1, (name,)))
    return ready.reconstruct(test_attacks.seen(name, test_attacks.features().to(device)), Rng(2))


@pytest.mark.parametrize("name", ATTACKS.names())
def test_an_attack_guesses_on_a_device_what_it_guesses_on_the_cpu(
    name: str, device: torch.device
) -> None:
    there, here = guess(name, device), guess(name, torch.device("cpu"))
    found, expected = test_attacks.told(there).cpu(), test_attacks.told(here)
    torch.testing.assert_close(found, expected, rtol=0, atol=LOOSE.get(name, 1e-4))
    assert there.effort.passes == pytest.approx(here.effort.passes, rel=0.01)
    assert there.effort.curve == pytest.approx(here.effort.curve, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", DEFENCES.names())
def test_a_defence_releases_on_a_device_what_it_releases_on_the_cpu(
    name: str, device: torch.device
) -> None:
    faces = test_defences.faces()
    shop = Workshop(*(moved(x, device) for x in (pooling_encoder(), faces.public, faces.prior)))
    deployed = test_defences.defence(name).deploy(shop, Rng(1, (name,)))
    released = deployed.release(faces.images.to(device), Rng(2))
    expected = test_defences.released(name)
    assert released.features.device == device
    torch.testing.assert_close(released.features.cpu(), expected.features, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_scores_pictures_on_a_device_as_it_scores_the_cpus(
    name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path))
    here = test_metrics.evidence(test_metrics.copies(0.5))
    there = dataclasses.replace(
        here, originals=here.originals.to(device), reconstructions=here.reconstructions.to(device)
    )
    a, b = test_metrics.metric(name)(here), test_metrics.metric(name)(there)
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-5)
