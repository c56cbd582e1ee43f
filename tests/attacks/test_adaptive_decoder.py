"""What fools the static decoder and keeps the person falls to one that was trained on releases."""

from __future__ import annotations

import copy

import pytest
import torch
from planted import Protect, constant, fgsm_offset, flipped, fresh_noise, permuted
from releases import CHANCE, black, encode, faces, pipeline
from torch import Tensor, nn

from leakaudit.attacks.adaptive_decoder import AdaptiveDecoder, Behind, fitted, trained_on
from leakaudit.attacks.practice import Practice
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, Bench
from leakaudit.models.decoder import DecoderTraining, train_decoder

QUERIES = 40
TRAINING = DecoderTraining(steps=20, batch=16, rate=1e-3, patience=3)
STATIC = train_decoder(
    encode(faces().public), faces().public, training=DecoderTraining(steps=80, batch=16), rng=Rng(3)
)[0]


def held(protect: Protect) -> AdaptiveBlackBox:
    there = black(pipeline(protect, 5))
    bench = Bench({"decoder": lambda: STATIC})
    return AdaptiveBlackBox(
        there.public, there.query, there.release, recogniser=there.recogniser, bench=bench
    )


def practice(protect: Protect, repeats: int = 1) -> Practice:
    return Practice.of(held(protect), queries=QUERIES, repeats=repeats, pairs=200)


def seen(protect: Protect) -> Tensor:
    return pipeline(protect, 6)(faces().images, 1)[0]


def named(images: Tensor) -> float:
    return float((faces().oracle.name_faces(images) == faces().people).float().mean())


def attacked(protect: Protect) -> float:
    how = AdaptiveDecoder(queries=QUERIES, pairs=200, training=TRAINING)
    images = how.prepare(held(protect), Rng(1)).reconstruct(seen(protect), Rng(2)).images
    assert images is not None
    return named(images)


@pytest.mark.parametrize(
    ("protect", "least"),
    [
        (permuted(), 0.9),
        pytest.param(permuted(elements=True), 0.9, marks=pytest.mark.slow),
        pytest.param(flipped(), 0.9, marks=pytest.mark.slow),
        (fgsm_offset(0.6), 0.6),
    ],
)
def test_what_only_fools_a_fixed_decoder_looks_safe_to_it_and_is_broken(
    protect: Protect, least: float
) -> None:
    assert named(STATIC(encode(faces().images))) >= 0.9
    assert named(STATIC(seen(protect))) <= 3 * CHANCE
    assert attacked(protect) >= least


def test_what_tells_nothing_names_nobody_beyond_chance() -> None:
    assert attacked(constant()) <= 2 * CHANCE


def test_training_on_is_never_worse_than_its_start_on_held_out_pictures() -> None:
    there = practice(fresh_noise(1.0))
    wild = DecoderTraining(steps=4, batch=4, rate=1.0, patience=3)  # far too fast, so it ruins all
    before = there.error(STATIC)
    kept = fitted("as it is", STATIC, there, training=wild, rng=Rng(1))
    assert kept.error == pytest.approx(before)
    assert kept.curve == tuple(sorted(kept.curve, reverse=True))
    torch.testing.assert_close(kept.decoder(seen(constant())), STATIC(seen(constant())))


def test_training_on_leaves_the_shared_decoder_as_it_was() -> None:
    before = copy.deepcopy(STATIC.state_dict())
    made = trained_on(STATIC, practice(fresh_noise(1.0)), training=TRAINING, rng=Rng(1))
    assert made.steps > 0
    assert all(torch.equal(before[key], value) for key, value in STATIC.state_dict().items())


def test_behind_a_permutation_the_start_is_a_way_back_that_undoes_it() -> None:
    made = trained_on(STATIC, practice(permuted()), training=TRAINING, rng=Rng(1))
    assert "filtered" in made.label or "rearranged" in made.label


def test_a_batch_is_a_quarter_real_and_the_stand_in_makes_the_rest() -> None:
    there = practice(permuted(elements=True))
    features, images = there.batches(16, Rng(1))()
    real = (features[:, None] == there.released).flatten(2).all(2).any(1)
    assert real[:4].all()
    expected = permuted(elements=True)(encode(images), torch.Generator())
    torch.testing.assert_close(features[:4], expected[:4])
    assert float((features - expected).square().mean()) < 0.05 * float(features.var())


def test_held_out_pictures_are_never_drawn() -> None:
    there = practice(fresh_noise(1.0))
    draw = there.batches(64, Rng(1))
    for _ in range(10):
        _, images = draw()
        same = (images[:, None] == there.held_images).flatten(2).all(2)
        assert not bool(same.any())


def test_several_releases_of_a_picture_are_several_rows() -> None:
    there = practice(fresh_noise(1.0), repeats=3)
    rest = len(there.asked.held_out)
    assert len(there.released) == 3 * (QUERIES - rest) and len(there.held_released) == 3 * rest
    assert torch.equal(there.images[: QUERIES - rest], there.images[-(QUERIES - rest) :])
    assert not torch.equal(there.released[: QUERIES - rest], there.released[-(QUERIES - rest) :])


def test_releases_of_another_shape_are_decoded_too() -> None:
    def halves(features: Tensor, rng: torch.Generator) -> Tensor:
        return features.flatten(1)[:, ::2]

    assert attacked(halves) >= 0.5


def test_a_copy_of_a_decoder_behind_a_map_shares_the_map() -> None:
    calls: list[int] = []

    def back(features: Tensor) -> Tensor:
        calls.append(len(features))
        return 2 * features

    behind = copy.deepcopy(Behind(back, torch.Size([3]), nn.Identity()))
    torch.testing.assert_close(behind(torch.ones(2, 3)), torch.full((2, 3), 2.0))
    assert calls == [2]


def test_queries_are_declared_and_too_few_are_refused() -> None:
    how = AdaptiveDecoder(queries=20, repeats=2)
    assert (how.queries_ahead().pictures, how.queries_ahead().releases) == (20, 2)
    with pytest.raises(UsageError, match="queries"):
        AdaptiveDecoder(queries=4)
    with pytest.raises(UsageError, match="patience"):
        AdaptiveDecoder(training=DecoderTraining(patience=0))
