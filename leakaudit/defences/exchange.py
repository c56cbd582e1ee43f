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
from leakaudit.maths.chunks import bounded

BETA, LEFT = 2.0, 0.5  # at this beta, so much is left of a face's likeness
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

    ``left`` is the likeness that the last faces tried kept, before the last move of the price,
    which should have little left to do; ``None`` where nothing was tried.
    """

    value: float
    left: float | None = None

    @property
    def told(self) -> dict[str, float]:
        """Both by name, for a release's details."""
        return {"worth": self.value, **({} if self.left is None else {"likeness_left": self.left})}


def worth_of(given: float, measures: Measures) -> Worth:
    """The worth that a setting gives, or where that is 0 what `exchange` finds."""
    return Worth(given) if given else exchange(measures)


def exchange(measures: Measures) -> Worth:
    """What a privacy loss of 1 is worth in utility losses at beta 1, measured.

    So that ``beta`` 2 takes half of their likeness from faces of the prior, whatever the encoder:
    that is the mean Mahalanobis cosine between a face and what it becomes, of which a stranger has
    none. The variance of features, in which utility losses are told, says neither how dear a
    small move is nor how soon a larger one becomes cheaper; nor does the way that is left to a
    stranger say how much of a person is left on it. So prices are tried on faces of the prior and
    as many strangers, the same for every encoder. Between three encoders it is right to about a
    tenth; where the prior inverts features badly it isn't, for adversaries who don't search the
    prior see more than it asks of (docs/benchmarks.md).
    """

    def made() -> Worth:
        price, slope, tried = math.log(BETA), _USUAL, list[tuple[float, float, int]]()
        most = max(CROWDS)
        z = measures.prior.draw(2 * most, Rng(0, ("exchange",))).to(measures.draws)
        strangers = measures.pooled(measures.prior(z[most:])).detach().unsqueeze(1)
        for crowd in CROWDS:
            enough = SURE if crowd == most else NEAR
            if tried and tried[-1][2] == crowd and abs(tried[-1][1]) < enough:
                continue
            left = _left(measures, z[:crowd], strangers[:crowd], math.exp(price))
            tried.append((price, left - LEFT, crowd))
            if len(tried) > 1 and tried[-2][2] == crowd:  # of other faces it differs anyhow
                slope = _slope(tried[-2][:2], tried[-1][:2], slope)
            price -= max(-_FURTHEST, min(_FURTHEST, tried[-1][1] / slope))
        return Worth(math.exp(price) / BETA, tried[-1][1] + LEFT)

    worth: Worth = measures.once(("exchange", *measures.looks), measures.draws, made)
    measures.at_deployment = measures.passes
    return worth


def _left(measures: Measures, z: Tensor, strangers: Tensor, price: float) -> float:
    """The mean likeness left of faces (N, latent) led to strangers (N, 1, d) at a price."""
    left = []
    size = bounded(16)
    for face, partner in zip(z.split(size), strangers.split(size), strict=True):
        found = lead(
            measures, face, measures.answered(face), partner, price=price, steps=STEPS,
            damping=DAMPING, tolerance=0.0, solve_steps=SOLVE_STEPS,
        )  # fmt: skip
        with torch.no_grad():
            ends = (face, found.best.latents)
            before, after = (measures.pooled(measures.prior(end)) for end in ends)
        left.append(measures.likeness(before, after))
    return float(torch.cat(left).mean())


def _slope(one: tuple[float, float], other: tuple[float, float], usual: float) -> float:
    """How the likeness left falls with the logarithm of the price, by two of them."""
    apart = other[0] - one[0]
    if abs(apart) < 0.1:
        return usual
    return min(_FLATTEST, max(_STEEPEST, (other[1] - one[1]) / apart))
