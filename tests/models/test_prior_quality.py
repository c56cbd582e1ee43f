"""The figure of a prior on planted generators: perfect, collapsed, narrow, foreign."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.maths.emd import emd
from leakaudit.models.generators import Prior, PriorShape
from leakaudit.models.prior_quality import (
    Quality,
    best_reconstructions,
    hold_out,
    measure,
)

COUNT, SIDE, LATENT = 96, 32, 24


class Planted(nn.Module):
    """A smooth linear world of faces: latents (N, 24) to pictures about a grey mean."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        shapes = torch.randn(LATENT, 3, 4, 4, generator=generator)
        shapes = shapes / torch.arange(1, LATENT + 1)[:, None, None, None] ** 0.5
        self.register_buffer("shapes", 0.08 * fn.interpolate(shapes, SIDE, mode="bilinear"))

    def forward(self, z: Tensor) -> Tensor:
        shapes = self.get_buffer("shapes")
        return (0.5 + torch.einsum("nk,kcij->ncij", z, shapes)).clamp(0, 1)

    def stages(self):
        return (self,)


WORLD = Planted()
PRIOR = Prior(PriorShape(SIDE, LATENT), WORLD)
FIT, HELD = PRIOR.sample(400, Rng(1)), PRIOR.sample(COUNT, Rng(2))


def perfect(count: int, rng: Rng) -> Tensor:
    return PRIOR.sample(count, rng)


def mean_face(count: int, rng: Rng) -> Tensor:
    return FIT.mean(0).expand(count, -1, -1, -1)


def one_face(count: int, rng: Rng) -> Tensor:
    return FIT[:1].expand(count, -1, -1, -1)


def four_faces(count: int, rng: Rng) -> Tensor:
    return FIT[torch.randint(4, (count,), generator=rng.torch())]


def half_as_wide(count: int, rng: Rng) -> Tensor:
    return WORLD(0.5 * PRIOR.draw(count, rng))


def brighter(count: int, rng: Rng) -> Tensor:
    return (PRIOR.sample(count, rng) + 0.3).clamp(0, 1)


def noise(count: int, rng: Rng) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=rng.torch())


def judged(draw, rebuilt: Tensor = HELD[:8]) -> Quality:
    return measure(draw, rebuilt, FIT, HELD, Rng(3))


def test_more_real_faces_are_a_perfect_prior() -> None:
    made = judged(perfect)
    assert abs(made.gap) < 0.1
    assert made.diversity == pytest.approx(1, abs=0.1)
    assert made.error == 0 and made.mean_error > 0.05
    assert made.faces == COUNT
    assert made.verdict.startswith("good")


@pytest.mark.parametrize("draw", [mean_face, one_face, four_faces])
def test_a_collapsed_prior_is_told_so(draw) -> None:
    made = judged(draw)
    assert made.diversity < 0.5
    assert made.gap > 0.3
    assert made.verdict.startswith("collapsed")


def test_a_plain_distance_would_praise_the_mean_face() -> None:
    """Why what samples owe to their own spread is taken off."""

    def varied(count: int, rng: Rng) -> Tensor:  # in all of 192 directions
        return torch.rand(count, 3, 8, 8, generator=rng.torch())

    def grey(count: int, rng: Rng) -> Tensor:
        return torch.full((count, 3, 8, 8), 0.5)

    fit, held = varied(200, Rng(1)), varied(64, Rng(2))
    assert float(emd(grey(64, Rng(0)).flatten(1), held.flatten(1))) < 0.8 * float(
        emd(varied(64, Rng(0)).flatten(1), held.flatten(1))
    )
    one, other = (measure(draw, held[:4], fit, held, Rng(3)) for draw in (grey, varied))
    assert one.gap > other.gap + 0.3 and abs(other.gap) < 0.1


def test_a_narrow_prior_a_foreign_one_and_noise_are_told_apart() -> None:
    assert judged(half_as_wide).diversity == pytest.approx(0.5, abs=0.1)
    assert judged(half_as_wide).verdict.split(":")[0] in ("narrow", "collapsed")
    assert judged(brighter).verdict.startswith("far")
    assert not judged(noise).verdict.startswith("good")


def test_a_prior_that_shows_no_unseen_face_is_blind() -> None:
    blind = FIT.mean(0).expand(8, -1, -1, -1)
    made = judged(perfect, blind)
    assert made.error == pytest.approx(made.mean_error)
    assert made.verdict.startswith("blind")


def test_faces_within_reach_are_rebuilt_and_others_are_not() -> None:
    start = torch.zeros(8, LATENT)
    near = best_reconstructions(PRIOR, HELD[:8], start)
    assert float((near - HELD[:8]).square().mean().sqrt()) < 0.3 * judged(perfect).mean_error
    far = best_reconstructions(PRIOR, noise(8, Rng(1)), start)
    assert float((far - noise(8, Rng(1))).square().mean().sqrt()) > 0.2


def test_the_same_seed_gives_the_same_figures() -> None:
    assert judged(perfect) == judged(perfect)


def test_held_out_faces_are_a_tenth_and_none_of_them_is_trained_on() -> None:
    images = torch.arange(300.0).view(-1, 1, 1, 1)
    fit, held = hold_out(images, Rng(1))
    assert (len(fit), len(held)) == (270, 30)
    assert sorted([*fit.flatten().tolist(), *held.flatten().tolist()]) == list(range(300))
    assert len(hold_out(images[:64], Rng(1))[1]) == 16
    with pytest.raises(UsageError, match="Only 63 public pictures"):
        hold_out(images[:63], Rng(1))
