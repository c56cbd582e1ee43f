"""A user's own attack by ``file.py:factory``, equipped, measured and reported like the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from leakaudit.attacks.base import NEEDS, Attack, Effort, Guess, Queries, ReadyAttack
from leakaudit.core.checksum import checksum
from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.specs import FactorySpec
from leakaudit.core.threats import (
    THREATS,
    AdaptiveBlackBox,
    AdaptiveWhiteBox,
    BlackBox,
    Informed,
    NoFeature,
    ThreatModel,
    WhiteBox,
)
from leakaudit.models.factories import Factory, checked_tensor, load_factory

FAR = 0.25
"""How far outside [0, 1] a value is no overshoot any more, but on another scale."""
CLIPPED = 0.05
"""The share of values outside [0, 1] from which on the report says that they were clipped.

Where as many are far outside, the pictures are on another scale, which clipping would ruin."""


def foreign_attack(spec: FactorySpec, *, name: str) -> Attack:
    """The attack that a user's factory makes; UsageError where its object isn't one.

    The object has ``holds`` (a threat model's name), ``prepare(held, rng)``, where all training
    is, and ``reconstruct(features)``, from features (N, ...) to pictures (N, 3, H, W) in [0, 1].
    ``rng`` is a ``torch.Generator`` on the CPU. Optional attributes: ``looks``, how many releases
    of each picture it is handed, (looks, N, ...) if above 1; ``queries``, how many pictures, or
    (pictures, releases of each), it will send through the defence; ``needs``, what it can't do
    without. The factory is called once here, and once for each preparation.
    """
    factory = load_factory(spec)
    made = factory.make(Rng(0, ("plan",)))
    _methods(factory, made)
    threat = _threat(factory, made)
    releases, asked = _looks(factory, made, threat), _queries(factory, made, threat)
    needed = _needs(factory, made)
    named = name

    @final
    @dataclass(frozen=True)
    class ForeignAttack(Attack):
        """A user's own code, as strong as he made it. Source: the user's own code."""

        name: ClassVar[str] = named
        holds: ClassVar[type[ThreatModel]] = threat
        source: ClassVar[str] = "the user's own code"
        needs: ClassVar[tuple[str, ...]] = needed

        spec: str
        settings: Mapping[str, Any]
        sha256: str

        def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
            """Calls the factory and lets the fresh object prepare itself."""
            fresh = factory.make(rng.derive("factory"))
            prepare, reconstruct = _methods(factory, fresh)
            effort = _Effort()
            with _watched(factory, held, effort) as seen:
                factory.ask(prepare, "prepare", seen, rng.torch(), rng=rng)
            return _Ready(factory, reconstruct, held, effort, releases)

        def looks(self) -> int:
            """As the user's object says."""
            return releases

        def queries_ahead(self) -> Queries:
            """As the user's object says."""
            return asked

    return ForeignAttack(spec.label, spec.shown_settings, factory.sha256)


@dataclass
class _Effort:
    """What a user's code cost so far: pictures sent through the encoder, releases asked for."""

    passes: int = 0
    releases: int = 0


@final
class _Ready(ReadyAttack):
    def __init__(
        self,
        factory: Factory,
        reconstruct: Callable[..., Any],
        held: ThreatModel,
        effort: _Effort,
        looks: int,
    ) -> None:
        self._factory, self._reconstruct = factory, reconstruct
        self._held, self._effort, self._looks = held, effort, looks

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """The user's pictures, clipped to [0, 1]; an attack of his tells no loss."""
        count = features.shape[1 if self._looks > 1 else 0]
        public, before = self._held.public, self._effort.passes
        with _watched(self._factory, self._held, self._effort):
            made = self._factory.ask(self._reconstruct, "reconstruct", features.clone(), rng=rng)
        shape = torch.Size((count, *public.shape[1:]))
        pictures = checked_tensor(made, shape, public, told=self._factory.told("reconstruct"))
        outside = float(((pictures < 0) | (pictures > 1)).float().mean())
        far = float(((pictures < -FAR) | (pictures > 1 + FAR)).float().mean())
        if far > CLIPPED:
            low, high = (float(end) for end in torch.aminmax(pictures))
            raise UsageError(
                f"{self._factory.told('reconstruct')} gave pictures from {low:.3g} to {high:.3g}, "
                f"{far:.0%} of the values far outside [0, 1]",
                todo="A picture lies in [0, 1]: scale it back",
            )
        passes, self._effort.passes = self._effort.passes, before  # a later call costs anew
        effort = Effort(0, passes, note=self._note(outside))
        return Guess(pictures.clamp(0, 1), None, effort, details={"clipped": outside})

    def _note(self, outside: float) -> str:
        parts = ["the user's own attack: whether it converged isn't known"]
        if self._held.adaptive:
            parts.append(f"it asked for {self._effort.releases:,} releases")
        if outside > CLIPPED:
            parts.append(f"{outside:.0%} of its values lay outside [0, 1] and were clipped")
        return "; ".join(parts)


def _methods(factory: Factory, thing: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    prepare = factory.method(thing, "prepare", "held", "rng")
    reconstruct = factory.method(thing, "reconstruct", "features")
    if prepare is None or reconstruct is None:
        lacking = "prepare(held, rng)" if prepare is None else "reconstruct(features)"
        raise UsageError(
            f"{factory.spec.place} gave a {type(thing).__name__} without {lacking}",
            todo="Return an object with holds, prepare(held, rng) and reconstruct(features)",
        )
    return prepare, reconstruct


def _threat(factory: Factory, thing: Any) -> type[ThreatModel]:
    known = [name for name, kind in THREATS.items() if kind is not NoFeature]
    found = getattr(thing, "holds", None)
    if found is None:
        raise UsageError(
            f"{factory.spec.place} gave a {type(thing).__name__} that doesn't say what it holds",
            todo=f"Add an attribute holds, one of {', '.join(known)}",
        )
    if found not in known:
        raise UnknownNameError("threat model", str(found), known, where=factory.spec.place)
    return THREATS[found]


def _looks(factory: Factory, thing: Any, threat: type[ThreatModel]) -> int:
    looks = getattr(thing, "looks", 1)
    if not _whole(looks) or looks < 1:
        raise UsageError(f"{factory.told('looks')} is {looks!r}, not a whole number from 1")
    if looks > 1 and not threat.adaptive:
        raise UsageError(
            f"{factory.told('looks')} is {looks}, but {threat.name} sees one release of a picture",
            todo="Hold AdaptiveBlackBox or AdaptiveWhiteBox",
        )
    return int(looks)


def _queries(factory: Factory, thing: Any, threat: type[ThreatModel]) -> Queries:
    asked = getattr(thing, "queries", (0, 0))
    pair = (asked, 1) if _whole(asked) else asked
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(_whole(n) and n >= 0 for n in pair)):
        raise UsageError(
            f"{factory.told('queries')} is {asked!r}",
            todo="Give a number of pictures, or (pictures, releases of each)",
        )
    if any(pair) and not threat.adaptive:
        raise UsageError(
            f"{factory.told('queries')} is {asked}, but {threat.name} can't query the defence",
            todo="Hold AdaptiveBlackBox or AdaptiveWhiteBox",
        )
    return Queries(*pair)


def _needs(factory: Factory, thing: Any) -> tuple[str, ...]:
    needed = getattr(thing, "needs", ())
    names = [needed] if isinstance(needed, str) else needed
    if not isinstance(names, list | tuple):
        raise UsageError(f"{factory.told('needs')} is {needed!r}, not a tuple of words")
    for name in names:
        if name not in NEEDS:
            raise UnknownNameError("need", str(name), NEEDS, where=factory.spec.place)
    return tuple(names)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@contextlib.contextmanager
def _watched(factory: Factory, held: ThreatModel, effort: _Effort) -> Iterator[ThreatModel]:
    """The same possessions, their use counted; UsageError where they are changed in place."""
    given: dict[str, Any] = {}
    # The prior may be lent under any threat model, and later rows are measured with it.
    networks = [thing for thing in vars(held).values() if isinstance(thing, nn.Module)]
    owned = [held.public, *(t for net in networks for t in (*net.parameters(), *net.buffers()))]
    with contextlib.ExitStack() as leave:
        if isinstance(held, BlackBox):
            given["query"] = _counted_query(held.query, effort)
        if isinstance(held, AdaptiveBlackBox | AdaptiveWhiteBox | Informed):
            given["release"] = _counted_release(held.release, effort)
        if isinstance(held, WhiteBox) and isinstance(held.encoder, nn.Module):
            leave.enter_context(held.encoder.register_forward_hook(_count_passes(effort)))
        before = [checksum(tensor) for tensor in owned]
        yield replace(held, **given)
    if [checksum(tensor) for tensor in owned] != before:
        raise UsageError(
            f"{factory.spec.place} changed the public pictures or a network that it was lent",
            todo="Work on copies: x.clone(), copy.deepcopy(prior)",
        )


def _counted_query(query: Callable[[Tensor], Tensor], effort: _Effort) -> Callable[..., Tensor]:
    def counted(images: Tensor) -> Tensor:
        effort.passes += len(images)
        return query(images)

    return counted


def _counted_release(
    release: Callable[[Tensor, int], Tensor], effort: _Effort
) -> Callable[..., Tensor]:
    def counted(images: Tensor, count: int) -> Tensor:
        effort.releases += count * len(images)
        return release(images, count)

    return counted


def _count_passes(effort: _Effort) -> Callable[..., None]:
    def hook(module: nn.Module, given: tuple[Any, ...], feature: Tensor) -> None:
        effort.passes += len(feature) * (3 if feature.requires_grad else 1)  # back is two more

    return hook
