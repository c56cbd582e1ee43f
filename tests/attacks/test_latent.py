"""whitebox-latent on toys: the metric, the restarts, the rehearsal, and what is counted."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from toys import LATENT, SIDE, ToyFaces, ToyPrior, named, normal, pooling_encoder, toy_faces

from leakaudit.attacks.base import Guess
from leakaudit.attacks.latent import LatentReady, WhiteBoxLatent
from leakaudit.core.rng import Rng
from leakaudit.core.threats import WhiteBox
from leakaudit.maths.descent import Descent
from leakaudit.models.prior import Prior, PriorShape
from leakaudit.models.widening import Widening


@cache
def faces() -> ToyFaces:
    return toy_faces(per_person=2)


def small(**changes: object) -> WhiteBoxLatent:
    settings = {"samples": 200, "public": 80, "search": Descent(steps=25, patience=8), **changes}
    return WhiteBoxLatent(**settings)  # type: ignore[arg-type]


def run(how: WhiteBoxLatent, encoder: nn.Module, prior: nn.Module | None = None) -> Guess:
    ready = how.prepare(WhiteBox(faces().public, encoder, prior or faces().prior), Rng(1))
    with torch.no_grad():
        seen = encoder(faces().images)
    return ready.reconstruct(seen, Rng(2))


class Folding(nn.Module):
    """Waves of the pooled picture: features that no linear map undoes, so that starts matter."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(30 * (pooling_encoder()(x) - 0.5))


@cache
def pattern() -> Tensor:
    board = torch.ones(SIDE, SIDE)
    board[::2, 1::2] = board[1::2, ::2] = -1  # pooling averages it away
    return board.expand(3, SIDE, SIDE) / (3 * SIDE * SIDE)


class Leaning(nn.Module):
    """Features in which the loud numbers also move with the picture, so that they can mislead."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = pooling_encoder()(x).flatten(1)
        detail = (x.flatten(1) * pattern().flatten()).sum(1, keepdim=True)
        lean = (pooled - 0.5) @ normal(48, 1, seed=22)
        return torch.cat([pooled, 3 * lean + 60 * detail], dim=1)


def with_detail(images: Tensor, seed: int) -> Tensor:
    return (images + 0.1 * normal(len(images), 1, 1, 1, seed=seed) * pattern().sign()).clamp(0, 1)


def test_what_the_prior_cannot_express_does_not_mislead_the_search() -> None:
    encoder, toy = Leaning(), faces()
    public, seen = with_detail(toy.public, 23), encoder(with_detail(toy.images, 24))
    ready = small().prepare(WhiteBox(public, encoder, toy.prior), Rng(1))
    weighed = ready.reconstruct(seen, Rng(2)).images
    assert weighed is not None

    # Plain least squares, which trusts every number alike, in closed form.
    z = torch.zeros(1, LATENT)
    J = torch.autograd.functional.jacobian(lambda z: encoder(toy.prior(z))[0], z)[:, 0]
    plain = toy.prior(torch.linalg.lstsq(J, (seen - encoder(toy.prior(z))).T).solution.T)
    errors = [float((made - toy.images).square().mean()) for made in (weighed, plain)]
    assert errors[0] < 0.5 * errors[1]


def test_undefended_toy_people_are_found_from_pooled_pixels() -> None:
    guess = run(small(), pooling_encoder())
    assert guess.images is not None and named(faces(), guess.images) == 1.0
    assert guess.effort.converged


def test_passes_are_those_that_were_made() -> None:
    made = 0

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal made
            made += len(x) * (3 if x.requires_grad else 1)
            return pooling_encoder()(x)

    ready = small().prepare(WhiteBox(faces().public, Counting(), faces().prior), Rng(1))
    seen = pooling_encoder()(faces().images)
    once = ready.reconstruct(seen, Rng(2)).effort.passes
    assert once == made
    assert once <= small().passes_ahead(len(seen))
    again = ready.reconstruct(seen, Rng(2)).effort.passes
    assert again == once  # preparing counts each time, other reconstructions don't


def test_more_restarts_never_lose_and_help_where_features_fold() -> None:
    few, many = (
        run(small(restarts=count, rehearsed=0, search=Descent(steps=6)), Folding()).loss
        for count in (1, 4)
    )
    assert few is not None and many is not None
    assert bool((many <= few).all()) and bool((many < few).any())


def test_only_faces_worse_than_the_rehearsed_ones_start_again() -> None:
    how = small(restarts=3)
    ready = how.prepare(WhiteBox(faces().public, pooling_encoder(), faces().prior), Rng(1))
    assert isinstance(ready, LatentReady)
    seen = pooling_encoder()(faces().images)
    strange = seen.clone()
    strange[0] = 1 - 2 * strange[0]
    found = ready._search(strange, restarts=3)
    content = ready._content
    first = ready._search(strange, restarts=1)
    assert float(found.starts[0]) > 1
    assert torch.equal(found.starts > 1, first.loss > content)


def test_a_prior_without_stages_is_not_widened() -> None:
    assert "0 stages" in str(run(small(), pooling_encoder()).effort.note)


def shipped() -> Prior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Prior(PriorShape(size=32, latent=LATENT, width=8)).eval().requires_grad_(False)


def prepared(encoder: nn.Module, public: Tensor) -> LatentReady:
    how = small(samples=40, public=16, rehearsed=4, widening=Widening(stages=2, steps=6))
    ready = how.prepare(WhiteBox(public, encoder, shipped()), Rng(1))
    assert isinstance(ready, LatentReady)
    return ready


def test_stages_are_widened_as_long_as_public_faces_come_nearer() -> None:
    public = (0.5 + 0.15 * normal(24, 3, 32, 32, seed=25)).clamp(0, 1)
    ready = prepared(nn.AvgPool2d(4), public)
    assert ready._depth > 0
    features = nn.AvgPool2d(4)(public[:2])
    guess = ready.reconstruct(features, Rng(2))
    assert guess.images is not None and guess.latents is not None
    within = shipped()(guess.latents)
    apart = [float((x - public[:2]).square().mean()) for x in (guess.images, within)]
    assert apart[0] < apart[1]


def test_the_toy_prior_has_what_the_attack_asks_of_a_prior() -> None:
    guess = run(small(), pooling_encoder(), ToyPrior())
    assert guess.latents is not None and guess.latents.shape == (len(faces().images), LATENT)
