"""A scrambled vector is put in order again from a few pairs."""

from __future__ import annotations

import torch
from torch import Tensor
from toys import normal

from leakaudit.maths.matching import Matching


def scrambled(x: Tensor) -> tuple[Tensor, Tensor]:
    """A fixed permutation with signs, scales and offsets of its own; and the permutation."""
    width = x.shape[1]
    order = torch.randperm(width, generator=torch.Generator().manual_seed(1))
    scale = normal(width, seed=2).sign() * (0.1 + normal(width, seed=3).abs())
    return scale * x[:, order] + normal(width, seed=4), order


def test_a_permutation_with_signs_and_scales_is_undone_from_two_dozen_pairs() -> None:
    x = normal(24, 2000, seed=5)
    released, order = scrambled(x)
    back = Matching.fit(released, x)
    assert torch.equal(order[back.partner], torch.arange(2000))
    new = normal(6, 2000, seed=6).clamp(-2, 2)
    torch.testing.assert_close(back(scrambled(new)[0]), new, rtol=0, atol=1e-3)


def test_what_follows_nothing_is_predicted_by_hardly_more_than_its_mean() -> None:
    back = Matching.fit(normal(400, 30, seed=7), normal(400, 5, seed=8) + 3)
    assert float(back.correlation.abs().max()) < 0.3
    made = back(normal(50, 30, seed=9))
    assert float((made - 3).abs().max()) < 1


def test_dead_elements_stay_where_they_were() -> None:
    x = normal(20, 4, seed=10)
    x[:, 2] = 0
    target = torch.cat([x[:, :1], torch.full((20, 1), 0.7)], 1)
    back = Matching.fit(x, target)
    made = back(100 * normal(5, 4, seed=11))
    assert torch.equal(made[:, 1], torch.full((5,), 0.7))
    assert int(back.partner[0]) == 0
    assert (
        float((made[:, 0] - x[:, 0].mean()).abs().max())
        <= 2 * float((x[:, 0] - x[:, 0].mean()).abs().max()) + 1e-4
    )


def test_blocks_change_nothing() -> None:
    x = normal(30, 50, seed=12)
    whole, parts = Matching.fit(x.flip(1), x), Matching.fit(x.flip(1), x, block=7)
    assert torch.equal(whole.partner, parts.partner)
    torch.testing.assert_close(whole(x), parts(x))
