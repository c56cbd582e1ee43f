"""How an adversary learns to name people from features: on clean ones, and through a defence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.attacks.learnt import SCREENED, WEIGHTS, Aggregate
from leakaudit.attacks.linkage_maps import Judges, Link, View, as_good, choose, views
from leakaudit.attacks.linkage_network import NetworkTraining, train_network
from leakaudit.attacks.pairs import Adaptive, Pairs, released_pairs
from leakaudit.attacks.ridge import CleanPairs, first_release
from leakaudit.attacks.stand_in import Map, StandIn, stand_ins
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import ThreatModel
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.ridge import Ridge

Fit = Callable[[Tensor], Map]
"""Rows of the queried pictures to a map that was fitted on them."""
FEW = {"elements": None, "pooled": None, "bag": 1000}
"""How many pictures a view's ridge is fitted on, all where ``None``: short views need no more."""


@final
@dataclass(frozen=True, eq=False)
class Taught:
    """A map with how it was found.

    ``checks`` are the network's held-out losses where one is part of the map, else none.
    """

    link: Link
    curve: tuple[float, ...]
    checks: tuple[float, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Known:
    """Clean features (M, ...) of public people, their embeddings (M, d), and the static map."""

    features: Tensor
    embeddings: Tensor
    static: Taught

    @staticmethod
    def of(held: ThreatModel, pairs: CleanPairs, rng: Rng, training: NetworkTraining) -> Known:
        """Learnt once for all attacks of one seed; raises UsageError without a recogniser."""

        def make() -> Known:
            embeddings = embedded(held, pairs.images)
            # A stream of its own: whichever attack comes first must not decide the numbers.
            stream = Rng(rng.seed, ("attacks", "linkage"))
            static = teach(pairs.features, embeddings, stream, training)
            return Known(pairs.features, embeddings, static)

        return held.shared(f"linkage from {pairs.start}, seed {rng.seed}, {training}", make)


def study(
    held: Adaptive,
    rng: Rng,
    queries: int,
    pairs: int,
    training: NetworkTraining,
    *,
    releases: int = 1,
) -> tuple[Pairs, Tensor, Known]:
    """Queried pictures, their embeddings, and what is known of ``pairs`` others.

    At most half of the public pictures are queried: the static map must be fitted on strangers.
    """
    asked = released_pairs(held, min(queries, max(8, len(held.public) // 2)), releases=releases)
    others = CleanPairs.of(held, pairs, spared=len(asked.images))
    return asked, embedded(held, asked.images), Known.of(held, others, rng, training)


def embedded(held: ThreatModel, images: Tensor, *, batch: int = 64) -> Tensor:
    """What the adversary's recogniser says of his own pictures: unit vectors (N, d)."""
    if held.recogniser is None:
        raise UsageError(
            "Linkage needs a face recogniser", todo="Name one with --oracle, or leave linkage out"
        )
    with torch.no_grad():
        vectors = in_chunks(held.recogniser, images, batch)
    return fn.normalize(vectors.float(), dim=1).to(images.device)


def teach(features: Tensor, embeddings: Tensor, rng: Rng, training: NetworkTraining) -> Taught:
    """The static map: ridge on several views, and a network, chosen by public people held out.

    A tenth of the pictures (M, ...) judges, at least eight and at most 256.
    """
    count = min(256, max(8, len(features) // 10))
    judges = Judges(features[:count], embeddings)
    seen, true = features[count:], embeddings[count:]
    looks = views(features.shape[1:])
    candidates = []
    for label in ("elements", "pooled", "bag"):
        if (view := looks.get(label)) is not None:
            fitted = Ridge.fit(view(seen[: FEW[label]]), true[: FEW[label]])
            candidates.append(_ridge(f"ridge on {label}", view, fitted, judges))
    view = looks.get("pooled", looks["elements"])
    held_out = view(judges.seen), judges.wanted
    net, checks = train_network(view(seen), true, held_out=held_out, training=training, rng=rng)
    apply, usual = _seen_through(view, net), true.mean(0)
    centre = apply(seen[:256]).mean(0)
    network = Link.of("network", apply, centre=centre, usual=usual, judges=judges)
    best, curve = choose([*candidates, network], judges)
    return Taught(best, curve, checks if best is network else ())


def _ridge(label: str, view: View, fitted: Ridge, judges: Judges) -> Link:
    raw = _seen_through(view, fitted)
    return Link.of(label, raw, centre=fitted.base, usual=fitted.base, judges=judges)


def _seen_through(view: View, apply: Map) -> Map:
    return lambda f: apply(view(f))


@final
@dataclass(frozen=True, eq=False)
class Lessons:
    """What releases teach: of queried public pictures (Q, ...), and clean features beside them.

    Rows ``judging``, a third of them, choose; rows ``fitting`` are fitted on. No clean feature of
    ``known`` belongs to a queried picture, so that the static map meets strangers too.
    """

    released: Tensor
    clean: Tensor
    embeddings: Tensor
    known: Known
    fitting: Tensor
    judging: Tensor
    judges: Judges

    @staticmethod
    def through(way: Aggregate, asked: Pairs, embeddings: Tensor, known: Known) -> Lessons:
        """What the queried pictures teach when their releases (K, Q, ...) are seen ``way``'s way.

        ``embeddings`` (Q, d) are those of the queried pictures.
        """
        released, clean = way(asked.released), way(asked.clean[None])
        index = torch.arange(len(released), device=released.device)
        count = max(4, len(index) // 3)
        judges = Judges(released[:count], torch.cat([embeddings, known.embeddings]))
        seen = replace(known, features=way(known.features[None]))
        return Lessons(released, clean, embeddings, seen, index[count:], index[:count], judges)


SINGLE: dict[str, Aggregate] = {
    "as released": first_release,
    "magnitudes": lambda releases: releases[0].abs(),
}
"""Ways of looking at one release. A defence may push a feature below zero where none ever was."""


def teach_best_way(
    ways: Mapping[str, Aggregate], asked: Pairs, embeddings: Tensor, known: Known
) -> tuple[Taught, Aggregate]:
    """The map and the way of looking at releases; a small fit to each way chooses the way."""
    tried = {
        label: teach_through(Lessons.through(way, asked, embeddings, known), thorough=False)
        for label, way in ways.items()
    }
    label = min(tried, key=lambda one: tried[one].curve[-1])
    taught = teach_through(Lessons.through(ways[label], asked, embeddings, known))
    told = replace(taught.link, label=f"{label}, {taught.link.label}")
    return replace(taught, link=told), ways[label]


def teach_through(lessons: Lessons, *, thorough: bool = True) -> Taught:
    """The map from releases, chosen by the judging rows, then fitted on all of them.

    Candidates: the static map as it is, centred on releases, and with a ridge correction; ridges
    from scratch on several views; ridges on the releases of a stand-in for the defence. What the
    judging rows can't tell from the best answers together with it. Without ``thorough`` there is
    one view only, the stand-in is the plainest one in small, and the best answers alone.
    """
    static = lessons.known.static
    fits = _fits(lessons, thorough=thorough)
    candidates = [static.link, *(_fitted(lessons, label, fit) for label, fit in fits.items())]
    candidates += _simulated(lessons, thorough=thorough)
    best, curve = choose(candidates, lessons.judges)
    checks = static.checks if best is static.link else ()
    if not thorough:
        return Taught(best, curve, checks)
    # Few judges can't tell good maps apart; what these say together is steadier than any of them.
    found = [
        _fitted_again(lessons, link, fits[link.label]) if link.label in fits else link
        for link in as_good(candidates, best, lessons.judges)
    ]
    return Taught(found[0] if len(found) == 1 else Link.mean(found), curve, checks)


def _fits(lessons: Lessons, *, thorough: bool) -> Mapping[str, Fit]:
    released, targets, static = lessons.released, lessons.embeddings, lessons.known.static.link

    def as_it_is(rows: Tensor) -> Map:
        return static

    def corrected(rows: Tensor) -> Map:
        first, true = static(released[rows]), targets[rows]
        scale = float((first * true).sum(1).mean().clamp(min=0))  # of unit vectors: least squares
        rest = Ridge.fit(released[rows], true - scale * first)
        return lambda f: scale * static(f) + rest(f)

    def from_scratch(view: View) -> Fit:
        return lambda rows: _seen_through(view, Ridge.fit(view(released[rows]), targets[rows]))

    found: dict[str, Fit] = {
        "static, centred on releases": as_it_is,
        "static with a correction": corrected,
    }
    looks = views(released.shape[1:])
    for label, view in (looks if thorough else {"elements": looks["elements"]}).items():
        found[f"ridge on {label} of releases"] = from_scratch(view)
    return found


def _fitted(lessons: Lessons, label: str, fit: Fit) -> Link:
    raw = fit(lessons.fitting)
    centre = raw(lessons.released[lessons.fitting]).mean(0)
    usual = lessons.known.embeddings.mean(0)
    return Link.of(label, raw, centre=centre, usual=usual, judges=lessons.judges)


def _fitted_again(lessons: Lessons, best: Link, fit: Fit) -> Link:
    """The chosen one fitted on all rows, with the scale that the judging rows gave."""
    raw = fit(torch.cat([lessons.fitting, lessons.judging]))
    return replace(best, raw=raw, centre=raw(lessons.released).mean(0))


def _simulated(lessons: Lessons, *, thorough: bool) -> list[Link]:
    """Ridges on a stand-in's releases: compared in small, the best of each view made in full."""
    rows, count = lessons.fitting, len(lessons.known.features)
    defences = stand_ins(lessons.clean[rows], lessons.released[rows], thorough=thorough)
    looks = views(lessons.released.shape[1:])
    linear = {label: view for label, view in looks.items() if label in ("elements", "pooled")}
    if not thorough:
        linear = {"elements": looks["elements"]}
    few, judges = min(SCREENED, count), lessons.judges
    tries = list(itertools.product(defences, linear.items(), WEIGHTS if thorough else WEIGHTS[:1]))
    small = [_on_releases_of(one, look, lessons, weight, few) for one, look, weight in tries]
    if not (thorough and tries) or count <= SCREENED:
        return small
    # Clean pictures cost no query, but regressions on all of them seconds: the best of each view
    # gets them.
    confusions = [judges.confusion(link(judges.seen)) for link in small]
    order = sorted(range(len(tries)), key=confusions.__getitem__)
    full = {tries[k][1][0]: tries[k] for k in reversed(order)}
    return [
        _on_releases_of(one, look, lessons, weight, count) for one, look, weight in full.values()
    ]


def _on_releases_of(
    one: StandIn, look: tuple[str, View], lessons: Lessons, weight: float, count: int
) -> Link:
    judges, (label, view) = lessons.judges, look
    fitted = Ridge.fit_shifted(
        view(one.expected(lessons.known.features[:count])),
        lessons.known.embeddings[:count],
        offsets=view(one.offsets),
        judges=(view(judges.seen), judges.wanted),
        weight=weight,
    )
    return _ridge(f"ridge on {label} of a stand-in, {one.label}", view, fitted, judges)
