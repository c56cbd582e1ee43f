"""SSIM, PSNR and LPIPS against other implementations and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from skimage.metrics import structural_similarity
from toys import toy_faces

from leakaudit.core.rng import Rng
from leakaudit.metrics.base import Evidence, in_batches
from leakaudit.metrics.likeness import Lpips, Psnr, Ssim
from leakaudit.models.decoder import ssim_map

FACES = toy_faces()


def evidence(originals: torch.Tensor, made: torch.Tensor) -> Evidence:
    return Evidence(
        "none", "toy", "BlackBox", originals, made, torch.arange(len(made)), Rng(1)
    )  # fmt: skip


def test_psnr_is_the_formula() -> None:
    flat = torch.full((3, 3, 16, 16), 0.5)
    made = flat + torch.tensor([0.1, 0.01, -0.2]).view(3, 1, 1, 1)
    found = Psnr()(evidence(flat, made))
    expected = [20.0, 40.0, -20 * math.log10(0.2)]
    assert found.per_face == pytest.approx(expected, abs=1e-3)
    assert found.value == pytest.approx(sum(expected) / 3, abs=1e-3)


def test_a_perfect_copy_counts_a_hundred_decibels_and_ssim_one() -> None:
    row = evidence(FACES.images, FACES.images.clone())
    assert Psnr()(row).value == 100.0
    assert Ssim()(row).value == pytest.approx(1.0, abs=1e-9)


def test_ssim_agrees_with_a_second_implementation_inside_the_border() -> None:
    noise = 0.1 * torch.randn(FACES.images.shape, generator=Rng(2).torch())
    made = (FACES.images + noise).clamp(0, 1)
    found = Ssim()(evidence(FACES.images, made))
    # scikit-image crops a border of five pixels from its mean, the 11-tap filter has none there.
    own = ssim_map(FACES.images.double(), made.double()).flatten(1).mean(1)
    assert found.per_face == pytest.approx(own.tolist(), abs=1e-5)


@pytest.mark.parametrize("side", [11, 32, 200])  # 200: one picture is more than a mosaic holds
def test_ssim_is_bit_for_bit_that_of_a_call_for_each_pair(side: int) -> None:
    a, b = torch.rand(2, 40 if side < 100 else 2, 3, side, side, generator=Rng(3).torch())
    each = [
        structural_similarity(
            x.numpy(), y.numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False,
        )
        for x, y in zip(a.double(), b.double(), strict=True)
    ]  # fmt: skip
    row = evidence(a, b)
    assert Ssim()(row) == Ssim().mean_score(row, torch.tensor(each, dtype=torch.float64))


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    a, b = torch.full((2, 3, 16, 16), 0.4), torch.full((2, 3, 16, 16), 0.6)
    c1 = 0.01**2
    expected = (2 * 0.4 * 0.6 + c1) / (0.4**2 + 0.6**2 + c1)
    assert Ssim()(evidence(a, b)).value == pytest.approx(expected, abs=1e-5)


def test_batches_hold_every_picture_once() -> None:
    parts = in_batches(torch.arange(130), 64)
    assert [len(part) for part in parts] == [64, 64, 2]
    assert torch.equal(torch.cat(parts), torch.arange(130))


def test_lpips_without_weights_is_unavailable_and_never_random(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path))
    found = Lpips()(evidence(FACES.images, FACES.images))
    assert found.value is None and found.per_face is None
    assert found.note is not None and found.note.startswith("unavailable")
    assert found.n == len(FACES.images) and found.leak_grows == "down"
