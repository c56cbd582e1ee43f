"""An attack sees features and what its threat model lists; here is what follows from that."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from torch import Tensor
from toys import LATENT, ToyFaces, ToyHead, pooling_encoder, toy_faces

from leakaudit.attacks import ATTACKS
from leakaudit.attacks.base import Guess, ReadyAttack
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.core.rng import Rng
from leakaudit.core.threats import THREATS, BlackBox, Informed, NoFeature, ThreatModel, WhiteBox
from leakaudit.models.best_response import Amortiser, LatentSearch, starts

POSSESSIONS = {"public", "query", "prior", "head", "encoder", "release"}
SETTINGS = {
    "blackbox-decoder": {"training.steps": 20, "training.batch": 8},
    "whitebox-latent": {"samples": 60, "search.steps": 10},
}

every_attack = pytest.mark.parametrize("name", [kind.name for kind in ATTACKS])


@cache
def faces() -> ToyFaces:
    return toy_faces(per_person=2)


def held(name: str) -> ThreatModel:
    encoder, toy = pooling_encoder(), faces()
    kind = ATTACKS.find(name).holds
    if kind is BlackBox:
        return BlackBox(toy.public, encoder)
    if kind is WhiteBox:
        return WhiteBox(toy.public, encoder, toy.prior)
    return NoFeature(toy.public, encoder, toy.prior, ToyHead())


@cache
def ready(name: str) -> ReadyAttack:
    return ATTACKS.make(name, SETTINGS.get(name, {})).prepare(held(name), Rng(1))


def features() -> Tensor:
    return pooling_encoder()(faces().images)


@every_attack
def test_reconstructions_are_the_same_bits_whatever_becomes_of_the_originals(name: str) -> None:
    originals = faces().images.clone()
    seen = pooling_encoder()(originals)
    first = ready(name).reconstruct(seen, Rng(2))
    originals.copy_(originals.flip(0))
    shuffled = ready(name).reconstruct(seen, Rng(2))
    originals.uniform_(generator=torch.Generator().manual_seed(0))
    replaced = ready(name).reconstruct(seen, Rng(2))
    assert torch.equal(first.images, shuffled.images)
    assert torch.equal(first.images, replaced.images)


@pytest.mark.parametrize("kind", THREATS.values(), ids=THREATS)
def test_no_threat_model_has_room_for_the_attacked_pictures(kind: type[ThreatModel]) -> None:
    fields = {field.name for field in dataclasses.fields(kind)}
    labelled = {"known", "labels"} if kind is Informed else set()  # other pictures, said so
    assert fields <= POSSESSIONS | labelled
    assert any("attacked" in thing or "private" in thing for thing in kind.never_holds)


def test_a_black_box_has_no_weights_and_a_static_adversary_no_handle_on_the_defence() -> None:
    for kind in THREATS.values():
        fields = {field.name for field in dataclasses.fields(kind)}
        assert ("encoder" in fields) == issubclass(kind, WhiteBox)
        assert ("release" in fields) == kind.adaptive


def test_permuting_the_features_permutes_the_reconstructions() -> None:
    order = torch.randperm(len(features()), generator=Rng(3).torch())
    for name in ("blackbox-decoder", "whitebox-latent"):
        straight = ready(name).reconstruct(features(), Rng(2)).images
        turned = ready(name).reconstruct(features()[order], Rng(2)).images
        torch.testing.assert_close(turned, straight[order], rtol=0, atol=1e-3)


class Folding(torch.nn.Module):
    """Waves of the pooled picture: features that no linear map undoes, so that starts matter."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(30 * (pooling_encoder()(x) - 0.5))


def folded(how: WhiteBoxLatent) -> tuple[Tensor, Guess]:
    """Features of the folding encoder and what the attack makes of them."""
    encoder = Folding()
    seen = encoder(faces().images)
    held_here = WhiteBox(faces().public, encoder, faces().prior)
    return seen, how.prepare(held_here, Rng(1)).reconstruct(seen, Rng(2))


def own_losses(how: WhiteBoxLatent, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (S, N) and latent (S, N, latent) of every start, by the formula of the search."""
    encoder, prior = Folding(), faces().prior

    def response(z: Tensor) -> Tensor:
        return encoder(prior(z))

    draws = prior.draw(how.samples, Rng(1))
    amortiser = Amortiser(response, draws, batch=how.batch)
    scale = response(draws).flatten(1).var(0).sum()
    guesses = torch.stack(starts(amortiser, seen, how.restarts))
    losses = [
        (response(z) - seen).flatten(1).square().sum(1) / scale
        + how.search.prior_weight * z.square().sum(1) / LATENT
        for z in guesses
    ]
    return torch.stack(losses), guesses


def test_restarts_are_ranked_by_the_attackers_own_loss() -> None:
    # Without a single step, the guess of a face is the start that has the least loss.
    how = WhiteBoxLatent(search=LatentSearch(steps=0, prior_weight=0.2), restarts=4, samples=200)
    seen, guess = folded(how)
    losses, guesses = own_losses(how, seen)
    winner = losses.argmin(0)
    assert winner.unique().numel() > 1  # otherwise nothing was chosen
    assert guess.loss is not None and guess.latents is not None
    torch.testing.assert_close(guess.loss, losses.min(0).values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        guess.latents, guesses[winner, torch.arange(len(seen))], rtol=0, atol=1e-3
    )
    torch.testing.assert_close(guess.images, faces().prior(guess.latents), rtol=0, atol=1e-6)


def test_more_restarts_never_lose() -> None:
    losses = []
    for restarts in (1, 4):
        how = WhiteBoxLatent(search=LatentSearch(steps=5), restarts=restarts, samples=200)
        losses.append(folded(how)[1].loss)
    one, four = losses
    assert one is not None and four is not None
    assert bool((four <= one).all()) and bool((four < one).any())


def test_each_face_keeps_its_own_best_and_the_curve_is_of_the_better_start() -> None:
    how = WhiteBoxLatent(search=LatentSearch(steps=12), restarts=3, samples=200)
    _, guess = folded(how)
    assert guess.loss is not None
    assert float(guess.loss.mean()) <= guess.effort.curve[-1] + 1e-5
    assert guess.effort.steps == 12 and len(guess.effort.curve) == 13
