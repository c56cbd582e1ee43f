"""Randomness as an argument: named streams derived from one seed, equal on every machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Rng:
    """A named stream of randomness; ``derive`` makes independent children.

    The same seed and path of names give the same numbers whatever else was drawn before, so adding
    an attack never changes the numbers of another one.
    """

    seed: int
    path: tuple[str, ...] = ()

    def derive(self, *names: str | int) -> Rng:
        """The child stream with these names appended to the path."""
        return Rng(self.seed, self.path + tuple(str(name) for name in names))

    @property
    def state(self) -> int:
        """A 63-bit number that is a hash of seed and path."""
        text = "\x1f".join((str(self.seed), *self.path)).encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1

    def torch(self) -> torch.Generator:
        """A fresh CPU generator at the start of this stream (move its draws to the device)."""
        import torch

        return torch.Generator().manual_seed(self.state)

    def numpy(self) -> np.random.Generator:
        """A fresh numpy generator at the start of this stream."""
        import numpy as np

        return np.random.default_rng(self.state)
