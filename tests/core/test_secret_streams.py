"""Streams of a secret key: no seed of 32 bits that anybody could try."""

from __future__ import annotations

import torch

from leakaudit.core.keys import keyed_rng, own_key
from leakaudit.core.rng import Rng


def test_a_secret_stream_is_normal_and_the_same_again() -> None:
    draws = keyed_rng(b"k" * 32, "what").normal(200_000)
    assert torch.equal(draws, keyed_rng(b"k" * 32, "what").normal(200_000))
    assert draws.dtype == torch.float32 and bool(draws.isfinite().all())
    assert abs(float(draws.mean())) < 0.01
    assert abs(float(draws.std()) - 1) < 0.01
    below = torch.stack([(draws < x).float().mean() for x in (-1.6449, 0.0, 1.6449)])
    torch.testing.assert_close(below, torch.tensor([0.05, 0.5, 0.95]), rtol=0, atol=3e-3)
    assert tuple(keyed_rng(b"k", "what").normal(3, 4).shape) == (3, 4)


def test_seeds_that_a_generator_of_32_bits_confuses_give_other_secret_draws() -> None:
    one, two = 5, 5 + (7 << 32)
    same = [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in (one, two)]
    assert torch.equal(*same)  # why there are secret streams
    apart = [Rng(seed, ("a",), secret=True).normal(4) for seed in (one, two)]
    assert not torch.allclose(*apart)
    assert Rng(5, ("a",), secret=True).derive("b").secret


def test_without_a_secret_draws_are_those_of_the_generator() -> None:
    rng = Rng(3, ("a",))
    assert torch.equal(rng.normal(5), torch.randn(5, generator=rng.torch()))
    assert len({own_key(b"k" * 32, what) for what in ("a", "b", "ab")}) == 3
