"""Randomness as an argument: named streams derived from one seed, equal on every machine."""

from __future__ import annotations

import hashlib
import math
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

    torch's generators take 32 bits of a seed, so that whoever sees draws can try all seeds. A
    ``secret`` stream, whose seed is a secret of 256 bits, gives its ``normal`` draws from SHAKE-256
    instead; those of its generators are no secret.
    """

    seed: int
    path: tuple[str, ...] = ()
    secret: bool = False

    def derive(self, *names: str | int) -> Rng:
        """The child stream with these names appended to the path."""
        return Rng(self.seed, self.path + tuple(str(name) for name in names), self.secret)

    @property
    def state(self) -> int:
        """A 63-bit number that is a hash of seed and path."""
        return int.from_bytes(hashlib.sha256(self._text).digest()[:8], "big") >> 1

    def octets(self, count: int) -> bytes:
        """So many bytes of this stream, by SHAKE-256: as secret as its seed."""
        return hashlib.shake_256(self._text).digest(count)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal draws of this shape, float32, on the CPU; see ``secret``."""
        import numpy as np
        import torch

        if not self.secret:
            return torch.randn(shape, generator=self.torch())
        stream = np.frombuffer(self.octets(8 * math.prod(shape)), dtype="<u8")
        uniform = ((stream >> 11) + 0.5) * 2.0**-53  # within (0, 1), both ends left out
        return torch.special.ndtri(torch.from_numpy(uniform)).float().view(shape)

    @property
    def _text(self) -> bytes:
        return "\x1f".join((str(self.seed), *self.path)).encode()

    def torch(self) -> torch.Generator:
        """A fresh CPU generator at the start of this stream (move its draws to the device)."""
        import torch

        return torch.Generator().manual_seed(self.state)

    def numpy(self) -> np.random.Generator:
        """A fresh numpy generator at the start of this stream."""
        import numpy as np

        return np.random.default_rng(self.state)
