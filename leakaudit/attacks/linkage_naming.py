"""Classifiers that name people from few labelled features, and the choice among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from leakaudit.attacks.linkage_maps import log_rank
from leakaudit.attacks.linkage_network import Coordinates

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidates for what is added to a covariance, in units of its mean variance."""
MOST = 300
"""Principal coordinates at most; there are never more than labelled features."""
FOLDS = 5


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled features in coordinates.

    ``points`` (R, n) show ``people`` (R,), indices into a gallery of ``gallery`` names; rows of one
    picture share a ``fold`` (R,), and one person's pictures differ in it. ``others`` (n, n) is the
    covariance of public people's clean features.
    """

    points: Tensor
    people: Tensor
    fold: Tensor
    others: Tensor
    gallery: int


@final
@dataclass(frozen=True, eq=False)
class Namer:
    """Scores (N, people) that are linear in points (N, n): ``points @ weights + offset``.

    Whoever isn't among the labelled people scores below all who are.
    """

    label: str
    weights: Tensor
    offset: Tensor
    there: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """The scores; those of strangers are one below the least of the others."""
        scores = points @ self.weights + self.offset
        low = scores[:, self.there].min(1, keepdim=True).values - 1
        return torch.where(self.there, scores, low)


Fit = Callable[[Labelled, Tensor], Namer]
"""Labelled features and the rows to learn from, to a classifier."""


def naming(known: Labelled) -> tuple[Namer, tuple[float, ...], str]:
    """The best classifier by leaving pictures out, fitted on all; the curve, and how it was chosen.

    The curve is the confusion: the logarithm of the right person's place over that of the number of
    people, from the guess at random on, as candidates joined. Where nobody has two
    pictures nothing can be left out: then it is the nearest mean after whitening by public people.
    """
    candidates = _candidates()
    everything = torch.ones_like(known.people, dtype=torch.bool)
    count = len(torch.unique(known.people))
    curve = [float(torch.arange(1, count + 1).double().log().mean()) / math.log(max(count, 2))]
    if int(known.fold.max()) == 0:
        label = f"whitened by public people, {PENALTIES[2]:g}"
        return candidates[label](known, everything), tuple(curve), f"{label}; nothing to choose by"
    tried = {label: _left_out(known, fit) for label, fit in candidates.items()}
    for confusion in tried.values():
        curve.append(min(curve[-1], confusion))
    label = min(tried, key=tried.__getitem__)
    return candidates[label](known, everything), tuple(curve), f"{label}, chosen by leaving out"


def _left_out(known: Labelled, fit: Fit) -> float:
    """Confusion over pictures that were left out, of people of whom others were kept."""
    ranks, count = list[Tensor](), len(torch.unique(known.people))
    for fold in range(int(known.fold.max()) + 1):
        kept = known.fold != fold
        namer = fit(known, kept)
        asked = ~kept & namer.there[known.people]
        ranks.append(log_rank(namer(known.points[asked]), known.people[asked]))
    return float(torch.cat(ranks).mean()) / math.log(max(count, 2))


def _candidates() -> dict[str, Fit]:
    found: dict[str, Fit] = {}
    for penalty in PENALTIES:
        found[f"discriminant analysis, {penalty:g}"] = _discriminant(penalty)
        found[f"whitened by public people, {penalty:g}"] = _whitened(penalty)
        found[f"ridge to names, {penalty:g}"] = _ridge(penalty)
    return found


def _discriminant(penalty: float) -> Fit:
    """Nearest mean in the metric of the scatter within people (Fisher 1936, regularised)."""

    def fit(known: Labelled, rows: Tensor) -> Namer:
        means, there = _means(known, rows)
        apart = known.points[rows] - means[known.people[rows]]
        within = apart.T @ apart / max(1, len(apart) - int(there.sum()))
        return _nearest(means, there, within, penalty, known.points)

    return fit


def _whitened(penalty: float) -> Fit:
    def fit(known: Labelled, rows: Tensor) -> Namer:
        means, there = _means(known, rows)
        return _nearest(means, there, known.others, penalty, known.points)

    return fit


def _nearest(
    means: Tensor, there: Tensor, covariance: Tensor, penalty: float, points: Tensor
) -> Namer:
    """Least Mahalanobis distance to a mean, less what is the same for everybody."""
    size = max(float(covariance.diagonal().mean()), 1e-3 * float(points.var()), 1e-12)
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    turned = torch.linalg.solve(covariance + penalty * size * eye, means.T)
    return Namer("nearest mean", turned, -0.5 * (means.T * turned).sum(0), there)


def _ridge(penalty: float) -> Fit:
    def fit(known: Labelled, rows: Tensor) -> Namer:
        _, there = _means(known, rows)
        x, centre = known.points[rows], known.points[rows].mean(0)
        wanted = torch.zeros(len(x), known.gallery, dtype=x.dtype, device=x.device)
        wanted[torch.arange(len(x), device=x.device), known.people[rows]] = 1
        # A person shown more often isn't likelier for that.
        shown = wanted.sum(0).clamp(min=1)
        x, wanted = x - centre, wanted / shown
        gram = x.T @ x / len(x)
        size = max(float(gram.diagonal().mean()), 1e-12)
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        weights = torch.linalg.solve(gram + penalty * size * eye, x.T @ wanted)
        return Namer("ridge", weights, -centre @ weights, there)

    return fit


def _means(known: Labelled, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each person's mean (gallery, n), zero for who isn't shown, and who is."""
    people, points = known.people[rows], known.points[rows]
    sums = torch.zeros(known.gallery, points.shape[1], dtype=points.dtype, device=points.device)
    shown = torch.bincount(people, minlength=known.gallery)
    means = sums.index_add(0, people, points) / shown.clamp(min=1)[:, None]
    return means, shown > 0


def labelled(
    released: Tensor, people: Tensor, public: Tensor, *, gallery: int
) -> tuple[Labelled, Callable[[Tensor], Tensor]]:
    """Releases (k, K, ...) of pictures of ``people`` (K,) in coordinates, and the way into them.

    ``public`` (M, ...) are clean features of other people. In float64: covariances are inverted.
    """
    rows = released.flatten(0, 1).flatten(1)
    coordinates = Coordinates.of(rows, MOST)
    scale = (coordinates.spread / coordinates.spread.sum().clamp(min=1e-12)).sqrt()

    def place(features: Tensor) -> Tensor:
        return (coordinates(features.flatten(1)) * scale).double()

    others = place(public) if public[0].numel() == rows.shape[1] else place(rows)
    others = others - others.mean(0)
    nth = torch.zeros_like(people)
    for person in torch.unique(people):
        own = people == person
        nth[own] = torch.arange(int(own.sum()), device=people.device) % FOLDS
    turns = len(released)
    return Labelled(
        points=place(rows),
        people=people.repeat(turns),
        fold=nth.repeat(turns),
        others=others.T @ others / max(1, len(others) - 1),
        gallery=gallery,
    ), place
