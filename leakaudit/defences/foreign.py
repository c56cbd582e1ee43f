"""A user's own defence by ``file.py:factory``, audited like the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor, nn

from leakaudit.core.errors import InputError, UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.specs import FactorySpec
from leakaudit.defences.base import Defence, Deployed, Released, Workshop
from leakaudit.defences.identity import encode
from leakaudit.models.factories import Factory, checked_tensor, load_factory

FEATURES, IMAGES = "protect_features", "protect_images"
COUPLINGS = ("image", "batch")
OVERSHOOT = 1e-3
"""How far beyond [0, 1] a protected picture may lie: rounding, and no other scale of numbers."""


def foreign_defence(spec: FactorySpec) -> Defence:
    """The defence that a user's factory makes; UsageError where its object isn't one.

    The object has exactly one of ``protect_features(features, rng)``, from clean features (N, ...)
    to released ones of that shape, and ``protect_images(images, rng)``, from pictures
    (N, 3, H, W) in [0, 1] to others; a plain function counts as the first. ``rng`` is a
    ``torch.Generator`` on the CPU, another one for each release. An attribute ``coupling`` may be
    "batch"; whatever else it says, the coupling is "unknown", and the audit looks for itself.
    The factory is called once here, to look at what it makes, and once for each deployment.
    """
    factory = load_factory(spec)
    made = factory.make(Rng(0, ("plan",)))
    _protection(factory, made)
    declared = getattr(made, "coupling", "image")
    if declared not in COUPLINGS:
        raise UnknownNameError("coupling", str(declared), COUPLINGS, where=spec.place)
    # One that moves rows and keeps silent would look safe, so that only "batch" is taken as said.
    known = "batch" if declared == "batch" else "unknown"

    @final
    @dataclass(frozen=True)
    class ForeignDefence(Defence):
        """What a user's own code releases. Source: the user's own code."""

        name: ClassVar[str] = factory.spec.name
        source: ClassVar[str] = "the user's own code"
        coupling = known

        spec: str
        settings: Mapping[str, Any]
        sha256: str

        def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
            """Calls the factory; the workshop's public pictures aren't handed to it."""
            fresh = factory.make(rng.derive("factory"))
            kind, protect = _protection(factory, fresh)
            return (_OnFeatures if kind == FEATURES else _OnImages)(
                workshop.encoder, factory, protect
            )

    return ForeignDefence(spec.label, spec.shown_settings, factory.sha256)


def _protection(factory: Factory, thing: Any) -> tuple[str, Callable[..., Any]]:
    """Which of the two a user's object does, and the method that does it."""
    found = {
        name: method
        for name, given in ((FEATURES, "features"), (IMAGES, "images"))
        if (method := factory.method(thing, name, given, "rng")) is not None
    }
    place = factory.spec.place
    if len(found) > 1:
        raise UsageError(
            f"{place} gave a {type(thing).__name__} with both {FEATURES} and {IMAGES}",
            todo="Keep the one that is to be audited",
        )
    if not found and not callable(thing):
        raise UsageError(
            f"{place} gave a {type(thing).__name__}, which has neither {FEATURES} nor {IMAGES}",
            todo=f"Return an object with a method {FEATURES}(features, rng), or such a function",
        )
    if not found:
        factory.takes(thing, FEATURES, "features", "rng")
        found[FEATURES] = thing
    return next(iter(found.items()))


@final
class _OnFeatures(Deployed):
    def __init__(self, encoder: nn.Module, factory: Factory, protect: Callable[..., Any]) -> None:
        self.encoder, self._factory, self._protect = encoder, factory, protect

    def release(self, images: Tensor, rng: Rng) -> Released:
        """What the user makes of ``Enc(x)``, (N, ...)."""
        clean = encode(self.encoder, images)
        made = self._factory.ask(self._protect, FEATURES, clean, rng.torch(), rng=rng)
        told = self._factory.told(FEATURES)
        return Released(checked_tensor(made, clean.shape, clean, told=told), passes=len(images))


@final
class _OnImages(Deployed):
    def __init__(self, encoder: nn.Module, factory: Factory, protect: Callable[..., Any]) -> None:
        self.encoder, self._factory, self._protect = encoder, factory, protect

    def release(self, images: Tensor, rng: Rng) -> Released:
        """``Enc`` of what the user makes of x, (N, ...)."""
        made = self._factory.ask(self._protect, IMAGES, images.clone(), rng.torch(), rng=rng)
        told = self._factory.told(IMAGES)
        pictures = checked_tensor(made, images.shape, images, told=told)
        low, high = float(pictures.min()), float(pictures.max())
        if low < -OVERSHOOT or high > 1 + OVERSHOOT:
            # Clipping another scale would give white pictures, and the look of a perfect defence.
            raise InputError(
                f"{told} gave pictures from {low:.3g} to {high:.3g}",
                todo="A picture lies in [0, 1]: scale it back, or clamp it",
            )
        return Released(encode(self.encoder, pictures.clamp(0, 1)), passes=len(images))
