"""The prior's shapes and what its training promises; quality is the demo build's to show."""

from __future__ import annotations

import pytest
import torch
from toys import normal

from leakaudit.core.rng import Rng
from leakaudit.models import devices
from leakaudit.models.prior import (
    Critic,
    Prior,
    PriorLog,
    PriorShape,
    PriorTraining,
    _match_standard_normal,
    train_prior,
)

TINY = PriorShape(size=32, latent=6, width=8)
SHORT = PriorTraining(steps=3, batch=4, critic_from=0.4)
IMAGES = (0.5 + 0.2 * normal(16, 3, 32, 32, seed=1)).clamp(0, 1)


def train(images: torch.Tensor = IMAGES, seed: int = 1, mirror: bool = True, reports=None):
    return train_prior(
        images, shape=TINY, training=SHORT, rng=Rng(seed), mirror=mirror,
        report=(lambda log: None) if reports is None else reports.append,
    )  # fmt: skip


@pytest.mark.parametrize("size", [32, 64, 128])
def test_faces_have_the_size_that_was_asked_for(size: int) -> None:
    shape = PriorShape(size=size, latent=6, width=8)
    prior = Prior(shape)
    faces = prior.sample(3, Rng(1))
    assert faces.shape == (3, 3, size, size)
    assert float(faces.min()) > 0 and float(faces.max()) < 1
    assert Critic(shape)(faces).shape == (3,)
    assert not faces.requires_grad
    assert prior(prior.draw(2, Rng(1))).requires_grad  # inversion needs the gradient


def test_latents_are_standard_normal_and_belong_to_the_stream() -> None:
    prior = Prior(TINY)
    z = prior.draw(4000, Rng(1))
    assert z.shape == (4000, 6) and z.dtype == torch.float32
    assert float(z.mean().abs()) < 0.03 and float(z.std()) == pytest.approx(1.0, abs=0.03)
    assert torch.equal(z, prior.draw(4000, Rng(1)))
    assert not torch.equal(z, prior.draw(4000, Rng(2)))


def test_samples_do_not_depend_on_batch_size() -> None:
    prior = Prior(TINY)
    torch.testing.assert_close(
        prior.sample(5, Rng(1), batch=1), prior.sample(5, Rng(1), batch=128), rtol=0, atol=1e-6
    )


def test_same_seed_same_weights_and_another_seed_others() -> None:
    first, again, other = train()[0], train()[0], train(seed=2)[0]
    state = first.state_dict()
    assert all(torch.equal(state[name], value) for name, value in again.state_dict().items())
    assert not torch.equal(first.generator.to_rgb.weight, other.generator.to_rgb.weight)


def test_a_training_leaves_finite_frozen_networks_and_a_log() -> None:
    logs: list[PriorLog] = []
    prior, encode = train(reports=logs)
    assert all(bool(p.isfinite().all()) for p in prior.parameters())
    assert not any(p.requires_grad for p in prior.parameters())
    assert not prior.training
    assert encode(IMAGES[:2]).shape == (2, TINY.latent)
    assert [log.step for log in logs] == [3]
    assert 0 < logs[0].rmse < 1 and logs[0].divergence >= 0


def test_with_and_without_half_precision_it_learns_the_same(monkeypatch) -> None:
    learnt = []
    for half in (True, False):
        monkeypatch.setattr(devices, "has_half", lambda device, half=half: half)
        learnt.append(train()[0].state_dict())
    halved, full = learnt
    for name, value in full.items():
        torch.testing.assert_close(halved[name], value, rtol=0.05, atol=0.02)
    assert not torch.equal(halved["generator.to_rgb.weight"], full["generator.to_rgb.weight"])


def test_a_training_neither_reads_nor_moves_global_randomness() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train()
    assert torch.equal(torch.get_rng_state(), before)


def test_bytes_and_fractions_are_the_same_pictures() -> None:
    whole = (IMAGES * 255).round().to(torch.uint8)
    a, b = train(whole)[0], train(whole.float() / 255)[0]
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def test_it_learns_the_mean_face_in_few_steps() -> None:
    dark = torch.full((16, 3, 32, 32), 0.15)
    logs: list[PriorLog] = []
    train_prior(
        dark, shape=TINY, rng=Rng(1), mirror=False, report=logs.append,
        training=PriorTraining(steps=80, batch=4, rate=1e-2, critic_from=1.0),
    )  # fmt: skip
    assert logs[-1].rmse < 0.2  # grey, where the sigmoid begins, is 0.35 away


def test_latents_are_moved_to_the_standard_normal_without_changing_a_picture() -> None:
    """A linear posterior whose latents have another mean and covariance, and G that undoes it."""
    generator = torch.Generator().manual_seed(5)
    prior = Prior(TINY).eval().requires_grad_(False)
    mix = torch.randn(TINY.latent, TINY.latent, generator=generator)
    images = torch.rand(400, 3, TINY.size, TINY.size, generator=generator)

    class Posterior(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = 9 * x.flatten(1)[:, : TINY.latent] @ mix + 3
            return torch.cat([mean, torch.full_like(mean, -20.0)], dim=1)

    posterior = Posterior()
    before = prior(posterior(images)[:, : TINY.latent])
    encode = _match_standard_normal(prior.generator, posterior, images, generator)
    latents = encode(images)
    assert torch.allclose(prior(latents), before, atol=1e-4)
    assert torch.allclose(latents.mean(0), torch.zeros(TINY.latent), atol=0.1)
    assert torch.allclose(torch.cov(latents.T), torch.eye(TINY.latent), atol=0.2)
