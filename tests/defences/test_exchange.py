"""What beta means: the price at which faces of the prior lose half of their likeness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from crafter_world import World, matrices
from torch import Tensor, nn
from torch.nn import functional as fn
from toys import ConstantEncoder, ToyPrior, normal, pooling_encoder, toy_faces

from leakaudit.audit.doubts_of_defences import MOVED
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Workshop
from leakaudit.defences.crafter import Crafter
from leakaudit.defences.crafter_residual import CrafterResidual
from leakaudit.defences.crafter_z import CrafterZ
from leakaudit.defences.exchange import (
    CROWDS,
    DAMPING,
    LEFT,
    READ,
    SOLVE_STEPS,
    STEPS,
    exchange_ahead,
)  # fmt: skip
from leakaudit.defences.leading import lead
from leakaudit.defences.likeness import Likeness
from leakaudit.models.best_response import LatentSearch

HOW = Crafter(pool=1, unshade=False, beta=2.0, samples=400, tolerance=0.0)


def world(stretch: float, bent: float, *, blind: int = 0) -> World:
    """Matrices, the encoder's ``stretch`` times as large and ``bent`` away from being even.

    It sees nothing of the last ``blind`` coordinates of a latent.
    """
    prior, encoder, _, public = matrices()
    rows = torch.linspace(0, bent, len(encoder.E), dtype=torch.float64).exp()
    encoder.E, encoder.e = stretch * rows[:, None] * encoder.E, stretch * rows * encoder.e
    seen = (torch.arange(prior.W.shape[1]) < prior.W.shape[1] - blind).double()
    encoder.E = encoder.E @ prior.W @ (seen[:, None] * torch.linalg.pinv(prior.W))
    work = HOW.deploy(Workshop(encoder, public, prior), Rng(0))  # type: ignore[arg-type]
    return World(work, prior, encoder, prior(tried(prior)[0]))


def tried(prior: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The latents (N, latent) of the faces that prices are tried on, and of their strangers."""
    faces, strangers = prior.draw(2 * max(CROWDS), Rng(0, ("exchange",))).double().chunk(2)
    return faces, strangers


def led(work: Any, prior: Any) -> tuple[float, float]:
    """How alike those faces are, at the price of the defence, to what they were: made, and read."""
    faces, strangers = tried(prior)
    before, alike = work.measures.answered(faces), Likeness.fit(work.measures)
    best = lead(
        work.measures, faces, before, prior(strangers).flatten(1).unsqueeze(1), price=work.price,
        steps=STEPS, damping=DAMPING, tolerance=0.0, solve_steps=SOLVE_STEPS,
    ).best  # fmt: skip
    made, read = alike.made(faces, best.latents), alike.read(before, best.features)
    return float(made.mean()), float(read.mean())


def left(here: World, blind: int) -> float:
    """The likeness left of the faces tried at their optimum for beta 2, by linear algebra.

    A prior of matrices makes faces whose parts along principal directions, each divided by its
    deviation, are a rotation of the latent: the Mahalanobis cosine is the cosine of latents, of
    which an adversary reads what the encoder sees. What it doesn't see goes where the face comes
    nearest to the stranger's.
    """
    prior: Any = here.prior
    before, strangers = tried(prior)
    seen = before.shape[1] - blind
    after = here.best_response(here.optimum(prior(strangers).flatten(1), 2.0))
    free, bound = prior.W[:, seen:], prior.W[:, :seen]
    gap = (after - strangers)[:, :seen] @ bound.T
    after[:, seen:] = strangers[:, seen:] - gap @ torch.linalg.pinv(free).T
    made, read = (
        float(fn.cosine_similarity(before[:, :k], after[:, :k], dim=1).mean())
        for k in (before.shape[1], seen)
    )
    return max(made, read - READ)


@pytest.mark.parametrize("blind", [0, 4])
@pytest.mark.parametrize(("stretch", "bent"), [(0.1, 0.0), (1.0, 0.0), (1.0, 2.0), (30.0, 4.0)])
def test_at_beta_2_half_of_the_likeness_is_left_behind_any_encoder(
    stretch: float, bent: float, blind: int
) -> None:
    assert left(world(stretch, bent, blind=blind), blind) == pytest.approx(LEFT, abs=0.025)


def test_what_the_encoder_does_not_see_is_no_likeness() -> None:
    """It is free to become the stranger's: of all of a face less is left than of what is seen."""
    here = world(1.0, 0.0, blind=4)
    made, read = led(here.work, here.prior)
    assert read == pytest.approx(LEFT + READ, abs=0.04)
    assert made < LEFT - 0.1


class Folding(nn.Module):
    """Two coordinates of a latent, faintly, and the others' squares, which no matrix reads."""

    def __init__(self, prior: Any) -> None:
        super().__init__()
        self.register_buffer("back", torch.linalg.pinv(prior.W))
        self.register_buffer("b", prior.b)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, 8) of pictures."""
        z = (x.flatten(1) - self.b) @ self.back.T
        return torch.cat([0.03 * z[:, :2], z[:, 2:].square()], 1)


def test_what_no_matrix_reads_is_likeness_too() -> None:
    prior, _, _, public = matrices()
    work: Any = HOW.deploy(Workshop(Folding(prior), public, prior), Rng(0))  # type: ignore[arg-type]
    made, read = led(work, prior)
    assert LEFT - 0.1 < made < LEFT + 0.1
    assert read < LEFT - 0.2


class Faint(nn.Module):
    """Half of a latent, very faintly, and waves of the rest: no price leaves half of both."""

    def __init__(self, prior: Any) -> None:
        super().__init__()
        self.register_buffer("back", torch.linalg.pinv(prior.W))
        self.register_buffer("b", prior.b)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, 12) of pictures."""
        z = (x.flatten(1) - self.b) @ self.back.T
        return torch.cat([0.01 * z[:, :4], (2 * z[:, 4:]).cos(), (2 * z[:, 4:]).sin()], 1)


def test_a_likeness_that_does_not_answer_to_prices_is_found_out() -> None:
    prior, _, _, public = matrices()
    work: Any = HOW.deploy(Workshop(Faint(prior), public, prior), Rng(0))  # type: ignore[arg-type]
    assert work.worth.told["worth_moved"] > MOVED
    assert world(1.0, 2.0).work.worth.told["worth_moved"] < MOVED


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_nothing_can_be_read_nothing_is_lost(dtype: torch.dtype) -> None:
    prior, faces = ToyPrior(dtype=dtype), toy_faces(dtype=dtype)
    work: Any = HOW.deploy(Workshop(ConstantEncoder(), faces.public, prior), Rng(0))  # type: ignore[arg-type]
    features = ConstantEncoder()(faces.images)
    alike = Likeness.fit(work.measures)
    assert alike.read(features, features) == pytest.approx(torch.ones(len(features)))
    assert work.worth.left == pytest.approx(1.0 - READ)
    assert work.worth.value > 1


def test_fresh_faces_lose_about_half_too() -> None:
    here = world(1.0, 2.0)
    prior: Any = here.prior
    faces, strangers = (prior(prior.draw(300, Rng(seed)).double()) for seed in (5, 6))
    fresh = World(here.work, prior, here.encoder, faces)
    before = fresh.best_response(fresh.encoder(faces))
    after = fresh.best_response(fresh.optimum(strangers.flatten(1), 2.0))
    alike = fn.cosine_similarity(before, after, dim=1).mean()
    assert float(alike) == pytest.approx(LEFT, abs=0.1)


def test_in_likeness_and_not_in_way() -> None:
    """At the price that leaves half of it, the way left differs from encoder to encoder."""
    worlds = [world(1.0, bent) for bent in (0.0, 4.0)]
    prior: Any = worlds[0].prior
    strangers = prior(tried(prior)[1]).flatten(1)
    ways = [float(here.privacy(here.optimum(strangers, 2.0), strangers).mean()) for here in worlds]
    assert abs(ways[0] - ways[1]) > 0.05


def test_without_it_the_same_price_would_lead_to_other_places() -> None:
    even, uneven = world(1.0, 0.0), world(1.0, 4.0)
    assert not 0.8 < uneven.work.worth.value / even.work.worth.value < 1.25
    uneven.work.worth = even.work.worth
    assert abs(left(uneven, 0) - left(even, 0)) > 0.05


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
