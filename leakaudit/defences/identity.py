"""none: the feature as it is, which every other defence is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from leakaudit.core.rng import Rng
from leakaudit.defences.base import Defence, Deployed, Released, Workshop
from leakaudit.maths.chunks import in_chunks


@torch.no_grad()
def encode(encoder: nn.Module, images: Tensor, *, batch: int = 64) -> Tensor:
    """Features (N, ...) of images (N, 3, H, W), batch by batch."""
    return in_chunks(encoder, images, batch)


@final
@dataclass(frozen=True)
class NoDefence(Defence):
    """Releases ``Enc(x)``. Source: the unprotected baseline of He et al. 2019."""

    name: ClassVar[str] = "none"
    source: ClassVar[str] = "He et al. 2019, unprotected"

    def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
        """Nothing to prepare."""
        return _Plain(workshop.encoder)


@final
class _Plain(Deployed):
    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder

    def release(self, images: Tensor, rng: Rng) -> Released:
        """``Enc(x)``, (N, ...)."""
        return Released(encode(self.encoder, images), passes=len(images))
