"""Likeness of pictures: SSIM and PSNR by scikit-image, LPIPS where its weights are at hand."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from leakaudit.core.types import LeakGrows, Score
from leakaudit.metrics.base import NO_PICTURE, Evidence, Metric, in_batches
from leakaudit.models.catalogue import LPIPS_TRUNK, at_hand
from leakaudit.models.weights import load_state

REACH = 5  # pixels that the window of sigma 1.5 reaches to each side
MOSAIC = 100_000  # pixels that go through one call


@final
@dataclass(frozen=True)
class Ssim(Metric):
    """Structural similarity of reconstruction and original, mean over faces.

    In [-1, 1]; the leak grows upwards; 0.3 or more is recognisable by He et al. (2019). Gaussian
    window, sigma 1.5, data range 1. Source: Wang et al. 2004, by scikit-image.
    """

    name: ClassVar[str] = "ssim"
    unit: ClassVar[str] = "SSIM"
    leak_grows: ClassVar[LeakGrows] = "up"
    source: ClassVar[str] = "Wang et al. 2004"

    def __call__(self, evidence: Evidence) -> Score:
        """Mean SSIM with a bootstrap over people."""
        if evidence.reconstructions is None:
            return self.unavailable(evidence, NO_PICTURE)
        side = evidence.originals.shape[-1]
        batches = zip(
            in_batches(evidence.originals, max(1, MOSAIC // (3 * side * side))),
            in_batches(evidence.reconstructions, max(1, MOSAIC // (3 * side * side))),
            strict=True,
        )
        values = [value for a, b in batches for value in _similarities(a, b)]
        return self.mean_score(evidence, torch.tensor(values, dtype=torch.float64))


def _similarities(a: Tensor, b: Tensor) -> list[float]:
    """The SSIM of each pair of pictures (N, 3, H, W), by one call for all of them.

    Their channels lie beside each other in one picture: each mean leaves out a border as wide as
    the window reaches, so what it covers has no neighbour in sight, and the bits are those of one
    call for each pair.
    """
    count, channels, height, width = a.shape
    _, found = structural_similarity(
        _mosaic(a), _mosaic(b), data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    tiles = found.reshape(height, count, channels, width)[REACH:-REACH, ..., REACH:-REACH]
    return [float(np.mean([tiles[:, k, c].mean() for c in range(channels)])) for k in range(count)]


def _mosaic(images: Tensor) -> Any:
    """Pictures (N, 3, H, W) as an array (H, N * 3 * W), channel beside channel."""
    return images.detach().cpu().double().permute(2, 0, 1, 3).flatten(1).numpy()


@final
@dataclass(frozen=True)
class Psnr(Metric):
    """Peak signal-to-noise ratio in decibels, mean over faces; the leak grows upwards.

    More than 10 dB is recognisable by He et al. (2019). A perfect copy counts as 100 dB.
    """

    name: ClassVar[str] = "psnr"
    unit: ClassVar[str] = "dB"
    leak_grows: ClassVar[LeakGrows] = "up"
    source: ClassVar[str] = "He et al. 2019"

    def __call__(self, evidence: Evidence) -> Score:
        """Mean PSNR with a bootstrap over people."""
        if evidence.reconstructions is None:
            return self.unavailable(evidence, NO_PICTURE)
        values = [
            100.0 if (a == b).all() else min(100.0, peak_signal_noise_ratio(a, b, data_range=1.0))
            for a, b in _pairs(evidence)
        ]
        return self.mean_score(evidence, torch.tensor(values, dtype=torch.float32))


def _pairs(evidence: Evidence) -> list[tuple[Any, Any]]:
    assert evidence.reconstructions is not None

    def arrays(images: Tensor) -> list[Any]:
        return list(images.detach().cpu().permute(0, 2, 3, 1).double().numpy())

    return list(zip(arrays(evidence.originals), arrays(evidence.reconstructions), strict=True))


@final
@dataclass(frozen=True)
class Lpips(Metric):
    """Learned perceptual distance (AlexNet), mean over faces; the leak grows *downwards*.

    From 0 (same). Needs torchvision's AlexNet trunk, fetched or in torch's own cache; it is never
    downloaded during a scan and never replaced by random weights. Source: Zhang et al. 2018, by
    ``lpips``.
    """

    name: ClassVar[str] = "lpips"
    unit: ClassVar[str] = "distance"
    leak_grows: ClassVar[LeakGrows] = "down"
    source: ClassVar[str] = "Zhang et al. 2018"

    def __call__(self, evidence: Evidence) -> Score:
        """Mean distance with a bootstrap over people, or the reason why there is none."""
        if evidence.reconstructions is None:
            return self.unavailable(evidence, NO_PICTURE)
        trunk = at_hand(LPIPS_TRUNK)
        if trunk is None:
            file = LPIPS_TRUNK.file
            why = f"unavailable: its AlexNet trunk {file} isn't there; {LPIPS_TRUNK.fetch}"
            return self.unavailable(evidence, why)
        network = _network(str(trunk))
        with torch.no_grad():
            values = [
                network(2 * a.cpu() - 1, 2 * b.cpu() - 1).flatten()
                for a, b in zip(
                    in_batches(evidence.originals),
                    in_batches(evidence.reconstructions),
                    strict=True,
                )
            ]
        return self.mean_score(evidence, torch.cat(values))


@lru_cache(maxsize=1)
def _network(trunk: str) -> Any:
    """The LPIPS network with the trunk of this file; the library never looks for one itself.

    It prints, warns and draws random weights first, which is kept off our streams of both kinds.
    """
    import lpips

    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    given = load_state(Path(trunk))
    # Its trunk is AlexNet's features in slices: slice2.3.weight is features.3.weight.
    names = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}
    network.net.load_state_dict({ours: given[theirs] for ours, theirs in names.items()})
    return network.eval()
