"""Maps from features to a recogniser's embedding, and how well they tell people apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.attacks.stand_in import Map

View = Callable[[Tensor], Tensor]
"""Features (N, ...) to what a map looks at, (N, k); row i depends on feature i only."""
QUIET = 1e-3
"""A direction shorter than this, where an embedding has length 1, is rounding."""


def views(shape: torch.Size) -> dict[str, View]:
    """What can be looked at in features of this shape (without N), the plainest first.

    *Elements* as they stand; *pooled*, maps halved in height and width; *one norm*, elements after
    dividing out the feature's norm; *bag*, see :func:`bag`.
    """
    found: dict[str, View] = {"elements": lambda f: f.flatten(1)}
    if len(shape) == 3 and min(shape[1:]) >= 8:
        found["pooled"] = lambda f: fn.avg_pool2d(f, 2).flatten(1)
    found["one norm"] = lambda f: fn.normalize(f.flatten(1), dim=1)
    found["bag"] = bag
    return found


def bag(features: Tensor) -> Tensor:
    """Statistics (N, k) of each channel that survive any order of its positions.

    Mean, magnitude, deviation and sorted values at even steps of each channel (a vector is one
    channel), and means and magnitudes sorted over channels, which survive any order of those.
    """
    rows = features.flatten(2) if features.dim() > 2 else features.unsqueeze(1)
    steps = min(rows.shape[2], 11 if rows.shape[1] > 1 else 64)
    at = torch.linspace(0, rows.shape[2] - 1, steps).round().long().to(rows.device)
    mean, magnitude = rows.mean(2), rows.abs().mean(2)
    spread = (rows - mean.unsqueeze(2)).square().mean(2).sqrt()
    told = [mean, magnitude, spread, rows.sort(2).values[:, :, at].flatten(1)]
    if rows.shape[1] > 1:
        told += [mean.sort(1).values, magnitude.sort(1).values]
    return torch.cat(told, dim=1)


@final
@dataclass(frozen=True, eq=False)
class Judges:
    """Public people a map is judged by: its answers are looked up in a gallery of public people.

    ``seen`` (H, ...) are features (or releases) that no map was fitted on, ``gallery`` (P, d) unit
    embeddings of public pictures, the first H those of ``seen``.
    """

    seen: Tensor
    gallery: Tensor

    @property
    def wanted(self) -> Tensor:
        """The true embeddings (H, d)."""
        return self.gallery[: len(self.seen)]

    def ranks(self, made: Tensor) -> Tensor:
        """How far down the gallery each right picture stands (H,); `confusion` is their mean."""
        own = torch.arange(len(made), device=made.device)
        return log_rank(made @ self.gallery.T, own) / math.log(len(self.gallery))

    def confusion(self, made: Tensor) -> float:
        """How far down the gallery the right picture stands for answers (H, d).

        The logarithm of its rank over that of the gallery's size, mean over answers: 0 is always
        first; answers at random give nearly 1. A tie counts as half a place.
        """
        return float(self.ranks(made).mean())


def log_rank(scores: Tensor, own: Tensor) -> Tensor:
    """Logarithm (N,) of the place of column ``own`` (N,) in each row of scores (N, P), from 0."""
    mine = scores.gather(1, own.unsqueeze(1))
    ties = (scores == mine).sum(1) - 1
    return (1 + (scores > mine).sum(1) + 0.5 * ties).log()


@final
@dataclass(frozen=True, eq=False)
class Link:
    """A map from features (N, ...) to unit vectors (N, d) in a recogniser's space.

    ``raw`` less ``centre`` (d,), its mean answer, is what it says about a person. That times
    ``scale`` is given beside ``lean`` (d,): the mean embedding times the share of variance that the
    map explains, for a map that explains little would else name whoever resembles the mean face.
    (With Gaussian embeddings it is the direction of the likelihood ratio of "this person" and
    "anybody".) Where nothing is said, the mean embedding ``usual`` (d,) is given.
    """

    label: str
    raw: Map
    centre: Tensor
    scale: float
    lean: Tensor
    usual: Tensor

    @staticmethod
    def of(label: str, raw: Map, *, centre: Tensor, usual: Tensor, judges: Judges) -> Link:
        """A fitted map, its scale and share measured on judges that it wasn't fitted on."""
        said, true = raw(judges.seen) - centre, judges.wanted - usual
        loud = float(said.square().sum(1).mean()) > QUIET**2
        both, energy = float((said * true).sum()), float(said.square().sum())
        scale = max(0.0, both / energy) if loud else 0.0
        share = scale * both / max(float(true.square().sum()), 1e-30)
        return Link(label, raw, centre, scale, share * usual, fn.normalize(usual, dim=0))

    @staticmethod
    def mean(links: Sequence[Link]) -> Link:
        """What several maps say together: their answers averaged, each as loud as it is sure."""
        return Link(
            " with ".join(link.label for link in links),
            lambda f: torch.stack([link.answer(f) for link in links]).mean(0),
            centre=torch.zeros_like(links[0].usual), scale=1.0,
            lean=torch.zeros_like(links[0].usual), usual=links[0].usual,
        )  # fmt: skip

    def answer(self, features: Tensor) -> Tensor:
        """What is said (N, d), before it is brought to unit length."""
        return self.scale * (self.raw(features) - self.centre) + self.lean

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Unit vectors (N, d)."""
        answer = self.answer(features)
        size = answer.norm(dim=1, keepdim=True)
        return torch.where(size > QUIET, answer / size.clamp(min=QUIET), self.usual)


def choose(candidates: Sequence[Link], judges: Judges) -> tuple[Link, tuple[float, ...]]:
    """The candidate with the least confusion, and how it fell.

    The curve begins with the mean embedding for everybody and goes on with the least confusion
    after each candidate.
    """
    best = candidates[0]
    curve = [judges.confusion(best.usual.expand(len(judges.seen), -1))]
    least = math.inf
    for link in candidates:
        confusion = judges.confusion(link(judges.seen))
        if confusion < least:
            best, least = link, confusion
        curve.append(min(curve[-1], confusion))
    return best, tuple(curve)


def as_good(candidates: Sequence[Link], best: Link, judges: Judges) -> list[Link]:
    """The best candidate, then others that its judges can't tell from it, the better ones first.

    Those within a standard error of the difference on the same pictures, ``MOST_TOGETHER`` in all.
    """
    least = judges.ranks(best(judges.seen))
    near = []
    for link in candidates:
        more = judges.ranks(link(judges.seen)) - least
        error = float(more.std()) / math.sqrt(len(more)) if len(more) > 1 else 0.0
        if link is not best and float(more.mean()) <= error:
            near.append((float(more.mean()), link))
    near.sort(key=lambda pair: pair[0])
    return [best, *(link for _, link in near[: MOST_TOGETHER - 1])]


MOST_TOGETHER = 3
"""So many maps answer together where the judges can't tell them apart."""
