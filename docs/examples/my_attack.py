"""An attack of one's own: ridge regression from the defence's own releases to pictures.

leakaudit scan --demo --attacks blackbox-decoder,docs/examples/my_attack.py:ridge:penalty=0.1
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Ridge:
    """Sends public pictures through the defence, and learns the way back in closed form."""

    holds = "AdaptiveBlackBox"  # a static attack holds BlackBox, and asks held.query(x) instead

    def __init__(self, penalty: float, pictures: int) -> None:
        self.penalty, self.queries = penalty, pictures

    def prepare(self, held: Any, rng: torch.Generator) -> None:
        """All training: no feature of an attacked person is known yet."""
        x = held.public[: self.queries]  # (M, 3, H, W) in [0, 1]
        f = held.release(x, 1)[0].flatten(1)  # one release of each
        self.shape, self.f, self.x = x.shape[1:], f.mean(0), x.flatten(1).mean(0)
        f, x = f - self.f, x.flatten(1) - self.x
        self.known, gram = f, f @ f.T  # the dual form: fewer pictures than elements of a feature
        gram = gram + self.penalty * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
        self.weights = torch.linalg.solve(gram, x)

    def reconstruct(self, features: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) of released features; row i of feature i alone."""
        alike = (features.flatten(1) - self.f) @ self.known.T
        return (alike @ self.weights + self.x).view(-1, *self.shape)


def ridge(penalty: float = 0.1, pictures: int = 1000) -> Ridge:
    """The factory: settings in, the object that attacks out."""
    return Ridge(penalty, pictures)
