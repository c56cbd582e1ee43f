"""What beta means: the price at which faces of the prior lose half of their likeness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from crafter_world import World, matrices
from torch.nn import functional as fn
from toys import normal, pooling_encoder, toy_faces

from leakaudit.core.rng import Rng
from leakaudit.defences.base import Workshop
from leakaudit.defences.crafter import Crafter
from leakaudit.defences.crafter_residual import CrafterResidual
from leakaudit.defences.crafter_z import CrafterZ
from leakaudit.defences.exchange import CROWDS, exchange_ahead
from leakaudit.models.best_response import LatentSearch

HOW = Crafter(pool=1, unshade=False, beta=2.0, samples=60, tolerance=0.0)


def world(stretch: float, bent: float) -> World:
    """Matrices, the encoder's ``stretch`` times as large and ``bent`` away from being even."""
    prior, encoder, _, public = matrices()
    rows = torch.linspace(0, bent, len(encoder.E), dtype=torch.float64).exp()
    encoder.E, encoder.e = stretch * rows[:, None] * encoder.E, stretch * rows * encoder.e
    work = HOW.deploy(Workshop(encoder, public, prior), Rng(0))  # type: ignore[arg-type]
    tried = prior.draw(2 * max(CROWDS), Rng(0, ("exchange",))).double()
    return World(work, prior, encoder, prior(tried[: max(CROWDS)]))


def left(here: World) -> float:
    """The likeness left of the faces tried at their optimum for beta 2, by linear algebra.

    A prior of matrices makes faces whose parts along principal directions, each divided by its
    deviation, are a rotation of the latent: the Mahalanobis cosine is the cosine of latents.
    """
    prior: Any = here.prior
    tried = prior.draw(2 * max(CROWDS), Rng(0, ("exchange",))).double()
    strangers = prior(tried[max(CROWDS) :]).flatten(1)
    before = here.best_response(here.encoder(here.images))
    after = here.best_response(here.optimum(strangers, 2.0))
    return float(fn.cosine_similarity(before, after, dim=1).mean())


@pytest.mark.parametrize(("stretch", "bent"), [(0.1, 0.0), (1.0, 0.0), (1.0, 2.0), (30.0, 4.0)])
def test_at_beta_2_half_of_the_likeness_is_left_behind_any_encoder(
    stretch: float, bent: float
) -> None:
    assert left(world(stretch, bent)) == pytest.approx(0.5, abs=0.02)


def test_fresh_faces_lose_about_half_too() -> None:
    here = world(1.0, 2.0)
    prior: Any = here.prior
    faces, strangers = (prior(prior.draw(300, Rng(seed)).double()) for seed in (5, 6))
    fresh = World(here.work, prior, here.encoder, faces)
    before = fresh.best_response(fresh.encoder(faces))
    after = fresh.best_response(fresh.optimum(strangers.flatten(1), 2.0))
    alike = fn.cosine_similarity(before, after, dim=1).mean()
    assert float(alike) == pytest.approx(0.5, abs=0.1)


def test_in_likeness_and_not_in_way() -> None:
    """At the price that leaves half of it, the way left differs from encoder to encoder."""
    worlds = [world(1.0, bent) for bent in (0.0, 4.0)]
    prior: Any = worlds[0].prior
    tried = prior.draw(2 * max(CROWDS), Rng(0, ("exchange",))).double()
    strangers = prior(tried[max(CROWDS) :]).flatten(1)
    ways = [float(here.privacy(here.optimum(strangers, 2.0), strangers).mean()) for here in worlds]
    assert abs(ways[0] - ways[1]) > 0.05


def test_without_it_the_same_price_would_lead_to_other_places() -> None:
    even, uneven = world(1.0, 0.0), world(1.0, 4.0)
    assert not 0.8 < uneven.work.worth.value / even.work.worth.value < 1.25
    uneven.work.worth = even.work.worth
    assert abs(left(uneven) - left(even)) > 0.05


def deployed(kind: Any, rng: Rng, **more: Any) -> Any:
    faces = toy_faces()
    how = kind(pool=1, samples=60, search=LatentSearch(steps=40), **more)
    return how.deploy(Workshop(pooling_encoder(), faces.public, faces.prior), rng)  # type: ignore[arg-type]


def test_all_crafted_defences_have_the_same_one_and_settings_leave_it() -> None:
    whole = [deployed(kind, Rng(1)) for kind in (Crafter, CrafterResidual, CrafterZ)]
    assert len({work.worth for work in whole}) == 1
    assert deployed(Crafter, Rng(1), beta=9.0).worth == whole[0].worth
    assert deployed(Crafter, Rng(1), outer_steps=2).worth == whole[0].worth


def test_another_seed_tries_the_same_faces() -> None:
    one, other = (deployed(Crafter, Rng(seed)).worth.value for seed in (1, 2))
    assert one == pytest.approx(other, rel=0.1)  # the units are means over other draws
    assert one != other


def test_its_passes_are_counted_and_foretold() -> None:
    here = world(1.0, 1.0)
    measures, kept = here.work.measures, {}
    faces = toy_faces()
    shop = Workshop(pooling_encoder(), faces.public, faces.prior, kept=kept)  # type: ignore[arg-type]
    work = Crafter(pool=1, samples=60).deploy(shop, Rng(1))
    assert isinstance(work.measures.at_deployment, int)  # type: ignore[attr-defined]
    (spent,) = (passes for what, (_, passes) in kept.items() if what[0] == "exchange")
    assert 26 * max(CROWDS) < spent <= exchange_ahead() * sum(CROWDS) / sum(CROWDS[:-1])
    assert measures.at_deployment == measures.passes


def test_a_prior_of_one_face_breaks_nothing() -> None:
    prior, encoder, images, public = matrices()
    prior.W = 0 * prior.W
    how = replace(HOW, search=LatentSearch(steps=5))
    work: Any = how.deploy(Workshop(encoder, public, prior), Rng(0))  # type: ignore[arg-type]
    assert 0 < work.worth.value < float("inf")
    assert work.worth.left is not None and work.worth.left > 0.5  # nowhere to be led
    partners = torch.stack([work.partners(image, b"key") for image in images])
    out = work.craft(encoder(images) + 0 * normal(len(images), 1, seed=1), partners)
    assert bool(out.features.isfinite().all())
