"""One guess a face: which attack the adversary would believe, without the answer in hand.

He owns public pictures. He sends some of them through the same pipeline, lets every attack work on
them too, and sees by his own recogniser how much of each he got back. With what he learnt he lets
the attacks vote on a private face: the guess nearest to the weighted mean of all is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.attacks.pairs import held_out
from leakaudit.audit.plan import Plan
from leakaudit.core.threats import Informed

SHARPNESS = 20.0
"""How much better a vote counts for each unit of cosine that an attack got back on public faces."""

FEW_TRIALS, MANY_TRIALS = 8, 24
"""Public pictures on which every attack shows how far it can be trusted: at least, at most."""


def trials(plan: Plan) -> int:
    """How many public pictures every attack is tried on: some of those it was not fitted on."""
    asked = max(
        (a.queries_ahead().pictures for a in plan.attacks if a.holds is not Informed), default=0
    )
    return max(FEW_TRIALS, min(MANY_TRIALS, held_out(asked)))


def trust(made: Tensor, true: Tensor) -> float:
    """How much of public people an attack gets back, in [-1, 1].

    Mean cosine of embeddings (C, d) of its guesses and of the true pictures, less what guesses for
    other pictures have in common with them: a blurred mean face resembles everybody.
    """
    cosines = fn.normalize(made, dim=1) @ fn.normalize(true, dim=1).T
    count = len(cosines)
    own = float(cosines.diagonal().mean())
    if count < 2:
        return own
    others = float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))
    return own - others


def choose(guesses: Mapping[str, Tensor], trusted: Mapping[str, float]) -> tuple[str, ...]:
    """The name of the attack that is believed for each of N faces.

    ``guesses`` maps attacks to embeddings (N, d) of what they made; ``trusted`` to their ``trust``.
    """
    names = list(guesses)
    vectors = torch.stack([fn.normalize(guesses[name], dim=1) for name in names])  # (A, N, d)
    weights = (SHARPNESS * torch.tensor([trusted[name] for name in names])).softmax(0)
    mean = (weights[:, None, None] * vectors).sum(0)
    votes = (vectors * fn.normalize(mean, dim=1)).sum(2)  # (A, N)
    return tuple(names[int(k)] for k in votes.argmax(0))
