"""What a metric is: evidence in, one score out, with its unit and the direction of the leak."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.core.types import LeakGrows, Score
from leakaudit.maths.intervals import Interval, bootstrap_mean


@dataclass(frozen=True, eq=False)
class Evidence:
    """Originals and reconstructions of one row, side by side for the first time.

    ``originals`` and ``reconstructions`` (N, 3, H, W) in [0, 1]; ``people`` (N,) indices into the
    oracle's gallery; ``rng`` is the row's own stream. An attack that names people without a picture
    has ``reconstructions`` None, and ``embeddings`` (N, d) in the oracle's space or ``scores``
    (N, people) instead; where there are pictures, ``embeddings`` may be theirs, computed once.
    """

    defence: str
    attack: str
    threat: str
    originals: Tensor
    reconstructions: Tensor | None
    people: Tensor
    rng: Rng
    embeddings: Tensor | None = None
    scores: Tensor | None = None

    def copy(self) -> Evidence:
        """The same with tensors of its own."""
        own: dict[str, Any] = {k: v.clone() for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **own)


class Metric(ABC):
    """One number a row, with its interval."""

    name: ClassVar[str]
    unit: ClassVar[str]
    leak_grows: ClassVar[LeakGrows]
    source: ClassVar[str]

    @abstractmethod
    def __call__(self, evidence: Evidence) -> Score:
        """The score of this evidence."""

    def score(
        self, evidence: Evidence, interval: Interval, per_face: Tensor | None = None
    ) -> Score:
        """A score of this metric for the evidence's row."""
        faces = None if per_face is None else tuple(round(float(v), 6) for v in per_face)
        return Score(
            defence=evidence.defence,
            attack=evidence.attack,
            threat=evidence.threat,
            metric=self.name,
            value=interval.value,
            low=interval.low,
            high=interval.high,
            n=len(evidence.people),
            unit=self.unit,
            leak_grows=self.leak_grows,
            per_face=faces,
        )

    def mean_score(self, evidence: Evidence, per_face: Tensor) -> Score:
        """The mean over faces with a bootstrap over people."""
        generator = evidence.rng.derive(self.name).torch()
        interval = bootstrap_mean(per_face, evidence.people, generator)
        return self.score(evidence, interval, per_face)

    def unavailable(self, evidence: Evidence, why: str) -> Score:
        """A row that says why nothing was measured."""
        return Score(
            defence=evidence.defence,
            attack=evidence.attack,
            threat=evidence.threat,
            metric=self.name,
            value=None,
            low=None,
            high=None,
            n=len(evidence.people),
            unit=self.unit,
            leak_grows=self.leak_grows,
            note=why,
        )


NO_PICTURE = "this attack names people without a picture"


def in_batches(images: Tensor, size: int = 64) -> tuple[Tensor, ...]:
    """The pictures in batches of at most ``size``."""
    return torch.split(images, size)
