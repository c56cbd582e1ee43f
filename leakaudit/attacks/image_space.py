"""Searching pictures whose feature is the one seen: what pixel, hybrid and deep-prior share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from leakaudit.attacks.base import Effort, last_change, settled
from leakaudit.core.threats import WhiteBox
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.descent import Descended, Descent, Loss, descend
from leakaudit.maths.image_priors import PublicSpace, total_variation

WEIGHTS = (0.01, 0.1, 1.0)
"""Candidates for the weight of the prior terms; 1: a public picture costs what F = mean does."""
SMOOTH = 0.1  # total variation's share of that weight
TRIED_ON, TRIAL = 6, Descent(steps=60)
MEASURED_ON = 300  # public pictures that tell the scale of features
NEGLIGIBLE = 0.01  # a fall of the loss that counts as none; the mean feature's loss is about 1


@final
@dataclass(frozen=True, eq=False)
class FeatureMatch:
    """The gap between a picture's feature and the one seen, without unit.

    ``|Enc(x) - F|²`` a face, divided by the variance of public features summed over elements, so
    that the mean feature's gap is about 1 on any layer. It cost ``passes`` to measure.
    """

    encoder: Any
    scale: float
    passes: int

    @staticmethod
    def of(held: WhiteBox) -> FeatureMatch:
        """From at most 300 public pictures, spread over all."""
        return held.shared("feature match", lambda: FeatureMatch._measured(held))

    @staticmethod
    @torch.no_grad()
    def _measured(held: WhiteBox, *, batch: int = 50) -> FeatureMatch:
        public = held.public[:: max(1, -(-len(held.public) // MEASURED_ON))]
        features = in_chunks(lambda x: held.encoder(x).flatten(1), public, batch)
        scale = float(features.var(0, correction=0).sum().clamp(min=1e-12))
        return FeatureMatch(held.encoder, scale, len(public))

    def __call__(self, images: Tensor, features: Tensor) -> Tensor:
        """Gaps (N,) between the features of pictures (N, 3, H, W) and features (N, ...)."""
        return (self.encoder(images) - features).flatten(1).square().sum(1) / self.scale


@final
@dataclass(frozen=True, eq=False)
class PictureSearch:
    """``min_x gap(x) + weight (|u(x)|² / width + TV(x) / 10 TV of public pictures)``, x in [0, 1].

    ``u`` are coordinates in which public pictures are white: |u|² is the quadratic term with the
    metric of public pictures instead of the pixels' own, and descending in ``u`` moves along what
    pictures have. In plain pixels the same budget ends in noise that the encoder doesn't see: on
    the demo's layer1 it names a third as many faces. How far x leaves [0, 1] costs too, by a
    pixel's variance.
    """

    match: FeatureMatch
    space: PublicSpace
    variation: float
    variance: float
    weight: float = WEIGHTS[0]
    passes: int = 0

    @staticmethod
    def of(held: WhiteBox) -> PictureSearch:
        """With the weight that rebuilds the adversary's own pictures best.

        He inverts a few public pictures, which took no part in fitting the space, with each weight,
        and keeps the one with the least squared error. Nothing here is drawn at random.
        """
        return held.shared("picture search", lambda: PictureSearch._fitted(held))

    @staticmethod
    def _fitted(held: WhiteBox) -> PictureSearch:
        public, match = held.public, FeatureMatch.of(held)
        search = PictureSearch(
            match,
            PublicSpace.fit(public),
            variation=float(total_variation(public[-MEASURED_ON:]).mean()),
            variance=float(public.var(0, correction=0).mean().clamp(min=1e-6)),
        )
        last = public[-max(1, len(public) // 5) :]
        own = last[:: max(1, -(-len(last) // TRIED_ON))]
        with torch.no_grad():
            features = match.encoder(own)
        errors, passes = [], match.passes + len(own)
        for weight in WEIGHTS:
            found = search.weighing(weight, 0).run(features, search.mean(len(own)), TRIAL)
            made = search.pictures(found.points)
            errors.append(float((made - own).square().mean().nan_to_num(torch.inf)))
            passes += 3 * found.evaluations
        return search.weighing(WEIGHTS[errors.index(min(errors))], passes)

    def weighing(self, weight: float, passes: int) -> PictureSearch:
        """The same search with another weight of the prior terms."""
        return PictureSearch(self.match, self.space, self.variation, self.variance, weight, passes)

    def mean(self, count: int) -> Tensor:
        """Coordinates (count, width) of the mean public picture."""
        return self.space.mean.new_zeros(count, self.space.width)

    def pictures(self, coordinates: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1]."""
        return self.space.pictures(coordinates).clamp(0, 1)

    def loss(self, features: Tensor) -> Loss:
        """The attacker's own loss for these features (N, ...)."""

        def loss(coordinates: Tensor, rows: Tensor) -> Tensor:
            free = self.space.pictures(coordinates)
            x = free.clamp(0, 1)
            outside = (free - x).square().flatten(1).mean(1) / self.variance
            rough = total_variation(x) / self.variation
            unlikely = coordinates.square().mean(1) + SMOOTH * rough
            return self.match(x, features[rows]) + self.weight * unlikely + outside

        return loss

    def run(
        self, features: Tensor, start: Tensor, how: Descent, *, batch: int | None = None
    ) -> Descended:
        """The search for each feature (N, ...), from coordinates (N, width)."""
        return descend(self.loss(features), start, how=how, batch=batch)


def effort_of(done: Descended, *, passes: int, note: str) -> Effort:
    """What a descent took; converged where nine in ten faces settled, or the mean loss did."""
    curve = done.curve
    return Effort(
        steps=len(curve) - 1,
        passes=passes + 3 * done.evaluations,
        curve=curve,
        last_change=last_change(curve),
        converged=done.share_settled >= 0.9 or settled(curve, negligible=NEGLIGIBLE),
        note=note,
    )
