"""Pixel, hybrid and deep-prior attacks in worlds where what they ought to find is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import (
    LATENT,
    PEOPLE,
    SIDE,
    ConstantEncoder,
    LinearEncoder,
    ToyFaces,
    named,
    normal,
    pooling_encoder,
    toy_faces,
)

from leakaudit.attacks.base import Attack, Effort, Guess, ReadyAttack
from leakaudit.attacks.dip import DeepImagePrior, WhiteBoxDip
from leakaudit.attacks.hybrid import WhiteBoxHybrid
from leakaudit.attacks.image_space import WEIGHTS, FeatureMatch, PictureSearch
from leakaudit.attacks.pixel import WhiteBoxPixel
from leakaudit.core.rng import Rng
from leakaudit.core.threats import Bench, WhiteBox
from leakaudit.maths.descent import Descent
from leakaudit.maths.image_priors import PublicSpace

CHANCE = 1 / PEOPLE
ATTACKS: dict[str, Callable[[], Attack]] = {
    "pixel": lambda: WhiteBoxPixel(descent=Descent(steps=40)),
    "dip": lambda: WhiteBoxDip(descent=Descent(steps=40, rate=0.01), width=8),
    "hybrid": lambda: WhiteBoxHybrid(descent=Descent(steps=40)),
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


@cache
def faces() -> ToyFaces:
    return toy_faces()


class Planted(ReadyAttack):
    """An attack that stands already and gives these pictures."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.asked = images, 0

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        self.asked += len(features)
        return Guess(self.images[: len(features)], None, Effort(0, 7))


def planted(**images: Tensor) -> Bench:
    """A bench with the parents of the hybrid; those that aren't named give grey."""
    grey = torch.full_like(faces().images, 0.5)
    names = {"decoder": "blackbox-decoder", "ridge": "blackbox-ridge", "latent": "whitebox-latent"}
    return Bench(
        {name: lambda key=key: Planted(images.get(key, grey)) for key, name in names.items()}
    )


def held(encoder: Any, *, bench: Bench | None = None, prior: Any = "toy") -> WhiteBox:
    prior = faces().prior if prior == "toy" else prior
    return WhiteBox(faces().public, encoder, prior, bench=bench or planted())


def run(name: str, encoder: Any, images: Tensor | None = None) -> Guess:
    images = faces().images if images is None else images
    return ATTACKS[name]().prepare(held(encoder), Rng(1)).reconstruct(encoder(images), Rng(2))


def error(images: Tensor, true: Tensor) -> float:
    """Squared error as a share of how much public pictures vary."""
    return float((images - true).square().mean() / faces().public.var(0).mean())


@every_attack
def test_people_behind_average_pooling_are_named(name: str) -> None:
    assert named(faces(), run(name, pooling_encoder()).images) >= 0.9


@every_attack
def test_a_feature_without_information_names_nobody(name: str) -> None:
    guess = run(name, ConstantEncoder())
    assert bool(guess.images.isfinite().all()) and bool(guess.loss.isfinite().all())
    torch.testing.assert_close(
        guess.images, guess.images[:1].expand_as(guess.images), rtol=0, atol=1e-5
    )
    assert named(faces(), guess.images) == CHANCE


@every_attack
def test_a_face_fares_alone_as_it_does_among_others(name: str) -> None:
    encoder = LinearEncoder(width=60)
    features = encoder(faces().images[:4])
    ready = ATTACKS[name]().prepare(held(encoder), Rng(1))
    whole = ready.reconstruct(features, Rng(2)).images
    parts = [ready.reconstruct(part, Rng(2)).images for part in features.split([1, 3])]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-4)


@every_attack
def test_passes_told_are_passes_made_and_within_the_estimate(name: str) -> None:
    made = [0]

    class Counting(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made[0] += len(x) * (3 if x.requires_grad else 1)
            return pooling_encoder()(x)

    features = pooling_encoder()(faces().images)
    attack = ATTACKS[name]()
    effort = attack.prepare(held(Counting()), Rng(1)).reconstruct(features, Rng(2)).effort
    parents = 3 * 7 if name == "hybrid" else 0  # what the planted ones claim
    assert effort.passes == made[0] + parents
    assert effort.passes <= attack.passes_ahead(len(features)) + parents
    assert effort.curve[-1] < effort.curve[0] and len(effort.curve) == effort.steps + 1


def test_the_gap_of_an_ordinary_face_to_the_mean_feature_is_about_one() -> None:
    for unit in (1.0, 1e3):
        encoder = torch.nn.Sequential(LinearEncoder(), ScaledBy(unit))
        match = FeatureMatch.of(held(encoder))
        fresh = faces().prior(normal(300, LATENT, seed=12))
        mean = encoder(faces().public).mean(0)
        assert float(match(fresh, mean).mean()) == pytest.approx(1.0, rel=0.15)


class ScaledBy(torch.nn.Module):
    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        return self.unit * x


def test_the_search_ends_where_ridge_regression_in_its_coordinates_does() -> None:
    encoder = LinearEncoder(width=40)
    search = dataclasses.replace(PictureSearch.of(held(encoder)), variation=torch.inf, weight=0.1)
    features = encoder(faces().images)
    done = search.run(features, search.mean(PEOPLE), Descent(steps=150, gain=1e-6))
    with torch.no_grad():
        base = encoder(search.space.mean[None])
        J = (encoder(search.space.pictures(torch.eye(search.space.width))) - base).double()
    penalty = search.weight * search.match.scale / search.space.width
    dual = torch.linalg.solve(
        J.T @ J + penalty * torch.eye(40, dtype=torch.float64), (features - base).double().T
    )
    expected = search.space.pictures((J @ dual).T.float())
    assert float(expected.min()) > 0 and float(expected.max()) < 1, "no bound may be active"
    torch.testing.assert_close(search.pictures(done.points), expected, rtol=0, atol=2e-3)


def test_what_the_encoder_does_not_see_is_filled_in_as_public_pictures_have_it() -> None:
    encoder = LinearEncoder(width=20)  # of 768 numbers a picture
    features, images = encoder(faces().images), faces().images
    search = PictureSearch.of(held(encoder))
    plain = dataclasses.replace(
        search,
        space=PublicSpace(
            search.space.mean, torch.zeros(0, 768), torch.zeros(0), torch.full((SIDE, 9), 0.1)
        ),
    )
    errors = []
    for one in (search, plain):
        done = one.run(features, one.mean(PEOPLE), Descent(steps=100))
        assert float(one.match(one.pictures(done.points), features).max()) < 0.05
        errors.append(error(one.pictures(done.points), images))
    white, own = errors
    assert white < 0.05 and own > 0.5


def test_the_weight_is_the_one_that_rebuilds_his_own_pictures_best() -> None:
    class Unsteady(torch.nn.Module):
        """Linear, but the features that he inverts (made without gradient) are far from clean."""

        def forward(self, x: Tensor) -> Tensor:
            clean = LinearEncoder(width=60)(x)
            noise = 1.5 * float(clean.detach().std()) * normal(len(x), 60, seed=13)
            return clean if torch.is_grad_enabled() else clean + noise

    assert PictureSearch.of(held(LinearEncoder(width=60))).weight == WEIGHTS[0]
    assert PictureSearch.of(held(Unsteady())).weight == WEIGHTS[-1]


def test_the_picture_search_is_made_once_for_all_attacks_and_draws_nothing() -> None:
    adversary = held(pooling_encoder())
    assert PictureSearch.of(adversary) is PictureSearch.of(adversary)
    features = pooling_encoder()(faces().images[:2])
    one, other = (
        ATTACKS["pixel"]().prepare(adversary, Rng(seed)).reconstruct(features, Rng(seed)).images
        for seed in (1, 2)
    )
    assert torch.equal(one, other)


def test_a_pixel_search_cut_short_is_not_converged_and_a_long_one_is() -> None:
    encoder = pooling_encoder()
    features = encoder(faces().images)
    short, long = (
        WhiteBoxPixel(descent=Descent(steps=steps))
        .prepare(held(encoder), Rng(1))
        .reconstruct(features, Rng(2))
        for steps in (4, 120)
    )
    assert not short.effort.converged and short.effort.last_change is None
    assert long.effort.converged and long.details["settled"] == 1.0
    assert long.effort.steps < 120, "all faces left before the budget was spent"
    assert bool((long.loss < short.loss).all())


def test_the_hybrid_keeps_for_each_face_the_start_with_the_least_own_loss() -> None:
    true, grey = faces().images, torch.full_like(faces().images, 0.5)
    even = (torch.arange(PEOPLE) % 2 == 0)[:, None, None, None]
    bench = planted(decoder=torch.where(even, true, grey), latent=torch.where(even, grey, true))
    encoder = pooling_encoder()
    ready = WhiteBoxHybrid(descent=Descent(steps=0)).prepare(held(encoder, bench=bench), Rng(1))
    guess = ready.reconstruct(encoder(true), Rng(2))
    torch.testing.assert_close(guess.images, true, rtol=0, atol=1e-5)
    shares = {key: share for key, share in guess.details.items() if key.startswith("from")}
    assert shares == {"from the decoder": 0.5, "from the ridge": 0.0, "from the latent": 0.5}


@pytest.mark.parametrize("same", [True, False])
def test_a_guess_on_the_bench_is_taken_for_exactly_its_features(same: bool) -> None:
    true, encoder, bench = faces().images, pooling_encoder(), planted()
    features = encoder(true)
    known = features if same else features + 1e-6
    bench.keep_guess("whitebox-latent", known, Guess(true, None, Effort(0, 1000)))
    ready = WhiteBoxHybrid(descent=Descent(steps=0)).prepare(held(encoder, bench=bench), Rng(1))
    guess = ready.reconstruct(features, Rng(2))
    assert guess.details["from the latent"] == (1.0 if same else 0.0)
    asked = bench.once("whitebox-latent", lambda: pytest.fail("it stands")).asked
    assert asked == (0 if same else PEOPLE)


def test_the_hybrid_ends_below_every_start() -> None:
    encoder = LinearEncoder(width=60)
    true = faces().images
    bench = planted(decoder=(true + 0.1 * normal(*true.shape, seed=14)).clamp(0, 1))
    adversary = held(encoder, bench=bench)
    features = encoder(true)
    guess = ATTACKS["hybrid"]().prepare(adversary, Rng(1)).reconstruct(features, Rng(2))
    search = PictureSearch.of(adversary)
    for name in ("blackbox-decoder", "blackbox-ridge", "whitebox-latent"):
        parent = adversary.shared(name, lambda: pytest.fail("it must stand on the bench"))
        start = search.space.coordinates(parent.images)
        assert parent.asked == PEOPLE
        assert bool((guess.loss < search.loss(features)(start, torch.arange(PEOPLE))).all())
    assert error(guess.images, true) < 0.1 * error(
        bench.once("blackbox-decoder", dict).images, true
    )


def test_without_a_prior_the_hybrid_starts_from_decoder_and_ridge() -> None:
    encoder = pooling_encoder()
    ready = ATTACKS["hybrid"]().prepare(held(encoder, prior=None), Rng(1))
    guess = ready.reconstruct(encoder(faces().images), Rng(2))
    assert "latent" not in guess.effort.note and named(faces(), guess.images) >= 0.9


def test_parents_that_stand_nowhere_are_trained_on_public_pictures() -> None:
    bench = Bench({"blackbox-decoder": lambda: Planted(torch.full_like(faces().images, 0.5))})
    ready = WhiteBoxHybrid(descent=Descent(steps=0)).prepare(
        held(pooling_encoder(), bench=bench, prior=None), Rng(1)
    )
    guess = ready.reconstruct(pooling_encoder()(faces().images), Rng(2))
    assert guess.details["from the ridge"] == 1.0, "a linear world is the ridge's"
    assert error(guess.images, faces().images) < 0.01


def test_networks_side_by_side_draw_what_each_draws_alone() -> None:
    net = DeepImagePrior(faces().public.mean(0), Rng(3), width=5, levels=3)
    weights = net.first + 0.3 * normal(4, net.first.numel(), seed=15)
    alone = torch.cat([net(w[None]) for w in weights])
    torch.testing.assert_close(net.together(weights), alone, rtol=0, atol=1e-5)
    assert torch.equal(net(weights), alone)
    assert float((alone[0] - alone[1]).abs().max()) > 0.05
    assert net.levels == 2, "16 pixels halve twice until 4 are left"


def test_the_first_picture_of_a_network_is_about_the_mean_public_face() -> None:
    net = DeepImagePrior(faces().public.mean(0), Rng(3), width=16, levels=3)
    gap = (net(net.first[None])[0] - faces().public.mean(0)).abs()
    assert 0 < float(gap.mean()) < 0.1


@pytest.mark.parametrize("size", [(3, 13, 18), (3, 8, 8)])
def test_networks_draw_pictures_of_any_size(size: tuple[int, int, int]) -> None:
    net = DeepImagePrior(torch.full(size, 0.5), Rng(3), width=4, levels=3)
    assert net(net.first.expand(2, -1)).shape == (2, *size)
