"""adaptive-generator-latent: latent search on generators that the defence wasn't made against."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

from torch import Tensor

from leakaudit.attacks.base import Attack, Effort, Guess, Queries, ReadyAttack
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.attacks.learnt import Judge
from leakaudit.attacks.pairs import Pairs, learnable, released_pairs
from leakaudit.core.checks import at_least
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveWhiteBox, Bench, ThreatModel, WhiteBox
from leakaudit.models.eigenfaces import eigenfaces
from leakaudit.models.generators import default_shape
from leakaudit.models.prior import PriorTraining, train_prior

JUDGED = 12
"""Held-out releases that each generator's search is tried on, at most."""


@final
@dataclass(frozen=True)
class AdaptiveGeneratorLatent(Attack):
    """``whitebox-latent`` with the generator that shows held-out public pictures best.

    Candidates: the given prior, which the defence may have used; ``components`` eigenfaces of
    ``pictures`` public pictures, another architecture in closed form; and, where ``prior_steps``
    is above 0, a convolutional prior of another seed, ``prior_architecture`` and ``prior_latent``
    numbers. The judge looks at releases of ``queries`` public pictures that were sent through the
    defence.
    Source: Crafter (NDSS 2024), adaptive adversary A2; eigenfaces are those of Turk and Pentland.
    """

    name: ClassVar[str] = "adaptive-generator-latent"
    holds: ClassVar[type[ThreatModel]] = AdaptiveWhiteBox
    source: ClassVar[str] = "Crafter, NDSS 2024, A2"

    queries: int = 48
    components: int = 400
    pictures: int = 2000
    prior_steps: int = 0
    prior_latent: int = 64
    prior_architecture: str = "residual"
    latent: WhiteBoxLatent = field(default_factory=WhiteBoxLatent)

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries, pictures=self.pictures)
        at_least(self.name, 1, components=self.components, prior_latent=self.prior_latent)
        at_least(self.name, 0, prior_steps=self.prior_steps)
        default_shape(self.prior_architecture)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Makes the generators, prepares a search on each, and tries them on public releases."""
        assert isinstance(held, AdaptiveWhiteBox)
        asked = released_pairs(held, self.queries)
        best: _Chosen | None = None
        for label, generator in self._generators(held, rng).items():
            # A bench of its own: what is kept there of one generator says nothing of another.
            mine = WhiteBox(
                held.public, held.encoder, generator, recogniser=held.recogniser, bench=Bench()
            )
            ready = self.latent.prepare(mine, rng.derive(label))
            judge = Judge(asked.images[asked.held_out[:JUDGED]], held.recogniser)
            tried = _Chosen.of(label, ready, asked, judge, rng)
            best = tried if best is None or tried.error < best.error else best
        assert best is not None
        return best

    def passes_ahead(self, faces: int) -> int:
        """The search's own, for each generator's trial and for the faces."""
        trial = min(JUDGED, max(4, self.queries // 5))
        count = 2 + (self.prior_steps > 0)
        return count * self.latent.passes_ahead(trial) + self.latent.passes_ahead(faces)

    def queries_ahead(self) -> Queries:
        """One release a picture."""
        return Queries(self.queries)

    def _generators(self, held: AdaptiveWhiteBox, rng: Rng) -> dict[str, Any]:
        found: dict[str, Any] = {} if held.prior is None else {"the given prior": held.prior}
        seen = learnable(held.public)
        found["eigenfaces"] = held.shared(
            f"{self.components} eigenfaces of {self.pictures}",
            lambda: eigenfaces(seen[: self.pictures], self.components),
        )
        if self.prior_steps:
            usual = default_shape(self.prior_architecture)
            shape = replace(usual, size=held.public.shape[-1], latent=self.prior_latent)
            training = PriorTraining(steps=self.prior_steps)
            found["a prior of his own"] = held.shared(
                f"{self.prior_architecture} prior of {self.prior_latent} after {self.prior_steps}",
                lambda: train_prior(
                    seen,
                    shape=shape,
                    training=training,
                    rng=rng.derive("prior"),
                    mirror=True,
                )[0].requires_grad_(False),
            )
        return found


@final
@dataclass(frozen=True, eq=False)
class _Chosen(ReadyAttack):
    """A search on one generator, and the judge's error of what it makes of public releases."""

    label: str
    ready: ReadyAttack
    error: float
    tried: Effort

    @staticmethod
    def of(label: str, ready: ReadyAttack, asked: Pairs, judge: Judge, rng: Rng) -> _Chosen:
        seen = asked.released[0, asked.held_out[:JUDGED]]
        guess = ready.reconstruct(seen, rng.derive("trial", label))
        assert guess.images is not None
        return _Chosen(label, ready, judge.error(guess.images), guess.effort)

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Faces of the chosen generator, their latents and feature losses."""
        guess = self.ready.reconstruct(features, rng)
        passes = guess.effort.passes + self.tried.passes
        note = f"{self.label}; {guess.effort.note}"
        return replace(guess, effort=replace(guess.effort, passes=passes, note=note))
