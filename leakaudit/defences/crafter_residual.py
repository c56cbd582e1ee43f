"""crafter-residual: move the latent, and keep what the prior can't express of the feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from leakaudit.core.checks import at_least
from leakaudit.defences.latent_crafting import LatentCrafting


@final
@dataclass(frozen=True)
class CrafterResidual(LatentCrafting):
    """``Enc(x) + Enc(G(z*)) - Enc(G(z0))`` with z0 the best inversion of ``Enc(x)``.

    z* minimises ``beta w L_privacy(G(z)) + |Enc(G(z)) - Enc(G(z0))|² / s``, so no implicit
    differentiation is needed. In a world of matrices that is Crafter's optimum; elsewhere the best
    inversion of the release is only near z*. ``keep`` scales what the prior can't express,
    ``Enc(x) - Enc(G(z0))``: 1 keeps all of it, 0 releases ``Enc(G(z*))``. That part wasn't crafted
    and may tell who it is: audit it with adaptive attacks. The other settings are those of
    ``crafter-z``; larger ``beta`` means more privacy.
    Source: ours, after Crafter (NDSS 2024), Eq. 8 and Appendix F.
    """

    name: ClassVar[str] = "crafter-residual"
    source: ClassVar[str] = "Crafter, NDSS 2024, Eq. 8 and Appendix F; the residual is ours"

    keep: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 0, keep=self.keep)

    def aim(self, features: Tensor, inverted: Tensor) -> Tensor:
        """What ``Enc(G(z))`` shall stay near: ``Enc(G(z0))``."""
        return inverted

    def release(self, made: Tensor, features: Tensor, inverted: Tensor) -> Tensor:
        """``Enc(G(z))`` and ``keep`` of what the prior can't express."""
        return made + self.keep * (features - inverted)
