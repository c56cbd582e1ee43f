"""Planted worlds: an encoder that leaks all must be broken, one that leaks nothing must not be."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import (
    PEOPLE,
    ConstantEncoder,
    NoiseEncoder,
    ToyFaces,
    ToyHead,
    named,
    pooling_encoder,
    toy_faces,
)

from leakaudit.attacks import ATTACKS
from leakaudit.attacks.base import Guess
from leakaudit.attacks.pairs import held_out, learnable, queried
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import BlackBox, NoFeature, WhiteBox
from leakaudit.maths.intervals import Interval, wilson

CHANCE = 1 / PEOPLE
SHORT = {
    "blackbox-decoder": {"training.steps": 60, "training.batch": 16},
    "whitebox-latent": {"samples": 100, "search.steps": 30},
}


@cache
def faces() -> ToyFaces:
    return toy_faces(per_person=4)


@cache
def run(name: str, encoder_kind: Any) -> Guess:
    """The guess about the toy people behind this kind of encoder; None is average pooling."""
    encoder = pooling_encoder() if encoder_kind is None else encoder_kind()
    toy, prior = faces(), faces().prior
    held = {
        "blackbox-decoder": lambda: BlackBox(toy.public, encoder),
        "whitebox-latent": lambda: WhiteBox(toy.public, encoder, prior),
    }.get(name, lambda: NoFeature(toy.public, encoder, prior, ToyHead()))()
    ready = ATTACKS.make(name, SHORT.get(name, {})).prepare(held, Rng(1))
    return ready.reconstruct(encoder(toy.images), Rng(2))


def interval(images: Tensor) -> Interval:
    rate = named(faces(), images)
    return wilson(round(rate * len(images)), len(images))


def test_the_toy_oracle_names_every_original() -> None:
    assert named(faces(), faces().images) == 1.0


@pytest.mark.parametrize("name", SHORT)
def test_an_average_pooling_encoder_is_broken(name: str) -> None:
    assert named(faces(), run(name, None).images) >= 0.9


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("encoder", [ConstantEncoder, NoiseEncoder])
def test_an_encoder_without_information_gives_the_controls_numbers(name: str, encoder: Any) -> None:
    images = run(name, encoder).images
    assert bool(images.isfinite().all())
    attack = interval(images)
    assert attack.low <= CHANCE
    highest = max(
        interval(run(control, encoder).images).high for control in ("control-prior", "control-mean")
    )
    assert attack.value <= highest


def test_control_prior_names_nobody_beyond_chance_and_ignores_the_feature() -> None:
    assert interval(run("control-prior", None).images).low <= CHANCE
    assert torch.equal(
        run("control-prior", None).images, run("control-prior", ConstantEncoder).images
    )


def test_control_mean_is_the_mean_public_face() -> None:
    images = run("control-mean", None).images
    expected = faces().public.double().mean(0).float()
    torch.testing.assert_close(images, expected.expand_as(images), rtol=0, atol=1e-6)
    assert named(faces(), images) == CHANCE


def test_control_attributes_sees_what_the_head_tells_and_nothing_else() -> None:
    told = named(faces(), run("control-attributes", None).images)
    blind = run("control-attributes", ConstantEncoder).images
    assert CHANCE < told < named(faces(), run("whitebox-latent", None).images)
    torch.testing.assert_close(blind, blind[:1].expand_as(blind), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["control-prior", "control-attributes"])
def test_a_control_without_what_it_needs_says_so(name: str) -> None:
    nothing = NoFeature(faces().public, pooling_encoder(), None, None)
    with pytest.raises(UsageError, match="needs a"):
        ATTACKS.make(name, {}).prepare(nothing, Rng(1))


def test_the_decoder_tells_its_loss_on_public_pictures_held_out() -> None:
    effort = run("blackbox-decoder", None).effort
    assert effort.steps == 60 and effort.passes == len(learnable(faces().public))
    assert len(effort.curve) == 11 and effort.curve[-1] < 0.5 * effort.curve[0]
    expected = (effort.curve[5] - effort.curve[-1]) / effort.curve[5]
    assert effort.last_change == pytest.approx(expected)


def test_a_search_that_still_falls_is_not_converged_and_a_longer_one_is() -> None:
    short, long = (
        ATTACKS.make("whitebox-latent", {"samples": 60, "search.steps": steps})
        .prepare(WhiteBox(faces().public, pooling_encoder(), faces().prior), Rng(1))
        .reconstruct(pooling_encoder()(faces().images), Rng(2))
        for steps in (2, 200)
    )
    assert not short.effort.converged
    assert long.effort.converged
    assert long.loss is not None and short.loss is not None
    assert bool((long.loss <= short.loss + 1e-4).all())
    assert float(long.loss.mean()) < float(short.loss.mean())


@pytest.mark.parametrize("count", [40, 160, 2000])
def test_networks_learn_from_no_picture_that_judges_adaptive_attacks(count: int) -> None:
    public = torch.arange(count)
    judges = queried(public, 32)[: held_out(32)].tolist()
    learnt = learnable(public).tolist()
    assert learnt == sorted(learnt) and len(learnt) == count - min(64, count // 8)
    if count // 8 >= held_out(32):
        assert not set(judges) & set(learnt)


def test_at_most_64_pictures_judge() -> None:
    assert [held_out(n) for n in (8, 32, 128, 256, 320, 1024)] == [4, 6, 25, 51, 64, 64]
