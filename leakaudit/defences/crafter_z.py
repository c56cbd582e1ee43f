"""crafter-z: move the latent, not the feature, and release what the prior makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from leakaudit.defences.latent_crafting import LatentCrafting


@final
@dataclass(frozen=True)
class CrafterZ(LatentCrafting):
    """``Enc(G(z*))``, z* = argmin_z ``beta L_privacy(G(z)) + |Enc(G(z)) - Enc(x)|² / s``.

    Losses, units, partners, key and replay are those of ``crafter``; larger ``beta`` means more
    privacy. What the prior can't express of a feature is gone, and with it utility and leakage.
    ``steps`` of Gauss-Newton from the best inversion of ``Enc(x)``, each by ``solve_steps`` of
    conjugate gradient on the curvature of both losses, with a face's own ``damping``, which grows
    where a step failed and falls where it didn't. A face stops when three steps in a row gained it
    less than ``tolerance`` of its objective; the best iterate counts.
    Source: Crafter (NDSS 2024), Appendix F; Gauss-Newton (their descent of z by a fixed rate, on
    which their trade-off hung) and the image coupling are ours.
    """

    name: ClassVar[str] = "crafter-z"
    source: ClassVar[str] = "Crafter, NDSS 2024, Appendix F"

    def aim(self, features: Tensor, inverted: Tensor) -> Tensor:
        """What ``Enc(G(z))`` shall stay near: the feature itself."""
        return features

    def release(self, made: Tensor, features: Tensor, inverted: Tensor) -> Tensor:
        """``Enc(G(z))``."""
        return made
