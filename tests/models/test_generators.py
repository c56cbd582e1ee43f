"""Architectures and sizes of priors; and that the shipped one is what it was."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch.func import jvp
from torch.nn import functional as fn

from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.demo.load import WEIGHTS, _load
from leakaudit.models.decoder import Decoder
from leakaudit.models.generators import (
    ARCHITECTURES,
    Critic,
    Prior,
    PriorShape,
    check_side,
    default_shape,
    make_generator,
)
from leakaudit.models.oracle import EmbeddingNet
from leakaudit.models.weights import load_state
from leakaudit.models.widening import onwards

SIDES = [32, 48, 80, 112]


def prior_of(size: int, architecture: str) -> Prior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Prior(PriorShape(size, 6, 8, architecture)).eval()


def test_powers_of_two_begin_at_four_and_112_at_seven() -> None:
    begun = {size: (PriorShape(size).start, PriorShape(size).stages) for size in (32, 64, 128, 112)}
    assert begun == {32: (4, 3), 64: (4, 4), 128: (4, 5), 112: (7, 4)}
    for size in range(32, 257, 16):
        shape = PriorShape(size)
        assert shape.start * 2**shape.stages == size
        assert 4 <= shape.start <= 15


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
@pytest.mark.parametrize("size", SIDES)
def test_every_architecture_makes_faces_of_every_side(size: int, architecture: str) -> None:
    prior = prior_of(size, architecture)
    z = prior.draw(3, Rng(1))
    faces = prior(z).detach()
    assert faces.shape == (3, 3, size, size)
    assert float(faces.min()) > 0 and float(faces.max()) < 1
    assert prior.critic is not None and prior.critic(faces).shape == (3,)
    assert torch.equal(onwards(z, prior.stages()), faces)
    torch.testing.assert_close(
        torch.cat([prior(row[None]) for row in z]).detach(), faces, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_derivatives_along_a_latent_are_those_of_differences(architecture: str) -> None:
    prior = prior_of(48, architecture).double()
    z, way = prior.draw(2, Rng(1)), prior.draw(2, Rng(2))
    slope = jvp(prior, (z,), (way,))[1].detach()
    with torch.no_grad():
        difference = (prior(z + 1e-5 * way) - prior(z - 1e-5 * way)) / 2e-5
    assert float((slope - difference).norm() / difference.norm()) < 1e-4


def test_the_architectures_share_no_layer_but_the_first() -> None:
    one, other = (prior_of(64, name).generator for name in ("shuffle", "residual"))
    kinds = [{type(m).__name__ for m in net.modules()} for net in (one, other)]
    assert not {"_UpBlock", "Generator"} & kinds[1]
    assert default_shape("residual").latent != default_shape("shuffle").latent
    assert not {"_ResidualUp"} & kinds[0]


def test_an_unknown_architecture_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean residual"):
        default_shape("residua")
    with pytest.raises(UnknownNameError):
        make_generator(PriorShape(architecture="stylegan"))


@pytest.mark.parametrize(
    ("size", "near"), [(100, "96 or 112"), (16, "Take 32"), (0, "Take 32"), (113, "112 or 128")]
)
def test_a_side_that_nothing_can_make_names_the_nearest(size: int, near: str) -> None:
    with pytest.raises(UsageError, match=near):
        check_side(size)


@pytest.mark.parametrize("size", SIDES)
def test_decoder_and_judge_know_these_sides_too(size: int) -> None:
    assert EmbeddingNet(size=size, width=8)(torch.rand(2, 3, size, size)).shape == (2, 128)
    for shape in ((6, size // 4, size // 4), (6, size // 16, size // 16), (10,)):
        decoder = Decoder(torch.zeros(shape), torch.ones(shape), size=size, width=8)
        assert decoder(torch.rand(2, *shape)).shape == (2, 3, size, size)


def shipped(z: torch.Tensor) -> torch.Tensor:
    """The shipped generator from its file and its formula alone."""
    state = {k: v.float() for k, v in load_state(WEIGHTS / "prior.safetensors").items()}

    def of(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return state[f"generator.{name}.weight"], state[f"generator.{name}.bias"]

    def conv(x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = of(name)
        return fn.conv2d(x, weight.to(memory_format=torch.channels_last), bias, padding=1)

    x = fn.silu(fn.linear(z, *of("first"))).view(len(z), -1, 4, 4)
    for k in range(3):
        x = fn.pixel_shuffle(conv(x, f"blocks.{k}.conv"), 2)
        x = fn.silu(fn.group_norm(x, 8, *of(f"blocks.{k}.norm")))
    x = x + fn.silu(conv(x, "mix"))
    return torch.sigmoid(fn.pixel_shuffle(conv(x, "to_rgb"), 2))


def test_the_shipped_prior_draws_and_shows_the_very_bits_it_did() -> None:
    prior = _load("prior")
    assert isinstance(prior, Prior)
    z = prior.draw(3, Rng(1))
    assert hashlib.sha256(z.numpy().tobytes()).hexdigest()[:16] == "5c59fa84e98131e5"
    with torch.no_grad():
        assert torch.equal(prior(z), shipped(z))


def test_a_critic_looks_at_pictures_of_112() -> None:
    assert Critic(PriorShape(112, 4, 8))(torch.rand(2, 3, 112, 112)).shape == (2,)
