"""The defended pipeline as an adversary meets it."""

from __future__ import annotations

from typing import final

import pytest
import torch
from torch import Tensor, nn
from toys import pooling_encoder, toy_faces

from leakaudit.audit.pipeline import Pipeline
from leakaudit.core.errors import InputError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Deployed, Released


@final
class Planted(Deployed):
    """A defence that does to features what a function of (features, generator) does."""

    def __init__(self, change) -> None:  # type: ignore[no-untyped-def]
        self.encoder: nn.Module = pooling_encoder()
        self._change = change
        self.sizes: list[int] = []

    def release(self, images: Tensor, rng: Rng) -> Released:
        """The changed features."""
        self.sizes.append(len(images))
        return Released(self._change(self.encoder(images), rng.torch()))


def noisy(features: Tensor, generator: torch.Generator) -> Tensor:
    return features + 0.1 * torch.randn(features.shape, generator=generator)


def shuffled(features: Tensor, generator: torch.Generator) -> Tensor:
    return noisy(features, generator)[torch.randperm(len(features), generator=generator)]


def pipeline(change) -> tuple[Pipeline, Planted]:  # type: ignore[no-untyped-def]
    planted = Planted(change)
    return Pipeline(planted, Rng(0), label="planted"), planted


def pictures(count: int = 6) -> Tensor:
    return toy_faces().public[:count]


def test_releases_of_one_picture_differ_and_are_remembered() -> None:
    pipe, planted = pipeline(noisy)
    first = pipe.release(pictures(), 3)
    assert first.shape[:2] == (3, 6)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    assert torch.equal(pipe.release(pictures(), 2), first[:2])
    assert torch.equal(pipe.release(pictures()[2:4], 3), first[:, 2:4])
    assert pipe.spent == 18 and planted.sizes == [6, 6, 6]


def test_only_what_was_not_asked_before_is_paid_for() -> None:
    pipe, planted = pipeline(noisy)
    pipe.release(pictures(4), 1)
    pipe.release(pictures(6), 2)
    assert pipe.spent == 12 and planted.sizes == [4, 2, 6]


def test_a_picture_that_is_asked_for_twice_in_one_batch_is_released_once() -> None:
    pipe, _ = pipeline(noisy)
    both = pipe.release(torch.cat([pictures(2), pictures(2)]), 1)[0]
    assert torch.equal(both[:2], both[2:]) and pipe.spent == 2


def test_queries_are_the_same_bits_for_the_same_seed() -> None:
    assert torch.equal(
        pipeline(noisy)[0].release(pictures(), 2), pipeline(noisy)[0].release(pictures(), 2)
    )


def test_what_a_resumed_run_remembers_costs_nothing() -> None:
    kept = pipeline(noisy)[0].release(pictures(), 2)
    pipe, planted = pipeline(noisy)
    pipe.remember(pictures(), kept)
    assert torch.equal(pipe.release(pictures(), 2), kept)
    assert pipe.spent == 0 and planted.sizes == []


def test_fresh_noise_does_not_repeat_and_a_fixed_map_does() -> None:
    assert not pipeline(noisy)[0].repeats(pictures())
    assert pipeline(lambda f, g: 2 * f)[0].repeats(pictures())


def test_rows_that_are_moved_are_seen_and_noise_alone_is_not_taken_for_it() -> None:
    assert pipeline(shuffled)[0].moves_rows(pictures(8))
    assert not pipeline(noisy)[0].moves_rows(pictures(8))


def test_alone_each_picture_is_a_batch_of_its_own_with_its_own_noise() -> None:
    pipe, planted = pipeline(shuffled)
    pipe.alone = True
    made = pipe.made(pictures(4), Rng(1)).features
    assert planted.sizes == [1, 1, 1, 1]
    clean = pooling_encoder()(pictures(4))
    assert torch.equal(torch.cdist(made.flatten(1), clean.flatten(1)).argmin(1), torch.arange(4))
    noise = (made - clean).flatten(1)
    assert not torch.allclose(noise[0], noise[1])


@pytest.mark.parametrize(
    ("change", "told"),
    [(lambda f, g: f[:-1], "came back for"), (lambda f, g: f * float("nan"), "NaN")],
)
def test_a_broken_release_is_an_error_that_names_the_defence(change, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=told) as caught:
        pipeline(change)[0].release(pictures(), 1)
    assert "planted" in str(caught.value)
