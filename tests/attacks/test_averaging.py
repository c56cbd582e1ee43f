"""Averaging is a family: each planted randomness falls to the member it was planted for."""

from __future__ import annotations

import pytest
import torch
from planted import Protect, constant, fresh_noise, half_dropped, sign_of_release
from releases import CHANCE, attacked, pipeline, rate
from torch import Generator, Tensor
from toys import normal

from leakaudit.attacks.averaging import AdaptiveAveraging, ways_of_averaging
from leakaudit.attacks.ridge import AdaptiveRidge

HOW = AdaptiveAveraging(queries=40, releases=8)


def loudness(features: Tensor, rng: Generator) -> Tensor:
    """A feature in noise, at a loudness of its own for each release, over three decades."""
    noisy = features + 0.5 * torch.randn(features.shape, generator=rng)
    decades = 3 * torch.rand(len(features), 1, 1, 1, generator=rng)
    return noisy * 10**decades


def one_look(protect: Protect) -> float:
    return rate(attacked(AdaptiveRidge(queries=40), pipeline(protect, 4)))


def many_looks(protect: Protect) -> tuple[float, str]:
    guess = attacked(HOW, pipeline(protect, 4))
    return rate(guess), guess.effort.note or ""


@pytest.mark.parametrize(
    ("protect", "way"),
    [
        (fresh_noise(2.0), ("mean", "median", "union")),
        (sign_of_release(), ("mean of magnitudes",)),
        (half_dropped(0.3), ("union of non-zeros",)),
        (loudness, ("mean of releases of one norm", "median of releases of one norm")),
    ],
)
def test_fresh_randomness_is_broken_by_its_member_of_the_family(
    protect: Protect, way: tuple[str, ...]
) -> None:
    named, note = many_looks(protect)
    assert named >= one_look(protect) + 0.15
    assert named >= 0.6
    assert note.startswith(way), note


def test_releases_that_say_nothing_give_nothing() -> None:
    assert many_looks(constant())[0] <= 2 * CHANCE
    noise = many_looks(lambda f, rng: torch.randn(f.shape, generator=rng))[0]
    assert noise <= 3 * CHANCE


def test_the_members_are_what_they_say() -> None:
    releases = torch.tensor([[[4.0, 0.0, -3.0]], [[0.0, 0.0, 3.0]], [[2.0, 0.0, -6.0]]])
    ways = ways_of_averaging(10.0)
    for label, expected in {
        "mean": [2.0, 0.0, -2.0],
        "mean of magnitudes": [2.0, 0.0, 4.0],
        "median": [2.0, 0.0, -3.0],
        "union of non-zeros": [3.0, 0.0, -2.0],
    }.items():
        torch.testing.assert_close(ways[label](releases), torch.tensor([expected]))
    assert len(ways) == 8


def test_the_median_of_two_is_between_them() -> None:
    median = ways_of_averaging(1.0)["median"](torch.tensor([[[1.0]], [[4.0]]]))
    assert median.item() == 2.5


def test_dividing_out_the_norm_ignores_how_loud_a_release_was() -> None:
    releases = normal(4, 5, 3, 2, 2, seed=7)
    loud = releases * torch.logspace(-2, 2, 20).view(4, 5, 1, 1, 1)
    for label, way in ways_of_averaging(7.0).items():
        if "norm" in label:
            torch.testing.assert_close(way(loud), way(releases), rtol=1e-4, atol=1e-4)
    mean = ways_of_averaging(7.0)["mean of releases of one norm"]
    assert mean(releases[:1])[0].norm().item() == pytest.approx(7.0, rel=1e-4)


def test_it_asks_for_as_many_releases_as_it_looks_at() -> None:
    assert HOW.looks() == 8
    assert (HOW.queries_ahead().pictures, HOW.queries_ahead().releases) == (40, 8)
