"""Ridge attacks on planted defences: what fools the static one must not fool the adaptive one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from planted import Protect, constant, fgsm_offset, flipped, fresh_noise, permuted, static_noise
from releases import CHANCE, attacked, black, encode, faces, pipeline, rate
from torch import Tensor
from toys import normal

from leakaudit.attacks.averaging import seen_through
from leakaudit.attacks.learnt import Judge, Learnt
from leakaudit.attacks.pairs import queried
from leakaudit.attacks.purifier import _then
from leakaudit.attacks.ridge import AdaptiveRidge, BlackBoxRidge, CleanPairs
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import BlackBox

FOOLING = {
    "channels permuted": permuted(),
    "elements permuted": permuted(elements=True),
    "signs of elements flipped": flipped(elements=True),
    "an offset for everybody": static_noise(sigma=4.0),
}
QUERIES = 48


def adaptive(protect: Protect, *, queries: int = QUERIES, recognises: bool = True) -> float:
    release = pipeline(protect, 3)
    held = black(release, recognises=recognises)
    return rate(attacked(AdaptiveRidge(queries=queries), release, held))


def static(protect: Protect) -> float:
    return rate(attacked(BlackBoxRidge(), pipeline(protect, 3)))


def test_the_static_ridge_breaks_an_undefended_encoder() -> None:
    assert static(lambda f, rng: f) >= 0.9


@pytest.mark.parametrize("name", FOOLING)
@pytest.mark.parametrize("recognises", [True, False])
def test_what_fools_the_static_ridge_is_broken_by_the_adaptive_one(
    name: str, recognises: bool
) -> None:
    assert static(FOOLING[name]) <= 0.5
    assert adaptive(FOOLING[name], recognises=recognises) >= 0.9


def test_a_static_adversarial_offset_is_broken() -> None:
    step = fgsm_offset(eps=0.3)

    def protect(features: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        pooled = (features - 1) / 4 + 0.5  # it was made against pooled pixels
        return 4 * (step(pooled, rng) - 0.5) + 1

    assert static(protect) <= 0.5
    assert adaptive(protect) >= static(protect) + 0.4


def test_a_mild_noise_is_met_at_least_as_well_as_by_the_static_ridge() -> None:
    assert adaptive(fresh_noise(0.3)) >= static(fresh_noise(0.3)) - 0.1


def test_releases_that_say_nothing_give_nothing() -> None:
    assert adaptive(constant()) <= 2 * CHANCE
    noise = adaptive(lambda f, rng: torch.randn(f.shape, generator=rng))
    assert noise <= 3 * CHANCE


def test_releases_of_another_shape_are_no_obstacle() -> None:
    mixing = normal(30, 48, seed=5)
    release = pipeline(lambda f, rng: f.flatten(1) @ mixing.T, 3)
    found = AdaptiveRidge(queries=QUERIES).prepare(black(release), Rng(1))
    with pytest.raises(RuntimeError):  # the static ridge can't even be applied
        attacked(BlackBoxRidge(), release)
    assert rate(found.reconstruct(release(faces().images, 1)[0], Rng(2))) >= 0.9


def test_one_quiet_element_that_carries_a_person_is_heard() -> None:
    secret = normal(8, 48, seed=6)

    def hidden(x: torch.Tensor) -> torch.Tensor:
        told = encode(x).flatten(1) @ secret.T
        loud = 100 * torch.sin(1e4 * x.flatten(1)[:, :40])
        return torch.cat([loud, 1e-3 * told], dim=1)

    ready = BlackBoxRidge().prepare(BlackBox(faces().public, hidden), Rng(1))
    assert rate(ready.reconstruct(hidden(faces().images), Rng(2))) >= 0.7


def test_clean_pairs_never_hold_a_picture_that_is_held_out() -> None:
    held = black(pipeline(permuted(), 3))
    spared = CleanPairs.of(held, 2000, spared=9)
    out = {tuple(x.flatten()[:8].tolist()) for x in queried(held.public, 9)}
    kept = {tuple(x.flatten()[:8].tolist()) for x in spared.images}
    assert len(kept) == len(held.public) - 9 and not out & kept
    few = CleanPairs.of(held, 50, spared=9)
    assert len(few.images) == 50 and few.start == len(held.public) - 50


def test_clean_features_and_the_static_ridge_are_made_once() -> None:
    asked = []

    def query(x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return encode(x)

    held = BlackBox(faces().public, query)
    for _ in range(2):
        BlackBoxRidge(pairs=100).prepare(held, Rng(1))
    assert sum(asked) == 100 + 2  # and one look a preparation at a feature's size


def test_too_few_public_pictures_are_said() -> None:
    held = BlackBox(faces().public[:7], encode)
    with pytest.raises(UsageError, match="public pictures"):
        BlackBoxRidge().prepare(held, Rng(1))


def test_the_judge_prefers_what_is_recognised_to_what_is_near() -> None:
    images = faces().images[::4]
    mean, true = images.flatten(1).mean(0), images.flatten(1)
    blurred = mean + 0.2 * (true - mean).flip(0)  # near to all, and like another one
    loud = mean + 3 * (true - mean)
    candidates = [
        Learnt(label, 0.0, lambda f, made=made: made, lambda f, made=made: made)
        for label, made in (("blurred", blurred), ("loud", loud))
    ]
    assert Judge(images, faces().oracle.embed).best(candidates, images).label == "loud"
    assert Judge(images, None).best(candidates, images).label == "blurred"


def test_the_effort_names_the_map_and_its_error_on_public_pictures() -> None:
    release = pipeline(permuted(), 3)
    effort = attacked(AdaptiveRidge(queries=QUERIES), release).effort
    assert effort.curve[-1] < 0.2 * effort.curve[0]
    assert "stand-in" in (effort.note or "") or "scratch" in (effort.note or "")
    assert AdaptiveRidge(queries=QUERIES).queries_ahead().pictures == QUERIES


def test_chance_does_not_take_the_judge_from_a_static_map() -> None:
    """A map that is better by less than the standard error stays second to a static one."""
    images = faces().images[::4]
    true = images.flatten(1)
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(0))

    def candidate(label: str, rows: Tensor, *, static: bool = False) -> Learnt:
        return Learnt(label, 0.0, lambda f: rows, lambda f: rows, static=static)

    near, luckier = true + 0.1 * noise, true + 0.0999 * noise.roll(1, 0)
    static = candidate("one release, the release as it is, a map", near, static=True)
    judge = Judge(images, None)
    lucky = candidate("ridge from scratch, the static decoder", luckier)
    better = candidate("ridge from scratch, the static ridge", true)
    assert judge.error(luckier) < judge.error(near)
    assert judge.best([lucky, static], images).label == static.label
    assert judge.best([better, static], images).label == better.label


def test_a_way_back_before_a_static_map_is_no_static_adversary() -> None:
    """He who asked nothing takes the release as it is, whatever map comes after."""
    back = Learnt("ridge from scratch", 0.0, lambda f: f, lambda f: f)
    bare = replace(back, label="the release as it is", static=True)
    shape = torch.Size([2])
    chained = [_then(one, lambda f: f, "the static decoder", shape) for one in (back, bare)]
    assert [one.static for one in chained] == [False, True]
    assert [seen_through(lambda k: k[0], "one release", one).static for one in chained] == [
        False, True,
    ]  # fmt: skip
