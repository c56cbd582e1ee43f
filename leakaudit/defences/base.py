"""What a defence is: deployed once on what the defender holds, it then releases features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.models.prior import Prior


@dataclass(frozen=True, eq=False)
class Workshop:
    """What the defender holds: the encoder, public images (M, 3, H, W), and a prior or ``None``.

    ``key`` is a deployment's secret, 32 bytes, for defences that draw by picture; without one they
    derive theirs from the ``rng`` that they are deployed with. ``kept`` is shared by deployments on
    the same encoder, public faces and prior: what doesn't depend on how strong a defence is is
    computed once and kept there, under a key of everything that it depends on. It grows with the
    faces; without one nothing is kept.
    """

    encoder: nn.Module
    public: Tensor
    prior: Prior | None
    key: bytes | None = None
    kept: dict[Hashable, Any] | None = None


@dataclass(frozen=True, eq=False)
class Released:
    """Protected features (N, ...) and how the defence's own optimiser fared.

    ``details`` are run-wide numbers for the report, ``curve`` the mean objective along the way,
    ``per_face`` numbers a face, each in the order of the features.
    """

    features: Tensor
    steps: int = 0
    passes: int = 0
    curve: tuple[float, ...] = ()
    converged: bool = True
    details: dict[str, float] = field(default_factory=dict)
    per_face: dict[str, tuple[float, ...]] = field(default_factory=dict)


class Deployed(ABC):
    """A defence at work. ``encoder`` is the one whose features it starts from.

    ``replays`` says that a release follows from the picture and the deployment's key alone,
    whatever ``rng`` it is given and whoever else is in the batch.
    """

    encoder: nn.Module
    replays: bool = False

    @abstractmethod
    def release(self, images: Tensor, rng: Rng) -> Released:
        """Features (N, ...) as they leave the edge; a fresh ``rng`` is a fresh release."""


class Defence(ABC):
    """A frozen dataclass of a defence's hyper-parameters.

    ``coupling`` says whether the release of one face depends on the others of its batch ("image"
    or "batch"; a setting may decide it, so that it belongs to the instance);
    ``keeps_rows`` that a batch comes back in its own order for certain, so that nobody need look;
    ``uses_prior`` whether it was made against the prior that white-box attacks search too;
    ``knob`` names the field that is tuned, more of which is more privacy, if there is one.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    coupling: str = "image"
    keeps_rows: ClassVar[bool] = False
    uses_prior: ClassVar[bool] = False
    knob: ClassVar[str] = ""

    @property
    def will_replay(self) -> bool:
        """Whether its settings say that a picture will always be released as the same bits."""
        return False

    @abstractmethod
    def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
        """All that is done once, on public data; raises UsageError if something is missing."""

    def passes_ahead(self, faces: int) -> int:
        """Encoder passes that releasing ``faces`` will take, for the plan's estimate."""
        return faces

    def cost_ahead(self, faces: int) -> Cost:
        """What deploying and releasing ``faces`` will take, for an estimate of the time."""
        return Cost(encodes=self.passes_ahead(faces))
