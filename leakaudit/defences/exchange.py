"""What a loss of privacy is worth in losses of utility, so that a beta means the same anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.defences.crafting import Measures
from leakaudit.defences.leading import lead
from leakaudit.defences.likeness import Likeness
from leakaudit.maths.chunks import bounded

BETA, LEFT = 2.0, 0.5  # at this beta, so much is left of a face's likeness
READ = 0.1  # so much more a linear adversary reads where that is left of the face itself
STEPS = 10  # by so many steps
CROWDS = (8, 8, 8, 64, 64)  # faces of the prior that each price is tried on: few to find the region
SOLVE_STEPS, DAMPING = 4, 0.03
NEAR, SURE = 0.03, 0.06  # from the likeness wanted, for few faces to do, and for the last try to
_USUAL = -0.55  # how the likeness left falls with the logarithm of the price, by experience
_STEEPEST, _FLATTEST = -1.0, -0.2  # what two prices are believed to tell of that
_FURTHEST = math.log(4)  # from one price to the next


def exchange_ahead() -> int:
    """Encoder passes that `exchange` takes at most, unless the first try on all faces fails."""
    return sum(CROWDS[:-1]) * (2 + STEPS * (4 * SOLVE_STEPS + 10))


@final
@dataclass(frozen=True)
class Worth:
    """What a privacy loss of 1 is worth in utility losses at beta 1.

    ``left`` is the likeness that was left of the last faces tried, before the last move of the
    price, which should have little left to do: ``moved`` is that of its logarithm. Both are
    ``None`` where nothing was tried.
    """

    value: float
    left: float | None = None
    moved: float | None = None

    @property
    def told(self) -> dict[str, float]:
        """All by name, for a release's details."""
        told = {"worth": self.value, "likeness_left": self.left, "worth_moved": self.moved}
        return {name: value for name, value in told.items() if value is not None}


def worth_of(given: float, measures: Measures) -> Worth:
    """The worth that a setting gives, or where that is 0 what `exchange` finds."""
    return Worth(given) if given else exchange(measures)


def exchange(measures: Measures) -> Worth:
    """What a privacy loss of 1 is worth in utility losses at beta 1, measured.

    So that at ``beta`` 2 half of their likeness is left of faces of the prior, whatever the
    encoder: of the face that they were led to, which an adversary who searches the prior finds, or
    where that is more, of what a linear adversary reads of their features. The latter counts less
    ``READ``, by which it is larger behind networks that the prior inverts well; it is what is left
    where an encoder hardly shows much of a face, which costs nothing to exchange and which nobody
    saw before. The variance of features, in which utility losses are told, says neither how dear a
    small move is nor how soon a larger one becomes cheaper; nor does the way that is left to a
    stranger say how much of a person is left on it. So prices are tried on faces of the prior and
    as many strangers, the same for every encoder (docs/benchmarks.md).
    """

    def made() -> Worth:
        price, slope, tried = math.log(BETA), _USUAL, list[tuple[float, float, int]]()
        most, alike = max(CROWDS), Likeness.fit(measures)
        z = measures.prior.draw(2 * most, Rng(0, ("exchange",))).to(measures.draws)
        strangers = measures.pooled(measures.prior(z[most:])).detach().unsqueeze(1)
        for crowd in CROWDS:
            enough = SURE if crowd == most else NEAR
            if tried and tried[-1][2] == crowd and abs(tried[-1][1]) < enough:
                continue
            left = _left(measures, alike, z[:crowd], strangers[:crowd], math.exp(price))
            tried.append((price, left - LEFT, crowd))
            if len(tried) > 1 and tried[-2][2] == crowd:  # of other faces it differs anyhow
                slope = _slope(tried[-2][:2], tried[-1][:2], slope)
            price -= max(-_FURTHEST, min(_FURTHEST, tried[-1][1] / slope))
        last, off, _ = tried[-1]
        return Worth(math.exp(price) / BETA, off + LEFT, abs(price - last))

    worth: Worth = measures.once(("exchange", *measures.looks), measures.draws, made)
    measures.at_deployment = measures.passes
    return worth


def _left(measures: Measures, alike: Likeness, z: Tensor, strangers: Tensor, price: float) -> float:
    """The mean likeness left of faces (N, latent) led to strangers (N, 1, d) at a price."""
    made, read = [], []
    size = bounded(16)
    for face, partner in zip(z.split(size), strangers.split(size), strict=True):
        before = measures.answered(face)
        found = lead(
            measures, face, before, partner, price=price, steps=STEPS,
            damping=DAMPING, tolerance=0.0, solve_steps=SOLVE_STEPS,
        ).best  # fmt: skip
        made.append(alike.made(face, found.latents))
        read.append(alike.read(before, found.features))
    return max(float(torch.cat(made).mean()), float(torch.cat(read).mean()) - READ)


def _slope(one: tuple[float, float], other: tuple[float, float], usual: float) -> float:
    """How the likeness left falls with the logarithm of the price, by two of them."""
    apart = other[0] - one[0]
    if abs(apart) < 0.1:
        return usual
    return min(_FLATTEST, max(_STEEPEST, (other[1] - one[1]) / apart))
