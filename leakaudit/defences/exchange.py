"""What a loss of privacy is worth in losses of utility, so that a beta means the same anywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.defences.crafting import Measures
from leakaudit.defences.leading import lead
from leakaudit.maths.chunks import bounded

BETA, LEFT = 2.0, 0.35  # at this beta, this share of a stranger's distance is left by so many
FACES, TRIES, STEPS = 16, 3, 8  # faces of the prior, prices tried on them, and steps for each
SOLVE_STEPS, DAMPING = 4, 0.03
NEAR = 0.015  # beyond the share wanted, for a price to do
_USUAL = -0.35  # how the share left falls with the logarithm of the price, by experience
_STEEPEST, _FLATTEST = -0.7, -0.2  # what two prices are believed to tell of that
_FURTHEST = math.log(4)  # from one price to the next


def exchange_ahead() -> int:
    """Encoder passes that `exchange` takes."""
    return FACES * (1 + TRIES * (1 + STEPS * (4 * SOLVE_STEPS + 10)))


def exchange(measures: Measures) -> float:
    """What a privacy loss of 1 is worth in utility losses at beta 1.

    So that ``beta`` 2 leads faces of the prior two thirds of the way to a stranger's, whatever the
    encoder. The variance of features, in which utility losses are told, says neither how dear a
    small move is nor how soon a larger one becomes cheaper; so prices are tried on `FACES` faces of
    the prior and as many strangers, the same for every encoder. Between encoders it is right to
    about a tenth, by docs/benchmarks.md.
    """

    def made() -> float:
        price, tried = math.log(BETA), list[tuple[float, float]]()
        faces, partners = _pairs(measures)
        aims = [measures.answered(z) for z in faces]
        begun = _mean([_loss(measures, z, q) for z, q in zip(faces, partners, strict=True)])
        for _ in range(TRIES):
            led = [
                lead(
                    measures, z, aim, q, price=math.exp(price), steps=STEPS, damping=DAMPING,
                    tolerance=0.0, solve_steps=SOLVE_STEPS,
                ).best.privacy
                for z, aim, q in zip(faces, aims, partners, strict=True)
            ]  # fmt: skip
            tried.append((price, _mean(led) / begun - LEFT))
            price = _next(tried)
            if abs(tried[-1][1]) < NEAR:
                break
        return math.exp(price) / BETA

    worth = measures.once(("exchange", *measures.looks), measures.draws, made)
    measures.at_deployment = measures.passes
    return worth


def _pairs(measures: Measures) -> tuple[list[Tensor], list[Tensor]]:
    """Latents of faces, and a stranger's pooled face (N, 1, d) for each, in chunks."""
    z = measures.prior.draw(2 * FACES, Rng(0, ("exchange",))).to(measures.draws)
    strangers = measures.pooled(measures.prior(z[FACES:])).detach().unsqueeze(1)
    size = bounded(FACES)
    return list(z[:FACES].split(size)), list(strangers.split(size))


@torch.no_grad()
def _loss(measures: Measures, z: Tensor, partners: Tensor) -> Tensor:
    cost, shares = measures.charged(measures.pooled(measures.prior(z)), partners)
    return (shares * cost).sum(1)


def _mean(losses: list[Tensor]) -> float:
    return max(float(torch.cat(losses).mean()), 1e-12)


def _next(tried: list[tuple[float, float]]) -> float:
    """The logarithm of the price at which nothing is beyond `LEFT`, by what was tried."""
    (price, beyond), slope = tried[-1], _USUAL
    if len(tried) > 1 and abs(price - tried[-2][0]) > 0.1:
        slope = (beyond - tried[-2][1]) / (price - tried[-2][0])
        slope = min(_FLATTEST, max(_STEEPEST, slope))
    return price - max(-_FURTHEST, min(_FURTHEST, beyond / slope))
