"""Paired differences to the paper's algorithm over several runs of crafter.py on the same people.

    python benchmarks/crafter.py --seed 0 --paper-end FOLDER --keep 0.pt ...
    python benchmarks/crafter.py --seed 1 --paper-end OTHER --keep 1.pt ...
    python benchmarks/pooled.py 0.pt 1.pt
    python benchmarks/pooled.py 0.pt 1.pt:416    # of the second without its first 416 pictures

Each run has its own seed, and so its own pictures, attacks and head. Pictures of all runs are put
together, people by their names; a person is drawn with all pictures of all runs. The AUC drop is
each run's own, weighted by its pictures. ``named`` is the mean over people of their own shares.
Only rows that all runs have are told; runs on other networks or of another algorithm of the paper's
aren't put together.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.maths.intervals import (
    Interval,
    bootstrap_statistic,
    paired_rate_difference,
    rate_interval,
)
from leakaudit.metrics.utility import mean_auc

PAPER = "crafter-paper"


class Pool:
    """The kept verdicts of several runs as one sample of pictures."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self.runs = runs
        known = {
            name: k for k, name in enumerate(sorted({n for run in runs for n in run["names"]}))
        }
        own = [torch.tensor([known[name] for name in run["names"]]) for run in runs]
        self.people = torch.cat([ids[run["people"]] for ids, run in zip(own, runs, strict=True)])
        self.starts = torch.tensor([0, *(len(run["people"]) for run in runs)]).cumsum(0)
        self.names = [n for n in runs[0]["rows"] if all(n in run["rows"] for run in runs)]

    def named(self, row: str) -> Tensor:
        """Whether each picture was named, (N,)."""
        return torch.cat([run["rows"][row][0] for run in self.runs])

    def drop(self, row: str, index: Tensor) -> float | None:
        """The AUC that the head loses on these pictures."""
        lost, count = 0.0, 0
        for run, start, end in zip(self.runs, self.starts, self.starts[1:], strict=False):
            mine = index[(index >= start) & (index < end)] - start
            truth = run["truth"][mine]
            told = run["undefended"][mine], run["rows"][row][1][mine]
            before, after = (mean_auc(x, truth) for x in told)
            if before is None or after is None:
                return None
            lost, count = lost + len(mine) * (before - after), count + len(mine)
        return lost / count

    def apart(self, row: str, rng: Rng) -> tuple[Interval, Interval]:
        """The row minus the paper's: the share named and the AUC drop."""
        both = self.named(row), self.named(PAPER)
        named = paired_rate_difference(*both, self.people, rng.derive("named").torch())

        def lost(index: Tensor) -> float | None:
            ours, theirs = self.drop(row, index), self.drop(PAPER, index)
            return None if ours is None or theirs is None else ours - theirs

        return named, bootstrap_statistic(lost, self.people, rng.derive("drop").torch())


def read(told: str) -> dict[str, Any]:
    """A kept run, less the pictures before ``:N``."""
    path, _, start = told.partition(":")
    run: dict[str, Any] = torch.load(path)
    cut = slice(int(start or 0), None)
    run |= {key: run[key][cut] for key in ("people", "truth", "undefended")}
    run["rows"] = {name: (a[cut], b[cut]) for name, (a, b) in run["rows"].items()}
    return run


def refuse_others(runs: list[dict[str, Any]]) -> None:
    """Exits where two runs aren't of one kind, or are of the same pictures."""
    kinds = [{k: run["about"][k] for k in ("encoder", "prior", "settings")} for run in runs]
    if any(kind != kinds[0] for kind in kinds):
        sys.exit("The runs are on other networks, or of another algorithm of the paper's")
    if len({run["about"]["pictures"] for run in runs}) < len(runs):
        sys.exit("Two runs are of the same pictures")


def shown(told: Interval) -> str:
    """An interval as the tables have it."""
    return f"{told.value:+.4f} [{told.low:+.4f}, {told.high:+.4f}]"


def main() -> None:
    """Tells every row, and ours less the paper's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("kept", nargs="+", help="what crafter.py --keep wrote")
    told, rng = parser.parse_args(), Rng(0, ("pooled",))
    runs = [read(path) for path in told.kept]
    refuse_others(runs)
    pool = Pool(runs)
    count, people = len(pool.people), len(pool.people.unique())
    sys.stdout.write(f"{count} pictures of {people} people in {len(pool.runs)} runs\n")
    everyone = torch.arange(count)
    for name in pool.names:
        rate = rate_interval(pool.named(name), pool.people, rng.derive("rate").torch())
        sys.stdout.write(f"{name}: named {shown(rate)}, drop {pool.drop(name, everyone):+.4f}\n")
    for name in pool.names:
        if name != PAPER:
            named, drop = pool.apart(name, rng)
            sys.stdout.write(f"{name} less the paper's: named {shown(named)}, drop {shown(drop)}\n")


if __name__ == "__main__":
    main()
