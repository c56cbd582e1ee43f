"""Which attack the adversary believes, and the last question before "safe"."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.audit.choose import choose, joined, set_apart, trust
from leakaudit.audit.dependence import dependence
from leakaudit.core.rng import Rng


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def near(true: Tensor, noise: float, seed: int) -> Tensor:
    return fn.normalize(true + noise * normal(*true.shape, seed=seed), dim=1)


TRUE = fn.normalize(normal(40, 16, seed=0), dim=1)


def test_trust_is_one_for_perfect_guesses_and_zero_for_unrelated_ones() -> None:
    assert trust(TRUE, TRUE) > 0.9
    assert abs(trust(near(TRUE.roll(1, 0), 0.0, 1), TRUE)) < 0.1


def test_a_face_that_resembles_everybody_is_not_trusted() -> None:
    mean = TRUE + 3 * normal(1, 16, seed=2)
    resembling = fn.normalize(normal(1, 16, seed=2), dim=1).expand(40, -1)
    assert abs(trust(resembling, fn.normalize(mean, dim=1))) < 0.01


@pytest.mark.parametrize(("public", "tried"), [(2000, 24), (192, 24), (100, 12), (7, 0)])
def test_pictures_to_try_attacks_on_are_not_those_to_learn_from(public: int, tried: int) -> None:
    trial, learnt = set_apart(torch.arange(public))
    assert len(trial) == tried and sorted([*trial.tolist(), *learnt.tolist()]) == [*range(public)]
    assert learnt.tolist() == sorted(learnt.tolist())  # as they were given


def test_nobody_to_try_on_earns_no_trust() -> None:
    assert trust(TRUE[:0], TRUE[:0]) == 0.0


def test_one_good_attack_is_believed_against_many_bad_ones_that_agree() -> None:
    good = near(TRUE, 0.02, 3)
    same = near(normal(1, 16, seed=4).expand(40, -1), 0.02, 5)
    made = {"bad": same, "worse": near(same, 0.01, 6), "good": good}
    trusted = {name: trust(vectors[:10], TRUE[:10]) for name, vectors in made.items()}
    joint = joined(made, trusted)
    assert set(choose(made, joint)) == {"good"}
    assert float((joint * TRUE).sum(1).min()) > 0.9


def test_among_equals_the_one_that_others_agree_with_is_believed() -> None:
    made = {name: near(TRUE, 0.05, k) for k, name in enumerate("abc", start=7)}
    broken = made["b"].clone()
    broken[3] = -TRUE[3]
    made["b"] = broken
    assert choose(made, joined(made, dict.fromkeys(made, 0.9)))[3] != "b"


def test_joined_guesses_are_nearer_than_any_single_one() -> None:
    """Independent errors take each other out, as they do in a mean."""
    made = {name: near(TRUE, 0.5, k) for k, name in enumerate("abcd", start=20)}
    single = [float((vectors * TRUE).sum(1).mean()) for vectors in made.values()]
    joint = joined(made, {name: trust(vectors, TRUE) for name, vectors in made.items()})
    assert float((joint * TRUE).sum(1).mean()) > max(single) + 0.1


def test_where_nothing_is_trusted_all_count_alike() -> None:
    made = {"a": TRUE, "b": TRUE.roll(1, 0)}
    expected = fn.normalize(TRUE + TRUE.roll(1, 0), dim=1)
    assert torch.allclose(joined(made, {"a": -0.2, "b": 0.0}), expected, atol=1e-6)


def releases_of(signal: float):  # type: ignore[no-untyped-def]
    """Releases that hold so much of the person, beside noise of each release."""

    def release(images: Tensor, count: int) -> Tensor:
        noise = normal(count, *images.shape, seed=11)
        return signal * images + noise

    return release


PEOPLE = torch.arange(8).repeat_interleave(2)
PICTURES = normal(8, 20, seed=12).repeat_interleave(2, 0) + 0.1 * normal(16, 20, seed=13)


@pytest.mark.slow
def test_releases_that_hold_the_person_are_dependent_and_noise_is_not() -> None:
    held = dependence(releases_of(3.0), PICTURES, PEOPLE, Rng(0), releases=4)
    empty = [
        dependence(
            lambda x, k, s=s: normal(k, *x.shape, seed=s), PICTURES, PEOPLE, Rng(0), releases=4
        )
        for s in range(20, 30)
    ]
    assert held < 0.01
    assert sum(p < 0.05 for p in empty) <= 2


def test_a_person_in_the_magnitude_alone_is_found() -> None:
    def signs(images: Tensor, count: int) -> Tensor:
        return images * normal(count, *images.shape, seed=14).sign()

    assert dependence(signs, PICTURES, PEOPLE, Rng(0), releases=16) < 0.01
