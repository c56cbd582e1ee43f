"""Epsilon-PII by hand: the cheapest matching of tiny sets, a pixel."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor
from toys import SIDE, SPREAD, ToyPrior, normal, toy_faces

from leakaudit.core.rng import Rng
from leakaudit.metrics.base import Evidence
from leakaudit.metrics.indistinguishability import DRAWS, EpsilonPii


def pictures(count: int, seed: int, side: int = 2) -> Tensor:
    return 0.5 + 0.1 * normal(count, 3, side, side, seed=seed)


def by_hand(a: Tensor, b: Tensor) -> float:
    """The mean distance of the best of all matchings, divided by the pixels."""
    far = torch.cdist(a.flatten(1).double(), b.flatten(1).double())
    rows = torch.arange(len(a))
    least = min(float(far[rows, list(order)].mean()) for order in permutations(range(len(a))))
    return least / (a.shape[-1] * a.shape[-2])


def evidence(made: Tensor) -> Evidence:
    return Evidence(
        "none", "toy", "BlackBox", made, made, torch.arange(len(made)), Rng(1)
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_value_is_the_mean_over_draws_of_the_cheapest_matching(count: int) -> None:
    samples = tuple(pictures(count, seed=k) for k in range(DRAWS))
    made = pictures(count, seed=99)
    found = EpsilonPii(samples, 0.0)(evidence(made))
    expected = sum(by_hand(made, sample) for sample in samples) / DRAWS
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.low is not None and found.high is not None
    assert 0 <= found.low < expected < found.high


def test_two_flat_pictures_by_hand() -> None:
    # Grey levels 0 and 1 against 0.25 and 0.5: matched in order, 0.25 and 0.5 apart; the norm over
    # 3 x 4 x 4 values of a difference d is d sqrt(48), and a picture has 16 pixels.
    levels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    goals = torch.tensor([0.5, 0.25]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    found = EpsilonPii((goals, goals), 0.0)(evidence(levels))
    assert found.value == pytest.approx((0.25 + 0.5) / 2 * 48**0.5 / 16, rel=1e-6)
    assert found.low == pytest.approx(found.value)  # two equal draws, and too few to subsample


def test_copies_of_the_prior_have_no_distance() -> None:
    sample = pictures(5, seed=3)
    found = EpsilonPii((sample,) * DRAWS, 0.0)(evidence(sample.flip(0)))
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert found.low == 0.0


def test_the_floor_is_what_fresh_faces_of_the_prior_get() -> None:
    prior = ToyPrior()
    metric = EpsilonPii.against(prior, 16, Rng(2))  # type: ignore[arg-type]
    assert len(metric.samples) == DRAWS
    assert all(sample.shape == (16, 3, SIDE, SIDE) for sample in metric.samples)
    assert not torch.equal(metric.samples[0], metric.samples[1])
    fresh = metric(evidence(prior.sample(16, Rng(77))))
    assert fresh.low is not None and fresh.high is not None
    assert fresh.low < metric.floor < fresh.high
    assert metric.floor > 0


def test_a_crowd_unlike_the_prior_is_above_the_floor() -> None:
    narrow = ToyPrior(spread=SPREAD / 4)
    metric = EpsilonPii.against(narrow, 8, Rng(2))  # type: ignore[arg-type]
    found = metric(evidence(toy_faces().images))
    assert found.low is not None and found.low > metric.floor


def test_the_draws_are_those_of_the_stream() -> None:
    prior = ToyPrior()
    one, two, other = (EpsilonPii.against(prior, 4, Rng(seed)) for seed in (1, 1, 2))  # type: ignore[arg-type]
    assert one.floor == two.floor and one.floor != other.floor
    assert all(map(torch.equal, one.samples, two.samples))
