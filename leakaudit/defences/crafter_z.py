"""crafter-z: move the latent, not the feature, and release what the prior makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from leakaudit.defences.latent_crafting import LatentCrafting


@final
@dataclass(frozen=True)
class CrafterZ(LatentCrafting):
    """``Enc(G(z*))``, z* = argmin_z ``beta w L_privacy(G(z)) + |Enc(G(z)) - Enc(x)|² / s``.

    Losses, units, partners, key and replay are those of ``crafter``; larger ``beta`` means more
    privacy. What the prior can't express of a feature is gone, and with it utility and leakage.
    The settings are those of ``crafter-residual``, but the steps aren't ``preconditioned`` by
    default: on real faces static attacks named more at the same utility behind those that are
    (docs/benchmarks.md, where a doubt bears on both).
    Source: Crafter (NDSS 2024), Appendix F; Gauss-Newton (their descent of z by a fixed rate, on
    which their trade-off hung) and the image coupling are ours.
    """

    name: ClassVar[str] = "crafter-z"
    source: ClassVar[str] = "Crafter, NDSS 2024, Appendix F"

    steps: int = 12
    preconditioned: bool = False

    def aim(self, features: Tensor, inverted: Tensor) -> Tensor:
        """What ``Enc(G(z))`` shall stay near: the feature itself."""
        return features

    def release(self, made: Tensor, features: Tensor, inverted: Tensor) -> Tensor:
        """``Enc(G(z))``."""
        return made
