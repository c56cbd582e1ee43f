"""The defended pipeline as its adversary meets it: pictures in, releases out, each one counted."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from leakaudit.core.errors import InputError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Deployed, Released
from leakaudit.models.devices import CPU

ROUNDING = 1e-4
"""How far two equal releases may differ on a GPU, relative to the largest number."""


@final
class Pipeline:
    """A deployed defence behind a handle; it remembers what it released of each public picture.

    ``release(x, k)`` gives the first k releases (k, N, ...) of pictures x (N, 3, H, W). The
    defence's stream advances from release to release, so that fresh noise is fresh; the r-th
    release of a picture is made once, so that attacks share what was asked. ``spent`` counts
    releases that were made. With ``alone`` each picture goes through in a batch of its own.
    """

    def __init__(self, deployed: Deployed, rng: Rng, *, label: str, alone: bool = False) -> None:
        self._deployed, self._rng, self._label = deployed, rng, label
        self.alone = alone
        self.spent = 0
        self._kept: dict[bytes, list[Tensor]] = {}

    def release(self, images: Tensor, count: int) -> Tensor:
        """``count`` releases of each picture, (count, N, ...)."""
        keys = _keys(images)
        for turn in range(count):
            fresh = {
                key: row
                for row, key in enumerate(keys)
                if len(self._kept.setdefault(key, [])) == turn
            }
            if fresh:
                rows = torch.tensor(list(fresh.values()))
                rng = self._rng.derive(turn, hashlib.sha256(b"".join(fresh)).hexdigest()[:16])
                made = self.made(images[rows], rng).features
                self.spent += len(rows)
                for key, feature in zip(fresh, made, strict=True):
                    self._kept[key].append(feature)
        return torch.stack(
            [torch.stack([self._kept[key][turn] for key in keys]) for turn in range(count)]
        )

    def remember(self, images: Tensor, releases: Tensor) -> None:
        """Take releases (K, N, ...) of pictures (N, 3, H, W) for those that were made."""
        for row, key in enumerate(_keys(images)):
            self._kept[key] = list(releases[:, row])

    def made(self, images: Tensor, rng: Rng) -> Released:
        """One fresh release of pictures (N, 3, H, W), checked; it isn't counted."""
        if self.alone and len(images) > 1:
            parts = [
                self._deployed.release(x[None], rng.derive("alone", k))
                for k, x in enumerate(images)
            ]
            released = _joined(parts)
        else:
            released = self._deployed.release(images, rng)
        _check(released.features, images, self._label)
        return replace(released, features=released.features.detach())

    def moves_rows(self, images: Tensor, *, turns: int = 4) -> bool:
        """Whether a batch comes back in another order than it went in.

        Each picture is released ``turns`` times alone; rows are moved when more than half of the
        rows of batches are nearer to another picture's mean than to their own.
        """
        if len(images) < 2:
            return False
        alone = torch.stack(
            [
                torch.cat([self._once(x[None], "alone", turn, k) for k, x in enumerate(images)])
                for turn in range(turns)
            ]
        ).mean(0)
        own = torch.arange(len(images), device=images.device)
        wrong = [
            torch.cdist(self._once(images, "together", turn).flatten(1), alone.flatten(1)).argmin(1)
            != own
            for turn in range(turns)
        ]
        return float(torch.cat(wrong).float().mean()) > 0.5

    def _once(self, images: Tensor, *names: str | int) -> Tensor:
        return self.made(images, self._rng.derive("order", *names)).features

    def repeats(self, images: Tensor) -> bool:
        """Whether two releases of the same pictures are the same: nothing to average.

        The same bits on a CPU; elsewhere sums come in any order, and rounding is no randomness.
        """
        first = self.made(images, self._rng.derive("repeat", 0)).features
        second = self.made(images, self._rng.derive("repeat", 1)).features
        if images.device == CPU:
            return torch.equal(first, second)
        return bool((first - second).abs().max() <= ROUNDING * first.abs().max())


def _keys(images: Tensor) -> list[bytes]:
    """A name for each picture by its content."""
    return [hashlib.sha256(x.cpu().contiguous().numpy().tobytes()).digest() for x in images]


def _joined(parts: list[Released]) -> Released:
    return replace(parts[0], features=torch.cat([part.features for part in parts]))


def _check(features: Tensor, images: Tensor, label: str) -> None:
    if len(features) != len(images):
        raise InputError(
            f"{len(features)} features came back for {len(images)} pictures",
            where=f"defence {label}",
            todo="Release one feature for each picture",
        )
    if not bool(features.isfinite().all()):
        bad = int((~features.isfinite().flatten(1).all(1)).sum())
        raise InputError(
            f"{bad} of {len(features)} features hold NaN or infinite numbers",
            where=f"defence {label}",
            todo="Check the weights, the layer and the preprocessing (--mean, --std)",
        )
