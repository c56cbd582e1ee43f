"""The decoder's structural term against scikit-image, and what its training promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from toys import SIDE, normal, toy_faces

from leakaudit.core.rng import Rng
from leakaudit.models.decoder import Decoder, DecoderTraining, decoder_loss, ssim_map, train_decoder

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
