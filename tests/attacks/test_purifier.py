"""Purifiers undo what a planted defence did to the feature, and static attacks do the rest."""

from __future__ import annotations

import pytest
import torch
from planted import Protect, constant, fresh_noise, permuted
from releases import CHANCE, attacked, black, encode, faces, pipeline, rate, white
from torch import Tensor
from torch.nn import functional as fn
from toys import normal

from leakaudit.attacks.averaging import static_maps
from leakaudit.attacks.base import Attack
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.attacks.learnt import Lessons
from leakaudit.attacks.pairs import released_pairs
from leakaudit.attacks.purifier import (
    AdaptiveAveragingPurifier,
    AdaptivePurifier,
    AdaptivePurifierLatent,
)
from leakaudit.attacks.ridge import CleanPairs, first_release
from leakaudit.attacks.way_back import ways_back
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveWhiteBox, Bench

QUERIES = 40


def sharpened(features: Tensor, rng: torch.Generator) -> Tensor:
    """A fixed 3x3 mixture of the channels and their neighbours."""
    kernel = normal(3, 3, 3, 3, seed=8)
    return fn.conv2d(features - 1, kernel, padding=1)


SCRAMBLED: dict[str, Protect] = {
    "permuted": permuted(),
    "elements": permuted(elements=True),
    "sharpened": sharpened,
}


def lessons_of(protect: Protect) -> Lessons:
    held = black(pipeline(protect, 5))
    asked = released_pairs(held, QUERIES)
    known = CleanPairs.of(held, 2000, spared=len(asked.held_out))
    more = known.features, known.features.flatten(1)
    return Lessons.through(first_release, asked, asked.clean.flatten(1), more=more)


def decoded(protect: Protect) -> float:
    """What the static decoder alone names behind this defence."""
    held = black(pipeline(protect, 5))
    decode = static_maps(held, CleanPairs.of(held, 100), Rng(1))["the static decoder"]
    rows = decode(held.release(faces().images, 1)[0])
    made = rows.view_as(faces().images)
    return float((faces().oracle.name_faces(made) == faces().people).float().mean())


@pytest.mark.parametrize("name", SCRAMBLED)
def test_a_scrambled_feature_is_put_in_order_and_decoded(name: str) -> None:
    assert decoded(SCRAMBLED[name]) <= 0.5
    release = pipeline(SCRAMBLED[name], 5)
    assert rate(attacked(AdaptivePurifier(queries=QUERIES), release)) >= 0.9


@pytest.mark.parametrize("name", SCRAMBLED)
def test_the_way_back_brings_the_clean_feature_of_pictures_it_never_saw(name: str) -> None:
    best = ways_back(lessons_of(SCRAMBLED[name]))[0]
    clean = encode(faces().images)
    back = best.apply(SCRAMBLED[name](clean, torch.Generator())).view_as(clean)
    left = float((back - clean).square().mean() / clean.var(0).mean())
    assert left < 0.05


def test_an_undefended_feature_stays_as_it_is() -> None:
    found = ways_back(lessons_of(lambda f, rng: f))
    as_it_is = next(one for one in found if one.label == "the release as it is")
    assert as_it_is.error == 0.0
    assert rate(attacked(AdaptivePurifier(queries=QUERIES), pipeline(lambda f, rng: f, 5))) >= 0.9


def test_held_out_pictures_judge_what_was_learnt_without_them() -> None:
    # Pure noise: what had learnt from the judges would seem to know them.
    lessons = lessons_of(lambda f, rng: torch.randn(f.shape, generator=rng))
    usual = float((lessons.targets[lessons.held_out] - lessons.targets.mean(0)).square().mean())
    assert min(one.error for one in ways_back(lessons)) > 0.8 * usual


def test_noise_of_many_releases_is_averaged_and_purified_away() -> None:
    release = pipeline(fresh_noise(2.0), 5)
    once = rate(attacked(AdaptivePurifier(queries=QUERIES), release))
    often = rate(attacked(AdaptiveAveragingPurifier(queries=QUERIES), release))
    assert often >= once + 0.15 and often >= 0.6


@pytest.mark.parametrize(
    "attack", [AdaptivePurifier(queries=QUERIES), AdaptiveAveragingPurifier(queries=QUERIES)]
)
def test_releases_that_say_nothing_give_nothing(attack: Attack) -> None:
    assert rate(attacked(attack, pipeline(constant(), 5))) <= 2 * CHANCE


def test_the_latent_search_starts_from_the_purified_feature() -> None:
    release = pipeline(permuted(elements=True), 5)
    held = white(release)
    small = WhiteBoxLatent(samples=60, restarts=1)
    bench = Bench({"whitebox-latent": lambda: small.prepare(held, Rng(7))})
    held = AdaptiveWhiteBox(held.public, held.encoder, held.prior, release, bench=bench)
    seen = release(faces().images, 1)[0]
    purified = AdaptivePurifierLatent(queries=QUERIES).prepare(held, Rng(1))
    assert rate(purified.reconstruct(seen, Rng(2))) >= 0.9
    assert rate(small.prepare(held, Rng(7)).reconstruct(seen, Rng(2))) <= 0.5


def test_each_face_is_purified_by_itself() -> None:
    release = pipeline(permuted(), 5)
    ready = AdaptivePurifier(queries=QUERIES).prepare(black(release), Rng(1))
    seen = release(faces().images, 1)[0]
    whole = ready.reconstruct(seen, Rng(2)).images
    parts = [ready.reconstruct(part, Rng(2)).images for part in seen.split(1)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)
