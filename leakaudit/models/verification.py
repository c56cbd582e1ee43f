"""Is this the same person? One comparison a face, at a false-match rate that is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.models.oracle import IdentityOracle

FALSE_MATCHES: Final = 0.01
FEW_COMPARISONS: Final = 100
"""With fewer comparisons of different people a rate of 1 % can't be told."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Rows of the oracle's enrolment that given pairs compare.

    ``partners`` (R,) are those beside an attacked picture of the same person; ``impostors`` (D, 2)
    show two people.
    """

    partners: Tensor
    impostors: Tensor


@final
@dataclass(frozen=True, eq=False)
class Verifier:
    """Says whether a face is a person's, by a cosine above ``threshold``.

    ``references`` (P, d) holds one unit vector a person, zeros where there is none. At most 1 % of
    the ``compared`` pictures of another person than the reference's lie above the threshold, which
    is ``None`` where there are fewer than 100 of them.
    """

    references: Tensor
    threshold: float | None
    compared: int

    @staticmethod
    def of(oracle: IdentityOracle, comparisons: Comparisons | None = None) -> Verifier:
        """The verifier of an oracle's enrolled pictures, which never are attacked ones.

        A person's reference is the mean of his enrolled pictures, or of those with which given
        pairs compare him. The threshold is set by every enrolled picture against every other
        person's reference, or by the given pairs of two people where there are 100 of them.
        """
        people, vectors = oracle.people, oracle.vectors
        if comparisons is None:
            references = oracle.means
        else:
            chosen = comparisons.partners
            references = torch.zeros_like(oracle.means)
            references.index_add_(0, people[chosen], vectors[chosen])
            references = fn.normalize(references, dim=1)
        if comparisons is not None and len(comparisons.impostors) >= FEW_COMPARISONS:
            one, other = comparisons.impostors.unbind(1)
            cosines = (vectors[one] * vectors[other]).sum(1)
        else:
            theirs = references.square().sum(1) > 0
            others = theirs & (people[:, None] != torch.arange(len(references)))
            cosines = (vectors @ references.T)[others]
        return Verifier(references, threshold_at(cosines, FALSE_MATCHES), len(cosines))

    def cosines(self, vectors: Tensor, people: Tensor) -> Tensor:
        """Cosine of unit vectors (N, d) to the references of ``people`` (N,)."""
        return (vectors * self.references[people]).sum(1)

    def told(self) -> str:
        """Threshold and where it is from, for the report."""
        if self.threshold is None:
            return (
                f"unavailable: {self.compared} comparisons of different people are too few for a "
                f"false-match rate of {FALSE_MATCHES:.0%} (at least {FEW_COMPARISONS})"
            )
        return (
            f"false-match rate {FALSE_MATCHES:.0%} at a cosine of {self.threshold:.3f}, by "
            f"{self.compared} comparisons of different people"
        )


def threshold_at(cosines: Tensor, rate: float) -> float | None:
    """The least observed cosine above which at most a share ``rate`` of them lies.

    ``None`` where there are fewer than 100.
    """
    if len(cosines) < FEW_COMPARISONS:
        return None
    allowed = int(rate * len(cosines))
    return float(cosines.double().sort(descending=True).values[allowed])
