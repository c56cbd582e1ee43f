"""Linkage in linear worlds: features that name a person and show no picture, and ways to hide."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from planted import Protect, constant, fresh_noise, permuted
from torch import Generator, Tensor
from torch.nn import functional as fn
from toys import normal

from leakaudit.attacks.base import Attack, Guess, ReadyAttack
from leakaudit.attacks.linkage import AdaptiveAveragingLinkage, AdaptiveLinkage, Linkage
from leakaudit.attacks.linkage_informed import LinkageClassifier, LinkageGallery
from leakaudit.attacks.linkage_learning import teach
from leakaudit.attacks.linkage_maps import Judges, Link, as_good, bag, choose, log_rank
from leakaudit.attacks.linkage_network import NetworkTraining
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveBlackBox, BlackBox, Informed
from leakaudit.maths.ridge import Ridge

SIDE, PEOPLE, PUBLIC, WHO, REST, WIDTH = 8, 10, 240, 6, 40, 30
CHANCE = 1 / PEOPLE
QUICK = NetworkTraining(steps=40, width=16)
QUERIES = 64
Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class World:
    """Pictures whose first coordinates are the person, and as many again that are not."""

    public: Tensor
    faces: Tensor
    people: Tensor
    known: Tensor
    labels: Tensor


AXES = torch.linalg.qr(normal(3 * SIDE * SIDE, WHO + REST, seed=1))[0]
MIX = torch.linalg.qr(normal(WIDTH, WIDTH, seed=2))[0]


def paint(who: Tensor, seed: int) -> Tensor:
    """Pictures (N, 3, 8, 8) of identities (N, 6) in circumstances that are much louder."""
    rest = normal(len(who), REST, seed=seed)
    rows = 0.5 + 0.03 * who @ AXES[:, :WHO].T + 0.15 * rest @ AXES[:, WHO:].T
    return rows.view(-1, 3, SIDE, SIDE)


def coordinates(x: Tensor) -> tuple[Tensor, Tensor]:
    inner = (x.flatten(1) - 0.5) @ AXES
    return inner[:, :WHO] / 0.03, inner[:, WHO:] / 0.15


def recognise(x: Tensor) -> Tensor:
    """A linear recogniser: the person's coordinates, at unit length."""
    return fn.normalize(coordinates(x)[0], dim=1)


def hidden(x: Tensor) -> Tensor:
    """The recogniser's subspace, mixed into louder numbers that no line links to the picture."""
    who, rest = coordinates(x)
    loud = 3 * torch.sin(50 * rest[:, : WIDTH - WHO])
    return torch.cat([who, loud], dim=1) @ MIX.T + 1


@cache
def world(*, known: int = 6) -> World:
    people = fn.normalize(normal(PEOPLE, WHO, seed=3), dim=1) * math.sqrt(WHO)

    def shown(each: int, seed: int) -> tuple[Tensor, Tensor]:
        index = torch.arange(PEOPLE).repeat_interleave(each)
        return paint(people[index] + 0.1 * normal(len(index), WHO, seed=seed), seed + 1), index

    faces, index = shown(2, 4)
    others, labels = shown(known, 6)
    return World(paint(normal(PUBLIC, WHO, seed=8), 9), faces, index, others, labels)


def gallery() -> Tensor:
    sums = torch.zeros(PEOPLE, WHO).index_add(0, world().labels, recognise(world().known))
    return fn.normalize(sums, dim=1)


def rate(guess: Guess) -> float:
    """The share of the toy people who are named right."""
    assert guess.images is None
    scores = guess.scores if guess.embeddings is None else guess.embeddings @ gallery().T
    assert scores is not None
    return float((scores.argmax(1) == world().people).float().mean())


def told(guess: Guess) -> Tensor:
    """What the guess says: embeddings, or scores of names."""
    made = guess.scores if guess.embeddings is None else guess.embeddings
    assert made is not None
    return made


def clean(features: Tensor, rng: Generator) -> Tensor:
    return features


@cache
def attacked(
    attack: Attack, protect: Protect = clean, encode: Encode = hidden, known: int = 6
) -> tuple[ReadyAttack, Tensor]:
    """The attack made ready, and what it sees of the toy people behind this defence."""
    draws, w = Generator().manual_seed(5), world(known=known)

    def release(x: Tensor, count: int) -> Tensor:
        return torch.stack([protect(encode(x), draws) for _ in range(count)])

    held = {
        BlackBox: lambda: BlackBox(w.public, encode, recogniser=recognise),
        AdaptiveBlackBox: lambda: AdaptiveBlackBox(w.public, encode, release, recogniser=recognise),
        Informed: lambda: Informed(
            w.public, encode, release, w.known, w.labels, recogniser=recognise
        ),
    }[attack.holds]()
    ready, seen = attack.prepare(held, Rng(1)), release(w.faces, attack.looks())
    return ready, seen if attack.looks() > 1 else seen[0]


def outcome(attack: Attack, protect: Protect = clean, encode: Encode = hidden) -> Guess:
    ready, seen = attacked(attack, protect, encode)
    return ready.reconstruct(seen, Rng(2))


LITTLE = fresh_noise(sigma=0.1)
STATIC = Linkage(network=QUICK)
ADAPTIVE = AdaptiveLinkage(queries=QUERIES, network=QUICK)
AVERAGING = AdaptiveAveragingLinkage(queries=QUERIES, releases=16, network=QUICK)
CLASSIFIER = LinkageClassifier(pairs=100)
GALLERY = LinkageGallery(queries=QUERIES, network=QUICK)
ALL = {one.name: one for one in (STATIC, ADAPTIVE, AVERAGING, CLASSIFIER, GALLERY)}
every_form = pytest.mark.parametrize("name", ALL)


def test_the_hidden_feature_shows_no_picture() -> None:
    picture = Ridge.fit(hidden(world().public), world().public.flatten(1))
    assert picture.error >= 0.95  # of the variance of pixels, none but the person's is explained


@every_form
def test_a_person_is_named_from_a_feature_that_shows_no_picture(name: str) -> None:
    assert rate(outcome(ALL[name])) >= 0.9


@every_form
def test_a_constant_feature_gives_everybody_the_same_name(name: str) -> None:
    guess = outcome(ALL[name], constant())
    static = outcome(STATIC, encode=lambda x: torch.ones(len(x), 5))
    assert rate(guess) == rate(static) == pytest.approx(CHANCE)


def test_elements_in_another_order_fool_linkage_and_not_adaptive_linkage() -> None:
    moved = permuted(elements=True)
    assert rate(outcome(STATIC, moved)) <= 0.4  # it was learnt on clean features
    for attack in (ADAPTIVE, GALLERY, CLASSIFIER):
        assert rate(outcome(attack, moved)) >= 0.9


def test_independent_noise_is_broken_by_averaging() -> None:
    noise = fresh_noise(sigma=3.0)
    assert rate(outcome(ADAPTIVE, noise)) <= 0.5
    assert rate(outcome(AVERAGING, noise)) >= 0.85


def test_the_adaptive_one_keeps_the_static_map_where_few_queries_teach_nothing() -> None:
    few = replace(ADAPTIVE, queries=12)
    assert rate(outcome(few)) >= rate(outcome(STATIC)) - 0.1


def test_a_release_below_zero_is_seen_by_its_magnitude() -> None:
    signs = Generator().manual_seed(7)

    def flipping(features: Tensor, rng: Generator) -> Tensor:
        return features * (2 * torch.randint(2, (len(features), 1), generator=signs) - 1)

    def positive(x: Tensor) -> Tensor:
        return hidden(x) + 40

    guess = outcome(ADAPTIVE, flipping, positive)
    assert guess.effort.note is not None and guess.effort.note.startswith("magnitudes")
    assert rate(guess) >= 0.9


def scattered(x: Tensor) -> Tensor:
    """Maps (N, 12, 4, 4) of which loudness tells the person, positions in a new order each."""
    loudness = torch.exp(0.3 * coordinates(x)[0] @ normal(WHO, 12, seed=11))
    keys = (1e4 * x.flatten(1).sum(1)).long().abs().tolist()
    orders = [torch.randperm(16, generator=Generator().manual_seed(key)) for key in keys]
    fields = torch.stack([torch.linspace(-1, 1, 16)[order] for order in orders])
    return (loudness.unsqueeze(2) * fields.unsqueeze(1)).view(len(x), 12, 4, 4)


def test_positions_in_a_new_order_each_time_leave_a_bag_that_names_people() -> None:
    guess = outcome(STATIC, encode=scattered)
    assert guess.effort.note is not None and "bag" in guess.effort.note
    assert rate(guess) >= 0.9


def test_a_bag_is_the_same_for_every_order_of_positions() -> None:
    maps = normal(3, 4, 6, 6, seed=12)
    order = torch.randperm(36, generator=Generator().manual_seed(13))
    moved = maps.flatten(2)[:, :, order].view_as(maps)
    torch.testing.assert_close(bag(moved), bag(maps))
    assert not torch.allclose(bag(maps[:, [1, 0, 2, 3]]), bag(maps))
    assert bag(normal(3, 50, seed=14)).shape == (3, 53)


def test_what_no_line_can_follow_is_learnt_by_the_network() -> None:
    angle = 3 * torch.rand(600, 2, generator=Generator().manual_seed(15)) - 1.5
    true = fn.normalize(torch.cat([torch.cos(angle), torch.sin(angle)], dim=1), dim=1)
    training = NetworkTraining(steps=400, width=64, noise=0.0, rate=1e-2)
    taught = teach(angle @ normal(2, 5, seed=16), true, Rng(0), training)
    assert taught.link.label == "network" and len(taught.checks) == 11
    assert taught.curve[-1] <= 0.5 * taught.curve[-2]


@every_form
def test_same_seed_same_bits_and_no_global_randomness(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    ready, seen = attacked.__wrapped__(ALL[name], LITTLE)
    assert torch.equal(told(ready.reconstruct(seen, Rng(2))), told(outcome(ALL[name], LITTLE)))
    assert torch.equal(torch.get_rng_state(), before)


@every_form
def test_a_face_does_not_feel_the_others(name: str) -> None:
    ready, seen = attacked(ALL[name], LITTLE)
    whole, batch = told(ready.reconstruct(seen, Rng(2))), int(ALL[name].looks() > 1)
    for size in (1, 3):
        parts = [told(ready.reconstruct(part, Rng(2))) for part in seen.split(size, dim=batch)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)


@every_form
def test_the_effort_falls_and_the_queries_are_told(name: str) -> None:
    attack, effort = ALL[name], outcome(ALL[name]).effort
    assert effort.curve[-1] < effort.curve[0] <= 1 and effort.passes > 0
    queries = attack.queries_ahead()
    assert (queries.pictures > 0) == attack.holds.adaptive
    assert queries.releases == attack.looks() or not attack.holds.adaptive
    assert attack.cost_ahead(10, 1000).encodes > 0


@pytest.mark.parametrize("name", [name for name in ALL if name != CLASSIFIER.name])
def test_without_a_recogniser_it_says_what_to_do(name: str) -> None:
    w = world()
    things = (w.public, hidden, lambda x, k: torch.stack([hidden(x)] * k), w.known, w.labels)
    count = {BlackBox: 2, AdaptiveBlackBox: 3, Informed: 5}[ALL[name].holds]
    with pytest.raises(UsageError, match="face recogniser") as said:
        ALL[name].prepare(ALL[name].holds(*things[:count]), Rng(1))
    assert said.value.todo


def test_embeddings_are_unit_vectors_and_strangers_score_below_all() -> None:
    embeddings = outcome(STATIC).embeddings
    assert embeddings is not None
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)))
    for attack in (CLASSIFIER, GALLERY):
        w = world()
        kept = w.labels != 4
        held = Informed(
            w.public,
            hidden,
            lambda x, k: torch.stack([hidden(x)] * k),
            w.known[kept],
            w.labels[kept],
            recogniser=recognise,
        )
        scores = attack.prepare(held, Rng(1)).reconstruct(hidden(w.faces), Rng(2)).scores
        assert scores is not None and scores.shape == (len(w.faces), PEOPLE)
        assert bool(scores.isfinite().all())
        assert bool((scores[:, 4] < scores[:, torch.arange(PEOPLE) != 4].min(1).values).all())


def test_a_classifier_learns_what_varies_within_people() -> None:
    guess = outcome(replace(CLASSIFIER, releases=2))
    known, faces = hidden(world().known), hidden(world().faces)
    means = torch.stack([known[world().labels == k].mean(0) for k in range(PEOPLE)])
    plain = torch.cdist(faces, means).argmin(1) == world().people
    assert rate(guess) >= float(plain.float().mean()) + 0.3


def test_with_one_picture_a_person_nothing_is_chosen_and_people_are_named() -> None:
    def plain(x: Tensor) -> Tensor:
        return coordinates(x)[0] @ MIX[:, :WHO].T + 0.1 * torch.sin(50 * coordinates(x)[1][:, :30])

    ready, seen = attacked(CLASSIFIER, encode=plain, known=1)
    guess = ready.reconstruct(seen, Rng(2))
    assert guess.effort.note is not None and "nothing to choose by" in guess.effort.note
    assert rate(guess) >= 0.9


def test_one_known_person_is_nobody_to_tell_apart() -> None:
    w = world()
    held = Informed(w.public, hidden, lambda x, k: hidden(x)[None], w.known[:3], w.labels[:3])
    with pytest.raises(UsageError, match="at least two"):
        CLASSIFIER.prepare(held, Rng(1))


def test_confusion_is_the_logarithm_of_the_place() -> None:
    judges = Judges(torch.zeros(3, 1), torch.eye(8))
    assert judges.confusion(torch.eye(8)[:3]) == pytest.approx(0)
    same = torch.ones(3, 8)  # all eight tie: the fourth and a half place
    assert judges.confusion(same) == pytest.approx(math.log(4.5) / math.log(8))
    assert judges.confusion(-torch.eye(8)[:3]) == pytest.approx(1)
    scores = torch.tensor([[3.0, 1.0, 2.0]])
    assert log_rank(scores, torch.tensor([2])).item() == pytest.approx(math.log(2))


def test_what_a_map_says_of_everybody_is_taken_out() -> None:
    true = fn.normalize(normal(200, 4, seed=17), dim=1)
    judges = Judges(true[:100], true)
    ahead = torch.tensor([9.0, 0, 0, 0])
    nothing = torch.zeros(4)
    link = Link.of("shifted", lambda f: 2 * f + ahead, centre=ahead, usual=nothing, judges=judges)
    torch.testing.assert_close(link(true), true, rtol=0, atol=1e-5)
    assert link.scale == pytest.approx(0.5)


def test_a_map_that_explains_all_leans_on_the_mean_face_and_a_blind_one_does_not() -> None:
    usual = torch.tensor([0.8, 0.0, 0.0])
    true = fn.normalize(usual + 0.3 * normal(400, 3, seed=18), dim=1)
    usual = true.mean(0)
    judges = Judges(true[:200], true)
    knowing = Link.of("all", lambda f: f, centre=usual, usual=usual, judges=judges)
    torch.testing.assert_close(knowing(true), true, rtol=0, atol=0.02)
    noise = normal(200, 3, seed=19)
    blind = Link.of("none", lambda f: noise[: len(f)], centre=usual * 0, usual=usual, judges=judges)
    assert float(blind.lean.norm()) <= 0.05 * float(usual.norm())


def test_maps_that_few_judges_cannot_tell_apart_answer_together() -> None:
    """Two maps with errors of their own, as good as each other, and a bad one."""
    rng = torch.Generator().manual_seed(4)
    true = fn.normalize(torch.randn(400, 16, generator=rng), dim=1)
    usual = torch.zeros(16)

    def noisy(label: str, sigma: float) -> Link:
        error = sigma * torch.randn(400, 16, generator=rng)
        raw = lambda rows: (true + error)[rows[:, 0].long()]  # noqa: E731
        return Link(label, raw, usual, 1.0, usual, usual)

    rows = torch.arange(400.0)[:, None]
    links = [noisy("one", 0.3), noisy("two", 0.3), noisy("bad", 3.0)]
    judges = Judges(rows[:12], true)
    best, _ = choose(links, judges)
    found = as_good(links, best, judges)
    assert found[0] is best and {link.label for link in found} == {"one", "two"}
    together = Link.mean(found)
    fresh = Judges(rows[12:], true[12:])
    alone = [fresh.confusion(link(fresh.seen)) for link in links[:2]]
    assert fresh.confusion(together(fresh.seen)) < 0.8 * min(alone)
    assert together.label == " with ".join(link.label for link in found)
    # Many judges tell them apart where there is anything to tell.
    worse = noisy("worse", 0.5)
    assert as_good([links[0], worse], links[0], Judges(rows, true)) == [links[0]]
