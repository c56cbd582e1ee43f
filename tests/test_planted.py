"""Each planted defence falls to its own adversary and to no weaker one; the constant to none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import planted
import pytest
import torch
from torch import Tensor
from toys import PEOPLE, SIDE, ToyFaces, named, pooling_encoder, toy_faces

from leakaudit.core.rng import Rng
from leakaudit.core.specs import parse_factory
from leakaudit.defences.base import Deployed, Workshop
from leakaudit.defences.foreign import foreign_defence

LOOKS = 64
CHANCE = 1 / PEOPLE

every = pytest.mark.parametrize("name", planted.PLANTED)


@cache
def faces() -> ToyFaces:
    return toy_faces(per_person=3)


@cache
def deployed(name: str) -> Deployed:
    spec = parse_factory(f"{planted.__file__}:{name}", what="defence")
    return foreign_defence(spec).deploy(Workshop(pooling_encoder(), faces().public, None), Rng(1))


@cache
def releases(name: str, count: int) -> tuple[Tensor, Tensor]:
    """``count`` releases of the attacked and of the public pictures, each (count, N, 48)."""
    seen, public = (
        torch.stack(
            [deployed(name).release(x, Rng(k, (who,))).features.flatten(1) for k in range(count)]
        )
        for who, x in (("seen", faces().images), ("public", faces().public))
    )
    return seen, public


def learnt(features: Tensor) -> Callable[[Tensor], Tensor]:
    """Ridge regression from features (M, 48) of the public pictures to those pictures."""
    pictures = faces().public.flatten(1)
    mean, base = features.mean(0), pictures.mean(0)
    inputs = features - mean
    gram = inputs.T @ inputs
    gram += (1e-4 * gram.diagonal().mean() + 1e-9) * torch.eye(len(gram))
    weights = torch.linalg.solve(gram, inputs.T @ (pictures - base))
    return lambda seen: ((seen - mean) @ weights + base).clamp(0, 1).view(-1, 3, SIDE, SIDE)


def static(name: str) -> float:
    """The share named by an adversary who knows clean features only."""
    clean = pooling_encoder()(faces().public).flatten(1)
    return named(faces(), learnt(clean)(releases(name, 1)[0][0]))


def adaptive(name: str) -> float:
    """The share named by one who learnt from single releases."""
    seen, public = releases(name, 1)
    return named(faces(), learnt(public[0])(seen[0]))


def averaged(name: str, what: Callable[[Tensor], Tensor]) -> float:
    """The share named by one who learnt from ``what`` he makes of many releases."""
    seen, public = (what(part) for part in releases(name, LOOKS))
    return named(faces(), learnt(public)(seen))


def mean(many: Tensor) -> Tensor:
    return many.mean(0)


def magnitude(many: Tensor) -> Tensor:
    return many.abs().mean(0)


def union(many: Tensor) -> Tensor:
    return many.amax(0)


@pytest.mark.parametrize("name", ["permuted", "flipped", "rotated", "static_noise", "fgsm_offset"])
def test_static_ones_fool_a_fixed_decoder_and_fall_to_one_that_learns(name: str) -> None:
    assert static(name) <= 0.5
    assert adaptive(name) >= 0.9
    seen = releases(name, 2)[0]
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("name", "breaks", "fails"),
    [
        ("fresh_noise", mean, None),
        ("sign_of_release", magnitude, mean),
        ("half_dropped", union, None),
    ],
)
def test_random_ones_fall_to_who_averages_in_the_right_way(
    name: str, breaks: Callable[[Tensor], Tensor], fails: Callable[[Tensor], Tensor] | None
) -> None:
    assert adaptive(name) <= 0.5
    assert averaged(name, breaks) >= 0.9
    assert fails is None or averaged(name, fails) <= 0.5


def test_the_shuffled_rows_are_all_there_in_another_order_each_time() -> None:
    clean = pooling_encoder()(faces().images).flatten(1)
    first, second = (
        torch.cdist(part, clean).argmin(1) for part in releases("shuffled_batch", 2)[0]
    )
    alone = torch.arange(len(clean))
    assert torch.equal(first.sort().values, alone) and torch.equal(second.sort().values, alone)
    assert not torch.equal(first, second) and not torch.equal(first, alone)
    one = deployed("shuffled_batch").release(faces().images[:1], Rng(5)).features.flatten(1)
    assert torch.equal(one, clean[:1])


def test_the_constant_one_falls_to_nobody() -> None:
    assert max(static("constant"), adaptive("constant"), averaged("constant", mean)) <= CHANCE
    assert torch.equal(releases("constant", 1)[0][0][0], releases("constant", 1)[1][0][0])


@every
def test_another_key_is_another_defence_and_only_rows_of_a_batch_are_coupled(name: str) -> None:
    spec = parse_factory(f"{planted.__file__}:{name}", what="defence")
    assert foreign_defence(spec).coupling == ("batch" if name == "shuffled_batch" else "unknown")
    vector = torch.linspace(0.1, 0.9, 40).view(4, 10)
    protect = planted.PLANTED[name]()
    if name != "fgsm_offset":  # its shadow decoder wants pictures' averages
        made = getattr(protect, "protect_features", protect)(vector, Rng(0).torch())
        assert made.shape == vector.shape
    if name in ("permuted", "flipped", "rotated", "static_noise"):
        other = planted.PLANTED[name](seed=1)(vector, Rng(0).torch())  # type: ignore[call-arg]
        assert not torch.equal(other, protect(vector, Rng(0).torch()))  # type: ignore[operator]
