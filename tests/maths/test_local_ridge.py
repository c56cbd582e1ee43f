"""A convolution fitted in closed form against convolutions that are known."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as fn
from toys import normal

from leakaudit.maths import local_ridge
from leakaudit.maths.local_ridge import PENALTIES, LocalRidge

DOUBLE = torch.float64


@pytest.mark.parametrize("side", [1, 3])
def test_a_convolution_is_found_again_from_four_maps(side: int) -> None:
    x = normal(4, 5, 8, 8, seed=1, dtype=DOUBLE)
    x = x - x.mean((0, 2, 3), keepdim=True)
    kernel = normal(6, 5, side, side, seed=2, dtype=DOUBLE)

    def blurred(maps: torch.Tensor) -> torch.Tensor:
        return fn.conv2d(maps, kernel, padding=side // 2) + 0.7

    fitted = LocalRidge.fit(x, blurred(x), side=side)
    new = normal(3, 5, 8, 8, seed=3, dtype=DOUBLE)
    # Beyond the edge is the channel's mean, which is zero here: the two pad alike. The constant is
    # the targets' mean, which lets the edge in.
    gap = fitted(new) - blurred(new)
    assert float(gap.square().mean()) < 1e-3 * float(blurred(new).var())


def test_the_weights_are_those_of_the_normal_equations() -> None:
    x, y = normal(6, 3, 5, 5, seed=4, dtype=DOUBLE), normal(6, 2, 5, 5, seed=5, dtype=DOUBLE)
    fitted = LocalRidge.fit(x, y, side=3)
    mean = x.mean((0, 2, 3), keepdim=True)
    z = (x - mean) / (x - mean).square().mean((0, 2, 3), keepdim=True).sqrt()
    padded = fn.pad(z, (1, 1, 1, 1))
    rows = torch.stack(
        [
            padded[n, :, i : i + 3, j : j + 3].flatten()
            for n in range(6)
            for i in range(5)
            for j in range(5)
        ]
    )
    aim = (y - y.mean((0, 2, 3), keepdim=True)).permute(0, 2, 3, 1).reshape(-1, 2)
    gram = rows.T @ rows
    eye = torch.eye(27, dtype=DOUBLE) * fitted.penalty * gram.diagonal().mean()
    weights = torch.linalg.solve(gram + eye, rows.T @ aim)
    torch.testing.assert_close(fitted.kernel.flatten(1), weights.T)


def test_the_penalty_has_the_least_error_on_samples_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = normal(8, 4, 4, 4, seed=6, dtype=DOUBLE)
    y = 0.3 * x[:, :2] + normal(8, 2, 4, 4, seed=7, dtype=DOUBLE)
    chosen = LocalRidge.fit(x, y, side=3).penalty
    errors = {}
    for share in PENALTIES:
        monkeypatch.setattr(local_ridge, "PENALTIES", (share,))
        gaps = 0.0
        for k in range(local_ridge.FOLDS):
            rest = [j for j in range(8) if j % local_ridge.FOLDS != k]
            part = LocalRidge.fit(x[rest], y[rest], side=3)
            gaps += float(
                (part(x[k :: local_ridge.FOLDS]) - y[k :: local_ridge.FOLDS]).square().sum()
            )
        errors[share] = gaps
    # The brute force centres each part anew, so neighbours in the list may change places.
    best = min(errors.values())
    assert errors[chosen] < 1.02 * best and max(errors.values()) > 1.2 * best


def test_targets_that_have_nothing_to_do_with_the_maps_are_hardly_followed() -> None:
    x, y = normal(12, 3, 6, 6, seed=8), normal(12, 2, 6, 6, seed=9) + 1
    made = LocalRidge.fit(x, y, side=3)(normal(4, 3, 6, 6, seed=10))
    assert float((made - y.mean((0, 2, 3))[:, None, None]).square().mean()) < 0.1


def test_dead_channels_do_no_harm() -> None:
    x = normal(6, 3, 4, 4, seed=11)
    x[:, 1] = 0
    fitted = LocalRidge.fit(x, x[:, :1], side=1)
    made = fitted(x)
    assert bool(made.isfinite().all())
    torch.testing.assert_close(made, x[:, :1], rtol=0, atol=1e-3)


def test_a_map_does_not_feel_the_others_of_its_batch() -> None:
    x = normal(6, 3, 4, 4, seed=12)
    fitted = LocalRidge.fit(x, x.flip(1), side=3)
    torch.testing.assert_close(torch.cat([fitted(one[None]) for one in x]), fitted(x))
