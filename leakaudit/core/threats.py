"""Threat models as types: what an adversary holds is what the object has, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast, final

if TYPE_CHECKING:
    from torch import Tensor

    Query = Callable[[Tensor], Tensor]
    Release = Callable[[Tensor, int], Tensor]


T = TypeVar("T")


@final
class Bench:
    """What an adversary has made for himself already, by name; each thing is made once.

    ``makers`` are things that can be made when somebody asks for them, such as the attacks of the
    plan, prepared with the plan's own settings and randomness.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Any]] | None = None) -> None:
        self._makers = dict(makers or {})
        self._made: dict[str, Any] = {}
        self._guesses: dict[str, tuple[Tensor, Any]] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """The thing of this name: as it stands, or by its maker, or by ``make``."""
        if name not in self._made:
            self._made[name] = self._makers.get(name, make)()
        return cast("T", self._made[name])

    def keep_guess(self, name: str, features: Tensor, guess: Any) -> None:
        """Puts there what the attack of this name made of these features; it replaces the last."""
        self._guesses[name] = features, guess

    def guess(self, name: str, features: Tensor) -> Any | None:
        """What that attack made of exactly these features, if it stands there."""
        known, guess = self._guesses.get(name, (None, None))
        return guess if known is not None and known.equal(features) else None


@dataclass(frozen=True, eq=False)
class ThreatModel:
    """What every adversary holds: public images of other people, and the size of a picture.

    ``public`` is (M, 3, H, W) in [0, 1]; its people are disjoint from the attacked ones.
    ``recogniser`` maps pictures (N, 3, H, W) to embeddings (N, d) of unit length: a face recogniser
    off the shelf, which anybody can have; ``None`` where there is none. ``bench`` keeps what he has
    trained, so that two attacks, or one attack on two defences, train it once.
    """

    name: ClassVar[str]
    adaptive: ClassVar[bool] = False
    """Whether he may query the defended pipeline, so that each defence needs its own attack."""
    holds: ClassVar[tuple[str, ...]]
    never_holds: ClassVar[tuple[str, ...]]

    public: Tensor
    recogniser: Query | None = field(default=None, kw_only=True)
    bench: Bench = field(default_factory=Bench, kw_only=True)

    def shared(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives, or what stands on the bench under this name already."""
        return self.bench.once(name, make)


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
        "a face recogniser off the shelf",
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
    """BlackBox and a handle on the defended pipeline: ``release(his own images, count)``.

    ``release(x, k)`` gives k releases (k, N, ...) of his own images x (N, 3, H, W). The r-th
    release of a picture is remembered: asking again for it gives the same and costs nothing.
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
    """AdaptiveBlackBox and other labelled pictures of the attacked people.

    ``known`` (K, 3, H, W) shows the people ``labels`` (K,), indices into the oracle's gallery.
    ``release`` as in AdaptiveBlackBox. This is the paper's limitation study: shown apart.
    """

    name: ClassVar[str] = "Informed"
    adaptive: ClassVar[bool] = True
    holds: ClassVar[tuple[str, ...]] = (
        *AdaptiveBlackBox.holds,
        "other labelled pictures of the people",
    )
    never_holds: ClassVar[tuple[str, ...]] = (
        "encoder weights",
        "the attacked pictures",
        "the defender's key and draws",
    )

    release: Release
    known: Tensor
    labels: Tensor


THREATS: dict[str, type[ThreatModel]] = {
    kind.name: kind
    for kind in (NoFeature, BlackBox, WhiteBox, AdaptiveBlackBox, AdaptiveWhiteBox, Informed)
}
