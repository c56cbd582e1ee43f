"""whitebox-pixel: search the picture itself for one whose feature is the one seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor

from leakaudit.attacks.base import Attack, Guess, ReadyAttack
from leakaudit.attacks.image_space import (
    MEASURED_ON,
    TRIAL,
    TRIED_ON,
    WEIGHTS,
    PictureSearch,
    effort_of,
)
from leakaudit.core.checks import at_least
from leakaudit.core.rng import Rng
from leakaudit.core.threats import ThreatModel, WhiteBox
from leakaudit.maths.descent import Descent

FITTING = MEASURED_ON + TRIED_ON * (1 + 3 * len(WEIGHTS) * (TRIAL.steps + 1))
"""Encoder passes, at most, until a picture search stands."""


@final
@dataclass(frozen=True)
class WhiteBoxPixel(Attack):
    """``min_x |Enc(x) - F|² + λ_tv TV(x) + λ_2 |x|²`` from the mean public face, x in [0, 1].

    Source: He et al. 2019 (ACSAC), rMLE, "Model inversion attacks against collaborative inference".
    Two differences: pictures are searched, and |x|² is measured, in coordinates in which public
    pictures are white (see ``PictureSearch``); and one weight for both prior terms is chosen by
    inverting a few public pictures, the adversary's own.
    """

    name: ClassVar[str] = "whitebox-pixel"
    holds: ClassVar[type[ThreatModel]] = WhiteBox
    source: ClassVar[str] = "He et al. 2019, rMLE"

    descent: Descent = field(default_factory=lambda: Descent(steps=150))
    batch: int = 32

    def __post_init__(self) -> None:
        at_least(self.name, 1, batch=self.batch)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Fits the coordinates, the scale of features, and the weight on public pictures."""
        assert isinstance(held, WhiteBox)
        return _Ready(PictureSearch.of(held), self)

    def passes_ahead(self, faces: int) -> int:
        """Fitting once, then three (forward and backward) a step and face, at most."""
        return FITTING + 3 * faces * (self.descent.steps + 1)


@final
class _Ready(ReadyAttack):
    def __init__(self, search: PictureSearch, how: WhiteBoxPixel) -> None:
        self._search, self._how = search, how

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Pictures (N, 3, H, W) and their losses."""
        search = self._search
        start = search.mean(len(features))
        done = search.run(features, start, self._how.descent, batch=self._how.batch)
        note = f"weight of the prior terms {search.weight:g}, chosen on public pictures"
        return Guess(
            search.pictures(done.points),
            done.loss,
            effort_of(done, passes=search.passes, note=note),
            details={"weight": search.weight, "settled": done.share_settled},
        )
