"""What an attack is: prepared on what its threat model holds, it sees features, never faces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.core.threats import ThreatModel


@dataclass(frozen=True)
class Effort:
    """How hard an attack worked, as its convergence row tells it.

    ``passes`` counts faces forwarded through the encoder, a backward pass as two more; ``curve`` is
    the mean loss over the faces at evenly spaced steps; ``converged`` follows from the relative
    change of the loss over the last half of the steps, ``last_change``, or from how many faces
    stopped because nothing was gained any more. Releases that were asked of the defended pipeline
    are counted by the audit itself.
    """

    steps: int
    passes: int
    curve: tuple[float, ...] = ()
    last_change: float | None = None
    converged: bool = True
    note: str | None = None

    @property
    def final_loss(self) -> float | None:
        """The last point of the curve, in the unit of the attack's own loss."""
        return self.curve[-1] if self.curve else None


@dataclass(frozen=True, eq=False)
class Guess:
    """What an attack believes of each face: a picture, an embedding, or scores of names.

    Exactly one of ``images`` (N, 3, H, W) in [0, 1], ``embeddings`` (N, d) in the recogniser's
    space, and ``scores`` (N, people) by index of the gallery is given, the others are ``None``.
    ``loss`` (N,) is the attacker's own; it ranks guesses of one attack for one face; smaller is
    better; an attack without a loss of its own gives ``None``. ``latents`` (N, latent) are given by
    attacks that search a prior.
    """

    images: Tensor | None
    loss: Tensor | None
    effort: Effort
    latents: Tensor | None = None
    details: dict[str, float] = field(default_factory=dict)
    embeddings: Tensor | None = None
    scores: Tensor | None = None


@dataclass(frozen=True)
class Queries:
    """So many of his own pictures an adversary sends through the defence, so often each."""

    pictures: int
    releases: int = 1


class ReadyAttack(ABC):
    """An attack that has done all its training and waits for features."""

    @abstractmethod
    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """A guess a face for features (N, ...); row i depends only on feature i.

        An attack that ``looks`` at K above 1 is handed (K, N, ...): K releases of each picture.
        """


NEEDS = ("prior", "head", "recogniser")
"""What a subject may lack: a prior of faces, the utility task's head, a face recogniser."""


class Attack(ABC):
    """A published way from features back to faces; a frozen dataclass of its hyper-parameters.

    ``control`` attacks set the floor and don't count in worst cases; nor do those that hold
    ``Informed``. ``source`` names the publication, and the docstring names it too.
    """

    name: ClassVar[str]
    holds: ClassVar[type[ThreatModel]]
    control: ClassVar[bool] = False
    source: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """What it can't do without, of ``NEEDS``: a plan leaves it out where that is missing."""
    inverts_queries: ClassVar[bool] = False
    """Whether each picture that it asks for costs it a search of its own."""

    @abstractmethod
    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """All training on what the adversary holds; raises UsageError if something is missing."""

    def passes_ahead(self, faces: int) -> int:
        """Encoder passes that reconstructing ``faces`` will take, for the plan's estimate."""
        return 0

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """What preparing and reconstructing will take, for an estimate of the time."""
        return Cost(encodes=self.passes_ahead(faces))

    def looks(self) -> int:
        """How many releases of each attacked picture it looks at; above 1 only for averaging."""
        return 1

    def queries_ahead(self) -> Queries:
        """What it will ask of the defended pipeline, at most; nothing for static attacks."""
        return Queries(0, 0)


def prepared(attack: Attack, held: ThreatModel, rng: Rng) -> ReadyAttack:
    """This attack as it stands on the adversary's bench, or prepared and put there by its name.

    An audit puts the plan's own attacks there, with their settings and randomness.
    """
    return held.shared(attack.name, lambda: attack.prepare(held, rng))


SETTLED = 0.15


def last_change(curve: tuple[float, ...]) -> float | None:
    """Relative fall of the loss over the last half of a curve; ``None`` for under ten points.

    Half of the steps rather than the last few: an annealed rate flattens the end of any schedule,
    however short, but a schedule that is too short still falls a lot in its second half.
    """
    if len(curve) < 10:
        return None
    middle = curve[len(curve) // 2]
    return (middle - curve[-1]) / max(abs(middle), 1e-12)


def settled(curve: tuple[float, ...], *, negligible: float = 0.0) -> bool:
    """Whether a loss changed by at most ``SETTLED`` of itself over the last half of its curve.

    A change of at most ``negligible``, in the loss's own unit, counts as none. A curve that is too
    short to tell is not settled.
    """
    change = last_change(curve)
    if change is None:
        return False
    return abs(change) <= SETTLED or abs(curve[len(curve) // 2] - curve[-1]) <= negligible
