"""What every defence in the registry promises, ours and those that other packages bring."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import ToyFaces, pooling_encoder, toy_faces

from leakaudit.core.rng import Rng
from leakaudit.defences import DEFENCES
from leakaudit.defences.base import Defence, Deployed, Released, Workshop

SMALL: dict[str, dict[str, Any]] = {
    "crafter": {
        "plan_size": 3, "samples": 60, "start_steps": 4, "outer_steps": 4, "search.steps": 10,
        "solve_steps": 8, "worth": 1.0,
    },
    "crafter-z": {"plan_size": 3, "samples": 60, "steps": 4, "search.steps": 10, "worth": 1.0},
    "crafter-residual": {
        "plan_size": 3, "samples": 60, "steps": 4, "search.steps": 10, "worth": 1.0,
    },
    "crafter-paper": {"outer_steps": 2, "inner_steps": 5, "critic_steps": 2, "terms": 5},
}  # fmt: skip
REPLAYED = ("none", "crafter", "crafter-z", "crafter-residual")
DRAWN = {"gaussian"}  # its noise is drawn for the whole release, so slices start over

every_defence = pytest.mark.parametrize("name", DEFENCES.names())


@cache
def faces() -> ToyFaces:
    return toy_faces()


def defence(name: str) -> Defence:
    return DEFENCES.make(name, SMALL.get(name, {}))


def workshop() -> Workshop:
    return Workshop(pooling_encoder(), faces().public, faces().prior)  # type: ignore[arg-type]


@cache
def deployed(name: str) -> Deployed:
    return defence(name).deploy(workshop(), Rng(1, (name,)))


@cache
def released(name: str) -> Released:
    return deployed(name).release(faces().images, Rng(2))


def features() -> Tensor:
    return pooling_encoder()(faces().images)


@every_defence
def test_releases_have_the_shape_of_the_feature(name: str) -> None:
    out = released(name)
    assert out.features.shape == features().shape
    assert out.features.dtype == features().dtype
    assert bool(out.features.isfinite().all())
    assert not out.features.requires_grad
    assert out.passes > 0 and out.steps >= 0


@every_defence
def test_same_seed_same_bits(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again = defence(name).deploy(workshop(), Rng(1, (name,))).release(faces().images, Rng(2))
    assert torch.equal(again.features, released(name).features)
    assert torch.equal(torch.get_rng_state(), before)


@every_defence
def test_a_fresh_stream_is_a_fresh_release(name: str) -> None:
    again = deployed(name).release(faces().images, Rng(3)).features
    assert torch.equal(again, released(name).features) == (name in REPLAYED)


def test_crafter_without_replay_draws_fresh_partners_for_each_release() -> None:
    how = DEFENCES.make("crafter", {**SMALL["crafter"], "replay": "false"})
    at_work = how.deploy(workshop(), Rng(1))
    first, second = (at_work.release(faces().images, Rng(k)).features for k in (3, 4))
    assert not torch.equal(first, second)
    assert torch.equal(first, at_work.release(faces().images, Rng(3)).features)


@every_defence
def test_inputs_are_untouched(name: str) -> None:
    images, public = faces().images.clone(), faces().public.clone()
    defence(name).deploy(workshop(), Rng(4)).release(faces().images, Rng(5))
    assert torch.equal(images, faces().images)
    assert torch.equal(public, faces().public)


@every_defence
@pytest.mark.parametrize("size", [1, 3])
def test_releases_do_not_depend_on_batch_size(name: str, size: int) -> None:
    if name in DRAWN or defence(name).coupling == "batch":
        pytest.skip("declares or draws its release by the batch")
    parts = [deployed(name).release(x, Rng(2)).features for x in faces().images.split(size)]
    torch.testing.assert_close(torch.cat(parts), released(name).features, rtol=0, atol=1e-5)


@every_defence
def test_a_face_does_not_feel_the_others_of_its_batch(name: str) -> None:
    if defence(name).coupling == "batch":
        pytest.skip("declares that it couples a batch")
    swapped = faces().images.clone()
    swapped[1:] = faces().images[1:].flip(0)
    out = deployed(name).release(swapped, Rng(2)).features
    torch.testing.assert_close(out[0], released(name).features[0], rtol=0, atol=1e-5)


@every_defence
def test_configuration_is_frozen_and_the_docstring_names_the_source(name: str) -> None:
    kind = DEFENCES.find(name)
    assert dataclasses.is_dataclass(kind) and kind.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        defence(name).name = "another"  # type: ignore[misc]
    assert kind.coupling in ("image", "batch")
    assert kind.source and kind.source.split(",")[0].split(" ")[0] in (kind.__doc__ or "")


@every_defence
def test_the_plan_can_ask_for_the_passes_ahead(name: str) -> None:
    assert 0 < defence(name).passes_ahead(2) < defence(name).passes_ahead(20)
