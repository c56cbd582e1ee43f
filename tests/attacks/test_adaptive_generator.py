"""Decoders and generators that a defence wasn't made against see through it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from planted import constant, permuted
from releases import CHANCE, black, encode, faces, pipeline, white
from torch import Tensor, nn

from leakaudit.attacks.adaptive_generator import AdaptiveGenerator
from leakaudit.attacks.adaptive_generator_latent import AdaptiveGeneratorLatent
from leakaudit.attacks.base import Guess
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.attacks.practice import Practice
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveWhiteBox
from leakaudit.models.decoder import DecoderTraining, train_decoder
from leakaudit.models.mixing_decoder import MixingDecoder

QUERIES = 40
STEP = 0.5
QUICK = DecoderTraining(steps=80, batch=16)
STATIC = train_decoder(encode(faces().public), faces().public, training=QUICK, rng=Rng(3))[0]
SMALL = AdaptiveGenerator(
    queries=QUERIES,
    pairs=200,
    components=40,
    clean=DecoderTraining(steps=60, batch=16, loss="l1"),
    training=DecoderTraining(steps=15, batch=16, rate=1e-3, loss="l1", patience=3),
)
LATENT = AdaptiveGeneratorLatent(
    queries=QUERIES, components=40, pictures=160, latent=WhiteBoxLatent(samples=80)
)


CLEAN = encode(faces().public).flatten(1)
SPAN = torch.linalg.svd(CLEAN - CLEAN.mean(0), full_matrices=False).Vh[:8]


def against_the_static_decoder(features: Tensor, rng: torch.Generator) -> Tensor:
    """Steps away from STATIC's true picture (AdvFace), where clean features don't vary."""
    with torch.enable_grad():
        moved, true = _off_the_span(torch.ones_like(features)) + features, STATIC(features)
        for _ in range(10):
            moved = moved.detach().requires_grad_()
            (slope,) = torch.autograd.grad((STATIC(moved) - true).abs().sum(), moved)
            moved = moved + STEP * _off_the_span(slope.sign())
    return moved.detach()


def _off_the_span(step: Tensor) -> Tensor:
    rows = step.flatten(1)
    return (rows - rows @ SPAN.T @ SPAN).view_as(step)


def named(guess: Guess | Tensor) -> float:
    images = guess if isinstance(guess, Tensor) else guess.images
    assert images is not None
    return float((faces().oracle.name_faces(images) == faces().people).float().mean())


def seen(protect: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
    return pipeline(protect, 6)(faces().images, 1)[0]


def test_noise_made_against_one_architecture_misses_two_others() -> None:
    protected = seen(against_the_static_decoder)
    assert named(STATIC(encode(faces().images))) >= 0.9
    assert named(STATIC(protected)) <= 3 * CHANCE
    held = black(pipeline(against_the_static_decoder, 5))
    practice = Practice.of(held, queries=QUERIES, repeats=1, pairs=200)
    mixing = SMALL._mixing(practice, Rng(1))
    convolutional = SMALL._convolutional(held, practice, Rng(1))
    assert "mixing" in mixing.label and "mixing" not in convolutional.label
    assert min(named(one.decoder(protected).detach()) for one in (mixing, convolutional)) >= 0.7


def test_the_judge_takes_the_better_of_the_two() -> None:
    held = black(pipeline(permuted(elements=True), 5))
    ready = SMALL.prepare(held, Rng(1))
    guess = ready.reconstruct(seen(permuted(elements=True)), Rng(2))
    assert named(guess) >= 0.9
    assert guess.effort.curve[-1] < 0.8 * guess.effort.curve[0]


def test_both_losses_are_absolute_errors_unless_told_otherwise() -> None:
    assert AdaptiveGenerator().clean.loss == AdaptiveGenerator().training.loss == "l1"


def test_what_tells_nothing_names_nobody_beyond_chance() -> None:
    ready = SMALL.prepare(black(pipeline(constant(), 5)), Rng(1))
    assert named(ready.reconstruct(seen(constant()), Rng(2))) <= 2 * CHANCE


def test_a_mixing_decoder_starts_from_its_stem() -> None:
    held = black(pipeline(permuted(), 5))
    practice = Practice.of(held, queries=QUERIES, repeats=1, pairs=200)
    decoder = SMALL._mixing(practice, Rng(1)).decoder
    assert isinstance(decoder, MixingDecoder)
    nn.init.zeros_(decoder.last.weight)
    assert decoder.last.bias is not None
    nn.init.zeros_(decoder.last.bias)
    plain = decoder._first(practice.released).clamp(0, 1)
    torch.testing.assert_close(decoder(practice.released), plain)


class _Narrow(nn.Module):
    """A poor prior: the toy's, with all but two of its latents cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = faces().prior
        self.shape = self.whole.shape

    def forward(self, z: Tensor) -> Tensor:
        return self.whole(torch.cat([z[:, :2], torch.zeros_like(z[:, 2:])], dim=1))

    def draw(self, count: int, rng: Rng) -> Tensor:
        return self.whole.draw(count, rng)


def test_where_the_prior_is_poor_eigenfaces_are_taken_and_name_more() -> None:
    there = white(pipeline(lambda f, g: f, 5))
    held = AdaptiveWhiteBox(there.public, there.encoder, _Narrow(), there.release)
    features = encode(faces().images)
    static = WhiteBoxLatent(samples=80).prepare(held, Rng(1)).reconstruct(features, Rng(2))
    guess = LATENT.prepare(held, Rng(1)).reconstruct(features, Rng(2))
    assert guess.effort.note is not None and guess.effort.note.startswith("eigenfaces")
    assert named(guess) >= 0.9
    assert named(static) <= 0.6


def test_the_given_prior_is_kept_where_eigenfaces_show_less() -> None:
    few = AdaptiveGeneratorLatent(
        queries=QUERIES, components=1, pictures=160, latent=WhiteBoxLatent(samples=80)
    )
    ready = few.prepare(white(pipeline(lambda f, g: f, 5)), Rng(1))
    guess = ready.reconstruct(encode(faces().images), Rng(2))
    assert guess.effort.note is not None and guess.effort.note.startswith("the given prior")
    assert named(guess) >= 0.9


def test_queries_are_declared_and_nonsense_is_refused() -> None:
    assert SMALL.queries_ahead().pictures == LATENT.queries_ahead().pictures == QUERIES
    with pytest.raises(UsageError, match="patience"):
        AdaptiveGenerator(training=DecoderTraining(patience=0))
    with pytest.raises(UsageError, match="components"):
        AdaptiveGeneratorLatent(components=0)


def test_a_prior_of_his_own_is_of_another_architecture_than_the_given_one() -> None:
    how = AdaptiveGeneratorLatent(queries=QUERIES, prior_steps=2, prior_latent=6)
    held = AdaptiveWhiteBox(
        faces().public, encode, None, lambda x, k: encode(x).expand(k, -1, -1, -1)
    )
    made = how._generators(held, Rng(1))["a prior of his own"]
    assert made.shape.architecture == "residual" and made.shape.latent == 6
    assert made.shape.size == faces().public.shape[-1]
    other = AdaptiveGeneratorLatent(prior_steps=2, prior_latent=6, prior_architecture="shuffle")
    again = other._generators(held, Rng(1))["a prior of his own"]
    assert again.shape.architecture == "shuffle"  # not the first one, from his bench
    with pytest.raises(UsageError, match="Did you mean residual"):
        AdaptiveGeneratorLatent(prior_architecture="residul")
