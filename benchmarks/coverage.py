"""How often the true AUC drop lies outside of the interval that a scan gives it.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --samples 1000 --law exponential

Scores of people with and without an attribute, of a normal or an exponential law, apart by as much
as gives the two AUCs; a person's errors before and after are the same with probability 0.7. A row
is a case: above and below are the shares of samples whose interval misses the truth there (2.5 %
are meant each), for the interval of a scan and for a bootstrap of people alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.maths.intervals import bootstrap_statistic
from leakaudit.metrics.utility import mean_auc, utility_rows

CASES = ((32, 4), (32, 16), (64, 10), (64, 32), (200, 50))
DROPS = ((0.995, 0.985), (0.99, 0.95), (0.97, 0.9))
SAME = 0.7
Law = Callable[[tuple[int, ...], torch.Generator], Tensor]


def normal(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Standard normal errors."""
    return torch.randn(shape, generator=draw)


def exponential(shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Errors with a tail to one side."""
    return -torch.log(torch.rand(shape, generator=draw).clamp(min=1e-9))


LAWS: dict[str, Law] = {"normal": normal, "exponential": exponential}


def apart(area: float, law: Law) -> float:
    """How far the two classes must lie apart for this AUC, by simulation."""
    draw = torch.Generator().manual_seed(9)
    lead = (law((1_000_000,), draw) - law((1_000_000,), draw)).sort().values
    return -float(lead[round((1 - area) * len(lead))])


def case(law: Law, people: int, having: int, areas: tuple[float, float], samples: int) -> str:
    """One line of the table."""
    draw = torch.Generator().manual_seed(5)
    before, after = (apart(area, law) for area in areas)
    true, missed = areas[0] - areas[1], torch.zeros(4)
    for k in range(samples):
        truth = (torch.arange(people) < having).float()[:, None]
        error, other = law((people, 1), draw), law((people, 1), draw)
        same = torch.rand(people, 1, generator=draw) < SAME
        first = truth * before + error
        second = truth * after + torch.where(same, error, other)
        whose = torch.arange(people)
        row = utility_rows("x", second, first, truth, whose, ("a",), Rng(k))[0]

        def lost(
            index: Tensor, one: Tensor = first, two: Tensor = second, said: Tensor = truth
        ) -> float | None:
            both = mean_auc(one[index], said[index]), mean_auc(two[index], said[index])
            return None if both[0] is None or both[1] is None else both[0] - both[1]

        bare = bootstrap_statistic(lost, whose, Rng(k).torch(), draws=300)
        assert row.drop_low is not None and row.drop_high is not None
        ends = (row.drop_high, row.drop_low, bare.high, bare.low)
        missed += torch.tensor([true > ends[0], true < ends[1], true > ends[2], true < ends[3]])
    above, below, bare_above, bare_below = (missed / samples).tolist()
    return (
        f"{having:3d} of {people:3d}, {areas[0]:.3f} to {areas[1]:.3f}: scan {above:6.1%} above "
        f"{below:5.1%} below; bootstrap {bare_above:6.1%} above {bare_below:5.1%} below"
    )


def main() -> None:
    """All cases of the laws that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--law", choices=sorted(LAWS), help="one of them only")
    told = parser.parse_args()
    for name in [told.law] if told.law else LAWS:
        sys.stdout.write(f"{name} scores, {told.samples} samples a case\n")
        for people, having in CASES:
            for areas in DROPS:
                sys.stdout.write(case(LAWS[name], people, having, areas, told.samples) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
