"""One guess a face: which attack the adversary would believe, without the answer in hand.

He owns public pictures. Some of them he sets apart: no attack learns from them. He sends them
through the same pipeline, lets every attack work on them too, and sees by his own recogniser how
much of each he got back. With what he learnt he joins what the attacks say of a private face to one
guess; the picture that he shows is the nearest to it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.attacks.pairs import held_out
from leakaudit.audit.plan import Plan
from leakaudit.core.rng import Rng
from leakaudit.core.threats import Informed

FEW_TRIALS, MANY_TRIALS = 8, 24
"""Public pictures on which every attack shows how far it can be trusted: at least, at most."""


APART = 8
"""At most one public picture of this many is set apart."""
ORDER = Rng(0, ("audit", "trials"))


def set_apart(public: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (T, 3, H, W) that attacks are tried on, and those (M - T, ...) they learn from.

    T is 24, or an eighth of the M public pictures where that is less. It doesn't depend on the
    plan, so that an attack learns the same whatever stands beside it.
    """
    order = torch.randperm(len(public), generator=ORDER.torch()).to(public.device)
    count = min(MANY_TRIALS, len(public) // APART)
    return public[order[:count]], public[order[count:].sort().values]


def trials(plan: Plan) -> int:
    """How many of those set apart every attack is tried on: more, where more is asked anyway."""
    asked = max(
        (a.queries_ahead().pictures for a in plan.attacks if a.holds is not Informed), default=0
    )
    return max(FEW_TRIALS, min(MANY_TRIALS, held_out(asked)))


def trust(made: Tensor, true: Tensor) -> float:
    """How much of public people an attack gets back, in [-1, 1].

    Mean cosine of embeddings (C, d) of its guesses and of the true pictures, less what guesses for
    other pictures have in common with them: a blurred mean face resembles everybody.
    """
    if len(made) == 0:
        return 0.0
    cosines = fn.normalize(made, dim=1) @ fn.normalize(true, dim=1).T
    count = len(cosines)
    own = float(cosines.diagonal().mean())
    if count < 2:
        return own
    others = float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))
    return own - others


def joined(guesses: Mapping[str, Tensor], trusted: Mapping[str, float]) -> Tensor:
    """One guess a face of all attacks: the weighted mean (N, d) of their embeddings, unit length.

    ``guesses`` maps attacks to embeddings (N, d) of what they made; ``trusted`` to their ``trust``
    t. Were their errors independent, t / (1 - t²) would weigh them best; attacks on one feature
    share errors, so that the better one is believed more: by its fourth power, with which the joint
    guess got back most of public people in trials. Where nothing is trusted, all count alike.
    """
    vectors = torch.stack([fn.normalize(guesses[name], dim=1) for name in guesses])  # (A, N, d)
    t = torch.tensor([trusted[name] for name in guesses]).clamp(0.0, 0.999)
    weights = (t / (1 - t.square())) ** 4
    weights = weights if bool(weights.sum() > 0) else torch.ones_like(weights)
    return fn.normalize((weights[:, None, None] * vectors).sum(0), dim=1)


def choose(guesses: Mapping[str, Tensor], joint: Tensor) -> tuple[str, ...]:
    """For each of N faces the name of the attack whose guess is nearest to the joint one (N, d)."""
    names = list(guesses)
    near = [(fn.normalize(guesses[name], dim=1) * joint).sum(1) for name in names]
    return tuple(names[int(k)] for k in torch.stack(near).argmax(0))
