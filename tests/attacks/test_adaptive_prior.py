"""The white-box adversary learns from public releases what their inversions stand for."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from planted import Protect
from releases import CHANCE, encode, faces, pipeline, white
from torch import Tensor, nn
from toys import normal

from leakaudit.attacks.adaptive_prior import AdaptivePrior
from leakaudit.attacks.base import Guess, ReadyAttack
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveWhiteBox, Bench

LATENT = WhiteBoxLatent(samples=80, restarts=1)
SMALL = AdaptivePrior(queries=40, steps=40, batch=16, latent=LATENT)


class Linear(nn.Module):
    """The toy prior with weights that can be taught."""

    def __init__(self) -> None:
        super().__init__()
        toy = faces().prior
        self.shape = toy.shape
        self.W, self.b = nn.Parameter(toy.W.clone()), nn.Parameter(toy.b.clone())
        self.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.W.T + self.b).view(-1, *faces().images.shape[1:])

    def draw(self, count: int, rng: Rng) -> Tensor:
        return faces().prior.draw(count, rng)


def held(turn: Tensor | None, prior: nn.Module | None = None) -> AdaptiveWhiteBox:
    there = white(pipeline(turned(turn), 5))
    return AdaptiveWhiteBox(there.public, there.encoder, prior or Linear(), there.release)


def turned(turn: Tensor | None) -> Protect:
    """A defence that releases the feature of another face of the prior: z becomes ``turn z``."""
    toy = faces().prior

    def protect(features: Tensor, rng: torch.Generator) -> Tensor:
        if turn is None:
            return features
        base = encode(toy(torch.zeros(1, 8)))
        shown = (encode(toy(torch.eye(8))) - base).flatten(1)
        z = (features - base).flatten(1) @ torch.linalg.pinv(shown)
        return encode(toy(z @ turn))

    return protect


TURN = torch.linalg.qr(normal(8, 8, seed=1)).Q


def named(guess: Guess) -> float:
    assert guess.images is not None
    return float((faces().oracle.name_faces(guess.images) == faces().people).float().mean())


def released(turn: Tensor | None) -> Tensor:
    return pipeline(turned(turn), 6)(faces().images, 1)[0]


def test_a_turn_of_the_latents_looks_safe_to_the_static_search_and_is_broken() -> None:
    static = LATENT.prepare(held(TURN), Rng(1)).reconstruct(released(TURN), Rng(2))
    guess = SMALL.prepare(held(TURN), Rng(1)).reconstruct(released(TURN), Rng(2))
    assert named(static) <= 3 * CHANCE
    assert named(guess) >= 0.9
    assert guess.effort.note is not None and "map among latents" in guess.effort.note


def test_the_updated_generator_shows_held_out_pictures_better_than_the_given_one() -> None:
    z, images = normal(60, 8, seed=2), faces().prior(normal(60, 8, seed=2) @ TURN)
    start = Linear()
    fit, seen = (z[:40], images[:40]), (z[40:], images[40:])
    made = AdaptivePrior(steps=150, batch=16, rate=3e-3)._updated(start, fit, seen, Rng(1))
    before = float((start(seen[0]) - seen[1]).square().mean())
    after = float((made(seen[0]) - seen[1]).square().mean())
    assert after < 0.3 * before
    assert not any(p.requires_grad for p in made.parameters())


def test_an_update_is_never_worse_than_its_start_on_held_out_pictures() -> None:
    z = normal(30, 8, seed=2)
    images = faces().prior(z)
    start = Linear()
    wild = AdaptivePrior(steps=20, batch=4, rate=5.0)
    made = wild._updated(start, (z[:20], images[:20]), (z[20:], images[20:]), Rng(1))
    torch.testing.assert_close(made(z), start(z))


def test_the_given_prior_is_left_as_it_was() -> None:
    prior = Linear()
    before = copy.deepcopy(prior.state_dict())
    SMALL.prepare(held(TURN, prior), Rng(1))
    assert all(torch.equal(before[key], value) for key, value in prior.state_dict().items())
    assert not any(p.requires_grad for p in prior.parameters())


def test_undefended_people_are_named_as_by_the_static_search() -> None:
    guess = SMALL.prepare(held(None), Rng(1)).reconstruct(released(None), Rng(2))
    assert named(guess) >= 0.9
    assert guess.loss is not None and guess.loss.shape == (len(faces().images),)


def test_the_static_search_is_judged_by_all_that_it_shows() -> None:
    """With widening it shows more than the prior can at its latents."""

    class Wide(ReadyAttack):
        def __init__(self) -> None:
            self._search = LATENT.prepare(held(None), Rng(1))

        def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
            guess = self._search.reconstruct(features, rng)
            assert guess.latents is not None
            return replace(guess, latents=normal(*guess.latents.shape, seed=4).to(guess.latents))

    known = replace(held(None), bench=Bench({LATENT.name: Wide}))
    guess = SMALL.prepare(known, Rng(1)).reconstruct(released(None), Rng(2))
    assert guess.effort.note is not None and guess.effort.note.startswith("the prior as it is;")
    assert named(guess) >= 0.9


def test_queries_are_declared_and_nonsense_is_refused() -> None:
    assert SMALL.queries_ahead().pictures == 40
    assert AdaptivePrior(repeats=3).queries_ahead().releases == 3
    with pytest.raises(UsageError, match="rate"):
        AdaptivePrior(rate=0)
