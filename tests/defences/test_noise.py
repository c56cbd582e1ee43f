"""Gaussian noise has the deviation that it says, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toys import pooling_encoder, toy_faces

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Workshop
from leakaudit.defences.noise import GaussianNoise

FACES = toy_faces(people=32)


def noise(sigma: float, seed: int = 1) -> Tensor:
    work = Workshop(pooling_encoder(), FACES.public, None)
    out = GaussianNoise(sigma).deploy(work, Rng(0)).release(FACES.images, Rng(seed)).features
    return out - pooling_encoder()(FACES.images)


@pytest.mark.parametrize("sigma", [0.25, 0.5, 2.0])
def test_the_noise_is_sigma_times_the_deviation_of_public_features(sigma: float) -> None:
    deviation = float(pooling_encoder()(FACES.public).double().std())
    added = noise(sigma).double()
    # 1,536 numbers: the sample deviation is within 2 % (one sigma), the mean within 3 %.
    assert float(added.std()) == pytest.approx(sigma * deviation, rel=0.08)
    assert abs(float(added.mean())) < 0.1 * sigma * deviation


def test_no_sigma_is_no_noise() -> None:
    assert float(noise(0.0).abs().max()) == 0.0


def test_each_release_is_fresh_and_each_element_has_its_own() -> None:
    first, second = noise(0.5, seed=1), noise(0.5, seed=2)
    both = torch.stack([first.flatten(), second.flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.1
    assert first.unique().numel() > 0.9 * first.numel()


def test_averaging_releases_brings_the_feature_back() -> None:
    mean = torch.stack([noise(0.5, seed=k) for k in range(64)]).mean(0)
    assert float(mean.std()) == pytest.approx(float(noise(0.5).std()) / 8, rel=0.1)


@pytest.mark.parametrize("sigma", [-0.1, float("nan")])
def test_a_sigma_below_nothing_is_a_usage_error(sigma: float) -> None:
    with pytest.raises(UsageError, match="sigma"):
        GaussianNoise(sigma)
