"""Controls: adversaries who see no feature; what they reach is the floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.attacks.base import Attack, Effort, Guess, ReadyAttack
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import NoFeature, ThreatModel
from leakaudit.maths.chunks import in_chunks


@final
@dataclass(frozen=True)
class ControlPrior(Attack):
    """An independent face of the prior for each feature: the adversary who learnt nothing.

    Source: the prior of Crafter (NDSS 2024) taken as its own reconstruction.
    """

    name: ClassVar[str] = "control-prior"
    holds: ClassVar[type[ThreatModel]] = NoFeature
    control: ClassVar[bool] = True
    source: ClassVar[str] = "Crafter, NDSS 2024, prior"
    needs: ClassVar[tuple[str, ...]] = ("prior",)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Needs a prior."""
        assert isinstance(held, NoFeature)
        if held.prior is None:
            raise UsageError("control-prior needs a prior")
        return _PriorReady(held)


@final
class _PriorReady(ReadyAttack):
    def __init__(self, held: NoFeature) -> None:
        self._held = held

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """As many samples of the prior."""
        assert self._held.prior is not None
        images = self._held.prior.sample(len(features), rng)
        return Guess(images, None, Effort(0, 0))


@final
@dataclass(frozen=True)
class ControlMean(Attack):
    """The mean public face, whatever the feature. Source: usual baseline of inversion studies."""

    name: ClassVar[str] = "control-mean"
    holds: ClassVar[type[ThreatModel]] = NoFeature
    control: ClassVar[bool] = True
    source: ClassVar[str] = "baseline"

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Averages the public images."""
        return _MeanReady(held.public.mean(0))


@final
class _MeanReady(ReadyAttack):
    def __init__(self, mean: Tensor) -> None:
        self._mean = mean

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """The same face for each feature."""
        images = self._mean.expand(len(features), *self._mean.shape).clone()
        return Guess(images, None, Effort(0, 0))


@final
@dataclass(frozen=True)
class ControlAttributes(Attack):
    """Sees only the head's outputs: what the utility task itself gives away.

    Kernel ridge regression, by ``features`` random Fourier features (Rahimi and Recht 2007), from
    the head's outputs to the picture, fitted on public images in closed form.
    """

    name: ClassVar[str] = "control-attributes"
    holds: ClassVar[type[ThreatModel]] = NoFeature
    control: ClassVar[bool] = True
    source: ClassVar[str] = "Rahimi and Recht 2007, ridge"
    needs: ClassVar[tuple[str, ...]] = ("head",)

    features: int = 256
    ridge: float = 1e-2
    batch: int = 128

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Queries encoder and head for the public images and fits the map."""
        assert isinstance(held, NoFeature)
        if held.head is None:
            raise UsageError("control-attributes needs a head")
        head = held.head
        with torch.no_grad():
            outputs = in_chunks(lambda x: head(held.query(x)), held.public, self.batch)
        return _AttributesReady(head, outputs.float(), held.public, self, rng)


@final
class _AttributesReady(ReadyAttack):
    def __init__(  # type: ignore[no-untyped-def]
        self, head, outputs: Tensor, public: Tensor, how: ControlAttributes, rng: Rng
    ) -> None:
        self._head, self._how, self._queries = head, how, len(public)
        self._mean, self._scale = outputs.mean(0), outputs.std(0).clamp(min=1e-6)
        generator = rng.torch()
        width = outputs.shape[1]
        draws = torch.randn(width, how.features, generator=generator) / math.sqrt(width)
        self._directions = draws.to(outputs)
        self._phases = (2 * math.pi * torch.rand(how.features, generator=generator)).to(outputs)
        x = self._lift(outputs)
        gram = x.T @ x + how.ridge * len(x) * torch.eye(x.shape[1], device=x.device)
        flat = public.flatten(1)
        self._base = flat.mean(0)
        self._weights = torch.linalg.solve(gram, x.T @ (flat - self._base))
        self._shape = public.shape[1:]

    def _lift(self, outputs: Tensor) -> Tensor:
        x = (outputs - self._mean) / self._scale
        waves = torch.cos(x @ self._directions + self._phases) * math.sqrt(2 / self._how.features)
        return torch.cat([x, waves, torch.ones_like(x[:, :1])], dim=1)

    @torch.no_grad()
    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """The expected public picture given the head's outputs, (N, 3, H, W)."""
        outputs = in_chunks(self._head, features, self._how.batch).float()
        flat = self._lift(outputs) @ self._weights + self._base
        images = flat.clamp(0, 1).view(len(features), *self._shape)
        return Guess(images, None, Effort(0, self._queries))
