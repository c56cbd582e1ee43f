"""Threat models as types: what an adversary holds is what the object has, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    Query = Callable[[Tensor], Tensor]
    Release = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, eq=False)
class ThreatModel:
    """What every adversary holds: public images of other people, and the size of a picture.

    ``public`` is (M, 3, H, W) in [0, 1]; its people are disjoint from the attacked ones.
    """

    name: ClassVar[str]
    adaptive: ClassVar[bool] = False
    holds: ClassVar[tuple[str, ...]]
    never_holds: ClassVar[tuple[str, ...]]

    public: Tensor


@dataclass(frozen=True, eq=False)
class NoFeature(ThreatModel):
    """A control: public knowledge alone, no feature of the attacked picture.

    ``prior`` is a generator of public faces or ``None``; ``head`` maps a feature to the utility
    task's outputs (logits), or ``None`` where there is no head; ``query`` gives features.
    """

    name: ClassVar[str] = "Control"
    holds: ClassVar[tuple[str, ...]] = ("public images", "the prior", "the head's outputs, at most")
    never_holds: ClassVar[tuple[str, ...]] = ("the attacked person's feature", "private images")

    query: Query
    prior: Any | None
    head: Query | None


@dataclass(frozen=True, eq=False)
class BlackBox(ThreatModel):
    """Public images and a query handle ``x -> F`` on the undefended encoder, ``query``."""

    name: ClassVar[str] = "BlackBox"
    holds: ClassVar[tuple[str, ...]] = (
        "public images of other people",
        "a query handle on the undefended encoder",
    )
    never_holds: ClassVar[tuple[str, ...]] = ("encoder weights", "private images")

    query: Query


@dataclass(frozen=True, eq=False)
class WhiteBox(ThreatModel):
    """The encoder with its gradients, a prior trained on public images, and public images."""

    name: ClassVar[str] = "WhiteBox"
    holds: ClassVar[tuple[str, ...]] = (
        "the encoder's weights and gradients",
        "a prior trained on public images",
        "public images of other people",
    )
    never_holds: ClassVar[tuple[str, ...]] = ("private images", "the defence")

    encoder: Any
    prior: Any


@dataclass(frozen=True, eq=False)
class AdaptiveBlackBox(BlackBox):
    """BlackBox and a handle on the defended pipeline: ``release(public images, count)``.

    ``release(x, k)`` gives k independent releases of his own images, (k, N, ...).
    """

    name: ClassVar[str] = "AdaptiveBlackBox"
    adaptive: ClassVar[bool] = True
    holds: ClassVar[tuple[str, ...]] = (
        *BlackBox.holds,
        "a query handle on the defended pipeline, for his own images",
    )
    never_holds: ClassVar[tuple[str, ...]] = (
        "encoder weights",
        "private images",
        "the defender's key and draws",
    )

    release: Release


@dataclass(frozen=True, eq=False)
class AdaptiveWhiteBox(WhiteBox):
    """WhiteBox and the same handle; where a defence replaces the encoder he holds that encoder."""

    name: ClassVar[str] = "AdaptiveWhiteBox"
    adaptive: ClassVar[bool] = True
    holds: ClassVar[tuple[str, ...]] = (
        *WhiteBox.holds,
        "a query handle on the defended pipeline, for his own images",
    )
    never_holds: ClassVar[tuple[str, ...]] = ("private images", "the defender's key and draws")

    release: Release


@dataclass(frozen=True, eq=False)
class Informed(BlackBox):
    """BlackBox and other labelled pictures of them: ``known`` (K, 3, H, W), ``labels`` (K,)."""

    name: ClassVar[str] = "Informed"
    holds: ClassVar[tuple[str, ...]] = (*BlackBox.holds, "other labelled pictures of the people")
    never_holds: ClassVar[tuple[str, ...]] = ("encoder weights", "the attacked pictures")

    known: Tensor
    labels: Tensor


THREATS: dict[str, type[ThreatModel]] = {
    kind.name: kind
    for kind in (NoFeature, BlackBox, WhiteBox, AdaptiveBlackBox, AdaptiveWhiteBox, Informed)
}
