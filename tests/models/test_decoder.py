"""The decoder's structural term against scikit-image, and what its training promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from toys import SIDE, normal, toy_faces

from leakaudit.core.errors import UnknownNameError
from leakaudit.core.rng import Rng
from leakaudit.models import devices
from leakaudit.models.decoder import (
    Decoder,
    DecoderTraining,
    decoder_loss,
    fit_decoder,
    held_out_loss,
    picture_loss,
    ssim_map,
    train_decoder,
)
from leakaudit.models.eigenfaces import eigenfaces
from leakaudit.models.mixing_decoder import MixingDecoder, mixing_decoder

FACES = toy_faces()


def test_the_ssim_map_is_that_of_scikit_image() -> None:
    a = FACES.images[:2].double()
    b = (a + 0.1 * normal(2, 3, SIDE, SIDE, seed=1, dtype=torch.float64)).clamp(0, 1)
    for k in range(2):
        _, whole = structural_similarity(
            a[k].numpy(), b[k].numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False, full=True,
        )  # fmt: skip
        inside = whole[:, 5:-5, 5:-5]
        np.testing.assert_allclose(ssim_map(a, b)[k].numpy(), inside, atol=1e-10)


def test_the_loss_is_the_squared_error_plus_the_structural_term_a_picture() -> None:
    a, b = FACES.images[:3], FACES.images[3:6]
    mse = (a - b).square().mean((1, 2, 3))
    structure = 1 - ssim_map(a, b).mean((1, 2, 3))
    torch.testing.assert_close(decoder_loss(a, b, ssim_weight=0.3), mse + 0.3 * structure)
    assert float(decoder_loss(a, a, ssim_weight=0.3).abs().max()) < 1e-6


@pytest.mark.parametrize("shape", [(5,), (4, 4, 4), (4, 8, 8), (4, 16, 16), (4, 7, 7), (4, 32, 32)])
@pytest.mark.parametrize("size", [16, 24])
def test_pictures_come_out_of_vectors_and_maps_of_any_side(
    shape: tuple[int, ...], size: int
) -> None:
    decoder = Decoder(torch.zeros(shape), torch.ones(shape), size=size, width=24)
    images = decoder(normal(2, *shape, seed=2)).detach()
    assert images.shape == (2, 3, size, size)
    assert float(images.min()) >= 0 and float(images.max()) <= 1


def test_training_lowers_the_held_out_loss_and_is_the_same_for_the_same_seed() -> None:
    features = torch.nn.functional.avg_pool2d(FACES.public, 4)
    training = DecoderTraining(steps=25, batch=8)
    one, log = train_decoder(features, FACES.public, training=training, rng=Rng(1))
    two, _ = train_decoder(features, FACES.public, training=training, rng=Rng(1))
    assert log.held_out[-1] < 0.8 * log.held_out[0]
    assert len(log.curve) == 25
    assert torch.equal(one(features[:2]), two(features[:2]))
    assert not one.training and not any(p.requires_grad for p in one.parameters())


@pytest.mark.parametrize("quick", [True, False])
def test_half_precision_trains_as_well_with_weights_and_pictures_in_single(
    monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    monkeypatch.setattr(devices, "has_half", lambda device: quick)
    learnt = {}
    for precision in ("full", "half"):
        training = DecoderTraining(steps=25, batch=8, precision=precision)
        decoder, log = train_decoder(FEATURES, FACES.public, training=training, rng=Rng(1))
        learnt[precision] = log
        assert {p.dtype for p in decoder.parameters()} == {torch.float32}
        assert decoder(FEATURES[:2]).dtype == torch.float32
    full, half = learnt["full"], learnt["half"]
    assert (half.curve != full.curve) is quick
    assert half.held_out[0] == pytest.approx(full.held_out[0], rel=0.02)
    assert half.held_out[-1] == pytest.approx(full.held_out[-1], rel=0.1)
    with pytest.raises(UnknownNameError, match="decoder precision"):
        DecoderTraining(precision="double")


def test_features_are_standardised_so_their_unit_does_not_matter() -> None:
    features = torch.nn.functional.avg_pool2d(FACES.public, 4)
    training = DecoderTraining(steps=5, batch=4)
    plain, _ = train_decoder(features, FACES.public, training=training, rng=Rng(1))
    large, _ = train_decoder(64 * features, FACES.public, training=training, rng=Rng(1))
    torch.testing.assert_close(
        plain(features[:2]), large(64 * features[:2]), rtol=0, atol=1e-4
    )  # fmt: skip


def test_one_public_picture_is_enough_to_run() -> None:
    features = torch.ones(1, 3, 4, 4)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        train_decoder(
            features, FACES.public[:1], training=DecoderTraining(steps=1, batch=2), rng=Rng(1)
        )


FEATURES = nn.functional.avg_pool2d(FACES.public, 4)


def test_the_absolute_error_is_a_loss_too_and_another_one_is_refused() -> None:
    a, b = FACES.images[:3], FACES.images[3:6]
    absolute = DecoderTraining(loss="l1")
    torch.testing.assert_close(picture_loss(a, b, absolute), (a - b).abs().mean((1, 2, 3)))
    squared = DecoderTraining(ssim_weight=0.3)
    torch.testing.assert_close(picture_loss(a, b, squared), decoder_loss(a, b, ssim_weight=0.3))
    with pytest.raises(UnknownNameError, match="decoder loss"):
        DecoderTraining(loss="l3")


class _Shade(nn.Module):
    """A decoder of one number: the same grey everywhere."""

    def __init__(self, grey: float) -> None:
        super().__init__()
        self.grey = nn.Parameter(torch.tensor(grey))

    def forward(self, features: Tensor) -> Tensor:
        return self.grey.expand(len(features), 3, SIDE, SIDE)


def shades(training: DecoderTraining, start: float, taught: float) -> tuple[float, list[float]]:
    """Teaches one grey and looks at pictures of grey .5; the grey that is kept, and the looks."""
    x = torch.zeros(2, 1)
    decoder = _Shade(start)
    pictures = torch.full((2, 3, SIDE, SIDE), taught)
    seen = torch.full((2, 3, SIDE, SIDE), 0.5)
    log = fit_decoder(decoder, lambda: (x, pictures), x, seen, training=training)
    assert log.kept == pytest.approx(float(held_out_loss(decoder, x, seen, training).mean()))
    return float(decoder.grey), list(log.held_out)


def test_with_patience_the_best_look_is_kept_and_training_ends_when_nothing_is_gained() -> None:
    training = DecoderTraining(steps=100, batch=2, rate=0.02, loss="l1", patience=2)
    grey, looks = shades(training, start=0.3, taught=1.0)
    assert grey == pytest.approx(0.5, abs=0.12)  # it passed by .5 on its way to 1
    assert abs(grey - 0.5) == pytest.approx(min(looks))
    assert min(looks) == looks[-3] and len(looks) < 12


def test_with_patience_a_start_that_was_best_is_kept_and_without_it_is_not() -> None:
    patient = DecoderTraining(steps=40, batch=2, rate=0.02, loss="l1", patience=2)
    grey, looks = shades(patient, start=0.5, taught=1.0)
    assert grey == 0.5 and looks[0] == 0 and len(looks) == 3
    hasty = DecoderTraining(steps=40, batch=2, rate=0.02, loss="l1")
    grey, looks = shades(hasty, start=0.5, taught=1.0)
    assert grey > 0.6 and len(looks) == 11


def test_training_without_patience_gives_the_bits_it_always_gave() -> None:
    made, log = train_decoder(
        FEATURES, FACES.public, training=DecoderTraining(steps=25, batch=8), rng=Rng(1)
    )
    assert log.held_out[-1] == log.kept
    assert log.kept == pytest.approx(0.0324474, rel=1e-3)
    assert isinstance(made, Decoder)


def test_another_architecture_is_trained_by_the_same_function() -> None:
    class Dense(nn.Module):
        def __init__(self, mean: Tensor, deviation: Tensor, *, size: int) -> None:
            super().__init__()
            self.mean, self.deviation = mean, deviation
            self.dense = nn.Linear(mean.numel(), 3 * size * size)

        def forward(self, features: Tensor) -> Tensor:
            x = ((features - self.mean) / self.deviation).flatten(1)
            return self.dense(x).view(-1, 3, SIDE, SIDE)

    training = DecoderTraining(steps=40, batch=16, rate=1e-2)
    made, log = train_decoder(FEATURES, FACES.public, training=training, rng=Rng(1), make=Dense)
    assert isinstance(made, Dense) and log.held_out[-1] < 0.5 * log.held_out[0]


@pytest.mark.parametrize("size", [16, 18])
def test_a_mixing_decoder_begins_with_the_picture_of_its_stem(size: int) -> None:
    pictures = (0.5 + 0.1 * normal(30, 3, size, size, seed=4)).clamp(0, 1)
    faces = eigenfaces(pictures, 12)
    decoder = mixing_decoder(faces.project, faces, rng=Rng(1))
    torch.testing.assert_close(decoder(pictures[:4]).detach(), faces(faces.project(pictures[:4])))
    assert all("first" not in name for name, _ in decoder.named_parameters())


def test_a_mixing_decoder_learns_what_its_stem_leaves() -> None:
    faces = eigenfaces(FACES.public, 8)
    decoder = mixing_decoder(lambda f: 0.5 * faces.project(f), faces, rng=Rng(1))
    generator = torch.Generator().manual_seed(1)

    def draw() -> tuple[Tensor, Tensor]:
        x = FACES.public[torch.randint(20, len(FACES.public), (16,), generator=generator)]
        return x, x

    seen = FACES.public[:20]
    training = DecoderTraining(steps=80, batch=16, rate=3e-3, ssim_weight=0, patience=5)
    log = fit_decoder(decoder, draw, seen, seen, training=training)
    assert log.kept < 0.6 * log.held_out[0]
    assert isinstance(decoder, MixingDecoder) and not decoder.training
