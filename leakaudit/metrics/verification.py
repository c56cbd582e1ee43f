"""Verification: does a judge take the reconstruction for another picture of the same person?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

from leakaudit.core.types import LeakGrows, Score
from leakaudit.maths.intervals import rate_interval
from leakaudit.metrics.base import Evidence, Metric
from leakaudit.metrics.identity import embeddings_of
from leakaudit.models.oracle import IdentityOracle
from leakaudit.models.verification import Comparisons, Verifier


@final
@dataclass(frozen=True, eq=False)
class Verification(Metric):
    """Share of reconstructions that match the person's other pictures at 1 % false matches.

    Fraction in [0, 1]; the leak grows upwards; chance is the false-match rate. A reconstruction
    matches where the cosine of its embedding to the mean of the person's enrolled pictures (with
    ``comparisons``: to the picture that a given pair compares it with) is above a threshold. At
    most 1 % of comparisons of enrolled pictures with another person's mean lie above it. The mean
    makes it one comparison a face: "any picture" would match more often by chance the more
    pictures somebody has. Source: Huang et al. 2007 (LFW); the rate as in NIST FRVT 1:1.
    """

    name: ClassVar[str] = "verification"
    unit: ClassVar[str] = "share of faces"
    leak_grows: ClassVar[LeakGrows] = "up"
    source: ClassVar[str] = "Huang et al. 2007, at a false-match rate of 1 %"

    oracle: IdentityOracle
    comparisons: Comparisons | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_verifier", Verifier.of(self.oracle, self.comparisons))

    @property
    def verifier(self) -> Verifier:
        """References and threshold."""
        made: Verifier = self._verifier  # type: ignore[attr-defined]
        return made

    def __call__(self, evidence: Evidence) -> Score:
        """The rate with its interval; ``per_face`` is 1 where the face matched."""
        threshold = self.verifier.threshold
        if threshold is None:
            return self.unavailable(evidence, self.verifier.told())
        vectors = embeddings_of(evidence, self.oracle)
        if vectors is None:
            return self.unavailable(evidence, "this attack names people without an embedding")
        hits = self.verifier.cosines(vectors, evidence.people) > threshold
        generator = evidence.rng.derive(self.name).torch()
        interval = rate_interval(hits, evidence.people, generator)
        found = self.score(evidence, interval, hits.float())
        # Told once, where originals show the ceiling; a note on every row would be noise.
        return replace(found, note=self.verifier.told()) if evidence.attack == "original" else found
