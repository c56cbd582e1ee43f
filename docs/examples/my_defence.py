"""A defence of one's own: half of the channels, seeded, and fresh noise on the rest.

leakaudit scan --demo --defence docs/examples/my_defence.py:hide:keep=0.5,sigma=0.2
"""

from __future__ import annotations

import torch
from torch import Tensor


class Hide:
    """Drops channels for good and adds noise that no two releases share."""

    def __init__(self, keep: float, sigma: float, key: int) -> None:
        self.keep, self.sigma, self.key = keep, sigma, key

    def protect_features(self, features: Tensor, rng: torch.Generator) -> Tensor:
        """Released features (N, C, ...) of clean ones, of the same shape."""
        secret = torch.Generator().manual_seed(self.key)  # the same channels in every release
        kept = torch.rand(features.shape[1], generator=secret) < self.keep
        mask = kept.to(features).view(1, -1, *[1] * (features.dim() - 2))
        noise = torch.randn(features.shape, generator=rng)  # rng is another one each release
        return mask * (features + self.sigma * noise.to(features))


def hide(keep: float = 0.5, sigma: float = 0.2, key: int = 1) -> Hide:
    """The factory: settings in, the object that protects out."""
    return Hide(keep, sigma, key)
