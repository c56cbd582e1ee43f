"""Identity metrics: does the oracle name the person, and how near is the embedding?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

from torch import Tensor

from leakaudit.core.types import LeakGrows, Score
from leakaudit.maths.intervals import rate_interval
from leakaudit.metrics.base import NO_PICTURE, Evidence, Metric
from leakaudit.models.oracle import IdentityOracle


def named_within(scores: Tensor, people: Tensor, top: int) -> Tensor:
    """Whether each person (N,) is among the ``top`` highest scores (N, P); ties count against."""
    own = scores.gather(1, people.unsqueeze(1))
    above = (scores >= own).sum(1) - 1
    return above < top


@final
@dataclass(frozen=True, eq=False)
class IdentificationRate(Metric):
    """Share of reconstructions in which the identity oracle names the true person.

    Fraction in [0, 1]; the leak grows upwards; chance is ``1 / gallery``. "Eval Acc" in Crafter
    (NDSS 2024). A tie with another person counts as not named.
    """

    name: ClassVar[str] = "identification"
    unit: ClassVar[str] = "share of faces"
    leak_grows: ClassVar[LeakGrows] = "up"
    source: ClassVar[str] = "Crafter, NDSS 2024, Eval Acc"

    oracle: IdentityOracle

    def __call__(self, evidence: Evidence) -> Score:
        """Top-1 rate with its interval; ``per_face`` is 1 where the person was named."""
        return _rate(self, evidence, self.oracle, 1)


@final
@dataclass(frozen=True, eq=False)
class IdentificationTop5(Metric):
    """Share of reconstructions with the true person among the oracle's five best names.

    Fraction in [0, 1]; the leak grows upwards; chance is ``5 / gallery``. Source: as top-1.
    """

    name: ClassVar[str] = "identification_top5"
    unit: ClassVar[str] = "share of faces"
    leak_grows: ClassVar[LeakGrows] = "up"
    source: ClassVar[str] = "Crafter, NDSS 2024, top-5"

    oracle: IdentityOracle

    def __call__(self, evidence: Evidence) -> Score:
        """Top-5 rate with its interval."""
        return _rate(self, evidence, self.oracle, 5)


def _rate(metric: Metric, evidence: Evidence, oracle: IdentityOracle, top: int) -> Score:
    hits = named_within(_scores(evidence, oracle), evidence.people, top)
    generator = evidence.rng.derive(metric.name).torch()
    return metric.score(evidence, rate_interval(hits, evidence.people, generator), hits.float())


def _scores(evidence: Evidence, oracle: IdentityOracle) -> Tensor:
    """How well each face fits each person of the gallery, (N, P)."""
    if evidence.scores is not None:
        return evidence.scores
    embeddings = embeddings_of(evidence, oracle)
    assert embeddings is not None, "a guess is a picture, an embedding or scores"
    return embeddings @ oracle.means.T


def embeddings_of(evidence: Evidence, oracle: IdentityOracle) -> Tensor | None:
    """The reconstructions as the oracle sees them, (N, d); ``None`` for mere scores of names."""
    if evidence.embeddings is not None:
        return evidence.embeddings
    if evidence.reconstructions is None:
        return None
    return oracle.embed(evidence.reconstructions)


@final
@dataclass(frozen=True, eq=False)
class FeatureSimilarity(Metric):
    """Cosine of the oracle's embeddings of reconstruction and original, mean over faces.

    In [-1, 1]; the leak grows upwards. FSIM in the seeds; Crafter (NDSS 2024), feature similarity.
    """

    name: ClassVar[str] = "feature_similarity"
    unit: ClassVar[str] = "cosine"
    leak_grows: ClassVar[LeakGrows] = "up"
    source: ClassVar[str] = "Crafter, NDSS 2024, feature similarity"

    oracle: IdentityOracle

    def __call__(self, evidence: Evidence) -> Score:
        """Mean cosine with a bootstrap over people."""
        made = embeddings_of(evidence, self.oracle)
        if made is None:
            return self.unavailable(evidence, "this attack names people without an embedding")
        true = self.oracle.embed_originals(evidence.originals)
        return self.mean_score(evidence, (made * true).sum(1))


def by_judge(evidence: Evidence, judge: IdentityOracle) -> list[Score]:
    """The three measures as a further judge sees them: ``identification-facenet-vggface2``, ...

    He looks at pictures only: an attack that names people without one speaks the main judge's
    language, and its rows say so.
    """
    metrics = (IdentificationRate(judge), IdentificationTop5(judge), FeatureSimilarity(judge))
    if evidence.reconstructions is None:
        why = f"{NO_PICTURE}, so '{judge.short}' can't judge it"
        rows = [metric.unavailable(evidence, why) for metric in metrics]
    else:
        seen = judge.embed(evidence.reconstructions)
        own = replace(evidence, embeddings=seen, scores=None)
        rows = [metric(own) for metric in metrics]
    return [replace(row, metric=f"{row.metric}-{judge.short}") for row in rows]
