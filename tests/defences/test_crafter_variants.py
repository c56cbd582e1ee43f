"""Crafter's variants, solvers, transports and couplings, where their optimum is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from crafter_world import World, matrices
from torch import Tensor, nn
from toys import pooling_encoder, toy_faces
from worlds import relative_error

from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.defences import DEFENCES
from leakaudit.defences.base import Defence, Workshop
from leakaudit.defences.crafted import Best
from leakaudit.defences.crafter import Crafter, CrafterAtWork
from leakaudit.defences.crafter_residual import CrafterResidual
from leakaudit.defences.crafter_z import CrafterZ
from leakaudit.defences.goals import Own, privacy
from leakaudit.maths.emd import emd
from leakaudit.models.best_response import LatentSearch

IMPLICIT = Crafter(
    pool=1, unshade=False, beta=1.0, start_steps=0, outer_steps=60, rate=0.5, solve_steps=12,
    damping=0.0, samples=60, tolerance=0.0,
)  # fmt: skip
LATENT: dict[str, Any] = {
    "pool": 1, "unshade": False, "beta": 1.0, "steps": 40, "solve_steps": 12, "samples": 60,
    "tolerance": 0.0,
}  # fmt: skip
KEY = b"a key of the defender"


def world(how: Defence) -> World:
    """This defence at work in a world of matrices, with an adversary who is exact."""
    prior, encoder, images, public = matrices()
    how = replace(how, worth=1.0)  # type: ignore[call-arg,unused-ignore]
    work = how.deploy(Workshop(encoder, public, prior), Rng(0))  # type: ignore[arg-type]
    made = World(work, prior, encoder, images)
    work.invert = made.best_response  # type: ignore[attr-defined]
    return made


def crafted(here: World) -> tuple[Tensor, Tensor]:
    partners = torch.stack([here.work.measures.partners(x, KEY) for x in here.images])
    return here.work.craft(here.encoder(here.images), partners).features, partners[:, 0]


DIRECT = replace(IMPLICIT, solver="direct")
NEUMANN = replace(IMPLICIT, solver="neumann", terms=200, outer_steps=30)


@pytest.mark.parametrize(
    ("how", "beta"),
    [
        (DIRECT, 0.3), (DIRECT, 2.0), (NEUMANN, 1.0), (CrafterResidual(**LATENT), 0.3),
        (CrafterResidual(**LATENT), 1.0), (CrafterResidual(**LATENT), 4.0),
    ],
)  # fmt: skip
def test_all_solvers_and_the_residual_variant_reach_the_closed_form(how: Any, beta: float) -> None:
    here = world(replace(how, beta=beta))
    F, target = crafted(here)
    F0, best = here.encoder(here.images), here.optimum(target, beta)
    excess = here.objective(F, target, beta) - here.objective(best, target, beta)
    assert float(excess.max()) < 1e-5
    assert relative_error(F - F0, best - F0) < 3e-3


@pytest.mark.parametrize("beta", [0.3, 4.0])
def test_crafter_z_releases_the_same_face_without_what_the_prior_cannot_express(
    beta: float,
) -> None:
    here = world(CrafterZ(**{**LATENT, "beta": beta}))
    F, target = crafted(here)
    z = here.best_response(here.optimum(target, beta))
    best, F0 = here.encoder(here.prior(z)), here.encoder(here.images)
    assert relative_error(F - F0, best - F0) < 3e-3
    basis, _ = torch.linalg.qr(here.J)
    offset = here.encoder(here.prior(torch.zeros_like(z)))
    out = (F - offset) - (F - offset) @ basis @ basis.T
    assert float(out.abs().max()) < 1e-10
    assert float(((F0 - offset) - (F0 - offset) @ basis @ basis.T).abs().max()) > 0.01


def test_keep_scales_what_the_prior_cannot_express_and_nothing_else() -> None:
    releases = {}
    for keep in (0.0, 0.5, 1.0):
        here = world(CrafterResidual(**LATENT, keep=keep))
        releases[keep], _ = crafted(here)
    z_only, _ = crafted(world(CrafterZ(**LATENT)))
    torch.testing.assert_close(releases[0.0], z_only, rtol=0, atol=1e-4)
    torch.testing.assert_close(releases[0.5], (releases[0.0] + releases[1.0]) / 2)
    F0 = here.encoder(here.images)
    rest = F0 - here.encoder(here.prior(here.best_response(F0)))
    torch.testing.assert_close(releases[1.0] - releases[0.0], rest)


@pytest.mark.parametrize("keep", [0.0, 0.4, 1.0])
def test_the_utility_loss_told_is_that_of_the_release(keep: float) -> None:
    here = world(CrafterResidual(**LATENT, keep=keep))
    partners = torch.stack([here.work.measures.partners(x, KEY) for x in here.images])
    F0 = here.encoder(here.images)
    made = here.work.craft(F0, partners)
    lost = (made.features - F0).square().sum(1) / here.work.scale
    torch.testing.assert_close(made.utility, lost, rtol=1e-5, atol=1e-7)


class _Stretched(nn.Module):
    """A prior some coordinates of whose latent hardly move the face."""

    def __init__(self, prior: Any) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, z: Tensor) -> Tensor:
        made: Tensor = self.prior(z * torch.logspace(0, -1.5, z.shape[1]))
        return made

    def draw(self, count: int, rng: Rng) -> Tensor:
        drawn: Tensor = self.prior.draw(count, rng)
        return drawn


def test_preconditioned_steps_end_lower_where_the_latent_is_stretched() -> None:
    faces, ends = toy_faces(), {}
    shop = Workshop(pooling_encoder(), faces.public, _Stretched(faces.prior))  # type: ignore[arg-type]
    for preconditioned in (False, True):
        how = CrafterResidual(
            pool=1, steps=4, solve_steps=2, samples=100, preconditioned=preconditioned
        )
        made = how.deploy(shop, Rng(1)).release(faces.images, Rng(2))
        ends[preconditioned] = made.curve[-1]
    assert ends[True] < 0.98 * ends[False], ends


@pytest.mark.parametrize("kind", [CrafterZ, CrafterResidual])
def test_no_weight_on_privacy_leaves_the_best_inversion(kind: Any) -> None:
    here = world(kind(**{**LATENT, "beta": 0.0}))
    F, _ = crafted(here)
    F0 = here.encoder(here.images)
    kept = here.encoder(here.prior(here.best_response(F0)))
    torch.testing.assert_close(F, F0 if kind is CrafterResidual else kept, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [CrafterZ, CrafterResidual])
def test_more_weight_on_privacy_lowers_its_loss_and_moves_the_face_further(kind: Any) -> None:
    losses, moves = [], []
    for beta in (0.25, 1.0, 4.0):
        here = world(kind(**{**LATENT, "beta": beta}))
        partners = torch.stack([here.work.measures.partners(x, KEY) for x in here.images])
        out = here.work.craft(here.encoder(here.images), partners)
        losses.append(out.privacy)
        moves.append(out.utility)
    assert bool((torch.stack(losses).diff(dim=0) < 0).all())
    assert bool((torch.stack(moves).diff(dim=0) > 0).all())


def test_the_objective_never_rises_and_a_face_that_settles_stops_the_batch() -> None:
    here = world(CrafterResidual(**{**LATENT, "steps": 200, "tolerance": 1e-6}))
    partners = torch.stack([here.work.measures.partners(x, KEY) for x in here.images])
    out = here.work.craft(here.encoder(here.images), partners)
    assert bool(out.settled.all())
    assert len(out.objective) < 100
    assert all(b <= a for a, b in zip(out.objective, out.objective[1:], strict=False))
    impatient = world(replace(IMPLICIT, tolerance=1e-3, outer_steps=200))
    out = impatient.work.craft(here.encoder(here.images), partners)
    assert bool(out.settled.all()) and len(out.objective) < 100


def small(**changes: Any) -> Crafter:
    how = Crafter(
        pool=1, unshade=False, outer_steps=6, solve_steps=6, samples=60, batch=8, beta=4.0,
        search=LatentSearch(steps=40), coupling="batch",
    )  # fmt: skip
    return replace(how, **changes)


def toys(how: Defence, worth: float = 1.0) -> tuple[Any, Tensor]:
    faces, how = toy_faces(), replace(how, worth=worth)  # type: ignore[call-arg]
    shop = Workshop(pooling_encoder(), faces.public, faces.prior)  # type: ignore[arg-type]
    return how.deploy(shop, Rng(1)), faces.images


def at_price(work: Any, price: float) -> None:
    """Lets a privacy loss of 1 count as ``price`` of utility, whatever the world's exchange is."""
    work._how = replace(work._how, beta=price / work.worth.value)


@pytest.mark.parametrize("transport", ["exact", "sinkhorn", "critic"])
def test_coupled_by_batch_the_distance_of_both_crowds_falls(transport: str) -> None:
    work, images = toys(small(transport=transport, outer_steps=3 if transport == "critic" else 6))
    F = work.encoder(images)
    goals = work._goals(images, KEY)
    out = work.craft_towards(F, goals)
    crowd = goals._goals * work.stranger
    made = [work.measures.pooled(work.measures.prior(z)) for z in (work.invert(F), out.latents)]
    before, after = (float(emd(x, crowd)) / work.stranger for x in made)
    assert after < (0.9 if transport == "critic" else 0.75) * before


def test_the_exact_plan_of_a_batch_gives_each_face_its_own_part_of_the_distance() -> None:
    work, images = toys(small())
    goals = work._goals(images, KEY)
    made = work.measures.pooled(images)
    goals.renew(made)
    parts = goals.charge(made)
    crowd = goals._goals * work.stranger
    assert float(parts.mean()) == pytest.approx(float(emd(made, crowd)) / work.stranger, rel=0.01)
    z = work.invert(work.encoder(images))
    loss, slope = privacy(work.measures, goals, z)
    assert loss.shape == (8,) and slope.shape == z.shape


def test_a_batch_coupled_release_says_so_and_depends_on_the_company() -> None:
    assert (Crafter().coupling, small().coupling) == ("image", "batch")
    assert small().keeps_rows  # nobody need look whether rows are moved
    work, images = toys(small())
    whole = work.release(images, Rng(2)).features
    assert torch.equal(whole, work.release(images, Rng(3)).features)  # the same batch: a replay
    swapped = images.clone()
    swapped[1:] = images[1:].flip(0)
    assert not torch.allclose(work.release(swapped, Rng(2)).features[0], whole[0], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "objective"),
    [
        ({"plan_size": 4, "outer_steps": 3, "solve_steps": 6, "batch": 3, "beta": 12.0}, 4.97419),
        ({"pool": 4, "unshade": True, "search": LatentSearch(steps=60), "beta": 12.0}, 3.20657),
        (
            {
                "pool": 4, "unshade": True, "search": LatentSearch(steps=60), "beta": 2.0,
                "batch": 3, "replay": False,
            },
            1.63772,
        ),
    ],
)  # fmt: skip
def test_the_default_reaches_at_least_the_objective_that_it_reached_without_a_start(
    settings: dict[str, Any], objective: float
) -> None:
    same = {"pool": 1, "unshade": False, "samples": 60, "search": LatentSearch(steps=40)}
    how = Crafter(**{**same, **settings})
    work, images = toys(how)
    at_price(work, how.beta)
    assert work.release(images, Rng(2)).curve[-1] < objective
    paper = {"start_steps": 0, "outer_steps": 16, "rate": 0.5, "solve_steps": 3, "tolerance": 0.0}
    alone = toys(Crafter(**{**same, **paper, **settings}))[0]
    at_price(alone, how.beta)
    assert alone.release(images, Rng(2)).curve[-1] == pytest.approx(objective, rel=1e-4)


def test_by_default_it_is_the_residual_variant_bit_for_bit() -> None:
    work, images = toys(Crafter())
    other = toys(CrafterResidual())[0]
    one, two = (each.release(images, Rng(2)).features for each in (work, other))
    assert torch.equal(one, two)


@pytest.mark.parametrize("kind", [Crafter, CrafterResidual, CrafterZ])
def test_another_beta_takes_over_the_first_inversions_and_releases_the_same(kind: Any) -> None:
    faces, same = (
        toy_faces(),
        {"pool": 1, "samples": 60, "search": LatentSearch(steps=40), "worth": 1.0},
    )
    encoder, prior, kept = pooling_encoder(), faces.prior, {}
    calls = [0]
    encoder.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    told = []
    for shared in (None, kept):
        for beta in (1.0, 4.0):
            calls[0] = 0
            shop = Workshop(encoder, faces.public, prior, kept=shared)  # type: ignore[arg-type]
            work = kind(beta=beta, **same).deploy(shop, Rng(1))
            made = work.release(faces.images, Rng(2))
            told.append((made.features, made.passes, calls[0]))
    alone, warm = told[1], told[3]
    assert torch.equal(alone[0], warm[0]) and torch.equal(told[0][0], told[2][0])
    assert not torch.allclose(told[0][0], alone[0], atol=1e-3)
    assert alone[1] == warm[1]  # what the release costs, not what this process spent
    assert warm[2] < alone[2] - 40
    other = kind(beta=4.0, **same).deploy(Workshop(encoder, faces.public, prior, kept=kept), Rng(3))
    assert not torch.equal(other.release(faces.images, Rng(2)).features, warm[0])  # other draws


def begun_on_toys(**settings: Any) -> tuple[CrafterAtWork, Tensor, Own, Best]:
    """A deployed Crafter, features of faces, their goals, and where its outer steps begin."""
    how = Crafter(pool=1, samples=60, beta=2.0, search=LatentSearch(steps=40), **settings)
    work, images = toys(how)
    assert isinstance(work, CrafterAtWork)
    features = work.encoder(images)
    partners = torch.stack([work.partners(image, b"key") for image in images])
    begun = work._begun(features, work.invert(features), partners)
    return work, features, Own(work.measures, partners), begun.best


def test_an_outer_step_that_only_fools_the_tracked_inversion_is_taken_back() -> None:
    work, features, goals, begun = begun_on_toys()
    # Nothing was crafted, but the tracked inversion stands at the stranger: all looks free.
    free = torch.zeros_like(begun.value)
    fooled = replace(begun, features=features, value=free, privacy=free, utility=free)
    kept = work._upheld(fooled, begun, goals)
    assert torch.equal(kept.features, begun.features)
    assert torch.equal(kept.value, begun.value)


def test_an_outer_step_that_holds_for_an_adversary_who_inverts_anew_is_kept() -> None:
    work, features, goals, begun = begun_on_toys()
    worse = replace(begun, value=begun.value + 1, features=features)
    kept = work._upheld(begun, worse, goals)
    assert torch.equal(kept.features, begun.features)
    assert bool((kept.value <= worse.value).all())


def test_outer_steps_never_end_above_where_they_began() -> None:
    for rate in (0.1, 1.0):
        work, features, goals, begun = begun_on_toys(outer_steps=4, rate=rate)
        out = work.craft_towards(features, goals)
        value = work.price * out.privacy + out.utility
        assert bool((value <= begun.value + 1e-6).all())
        assert out.objective[-1] == pytest.approx(float(value.mean()), rel=1e-4)


def test_sinkhorn_near_no_entropy_releases_what_the_exact_plan_does() -> None:
    how = small(coupling="image", plan_size=4, start_steps=0, outer_steps=2, rate=0.5)
    exact, images = toys(how)
    near, _ = toys(replace(how, transport="sinkhorn", regularisation=0.05))
    far, _ = toys(replace(how, transport="sinkhorn", regularisation=5.0))
    a, b, c = (work.release(images, Rng(2)).features for work in (exact, near, far))
    assert float((a - b).norm()) < 0.2 * float((a - c).norm())


def test_passes_are_counted_and_the_plan_is_not_below_them() -> None:
    for name, more in (
        ("crafter", {"outer_steps": 6}), ("crafter", {"solver": "neumann", "terms": 10}),
        ("crafter-z", {"steps": 6, "tolerance": 0.0}), ("crafter-residual", {"steps": 6}),
        ("crafter", {"worth": 0.0}), ("crafter-z", {"worth": 0.0}),
    ):  # fmt: skip
        few: dict[str, Any] = {"samples": 60, "search.steps": 10, "pool": 1, "worth": 1.0, **more}
        how: Any = DEFENCES.make(name, few)
        work, images = toys(how, how.worth)
        spent = work.release(images, Rng(2)).passes
        assert 0.3 * how.passes_ahead(8) < spent <= how.passes_ahead(8), (name, more)
        assert work.release(images, Rng(2)).passes == spent


@pytest.mark.parametrize("kind", [Crafter, CrafterResidual, CrafterZ])
def test_what_the_prior_cannot_express_is_told(kind: Any) -> None:
    here = world(kind(pool=1, unshade=False, samples=60, beta=1.0))
    F0 = here.encoder(here.images)
    expressed = here.encoder(here.prior(here.best_response(F0)))
    missed = (F0 - expressed).square().sum(1).mean() / here.work.scale
    told = here.work.release(here.images, Rng(2)).details["unexpressed"]
    assert told == pytest.approx(float(missed), rel=1e-6)
    assert told > 0.01


def test_details_tell_the_residual_and_the_stationarity() -> None:
    work, images = toys(small(coupling="image"))
    details = work.release(images, Rng(2)).details
    assert {"hypergradient_residual", "stationarity"} <= details.keys()
    assert 0 <= details["stationarity"] <= 1
    details = toys(CrafterZ(samples=60, pool=1))[0].release(images, Rng(2)).details
    assert "hypergradient_residual" not in details and "step_residual" in details


def test_settings_that_make_no_sense_are_usage_errors() -> None:
    with pytest.raises(UnknownNameError, match="neumann"):
        Crafter(solver="neuman")
    with pytest.raises(UnknownNameError, match="batch"):
        Crafter(coupling="bach")
    with pytest.raises(UnknownNameError, match="sinkhorn"):
        Crafter(transport="sinkhorm")
    with pytest.raises(UsageError, match="coupling=batch"):
        Crafter(transport="critic")
    for nothing in ({"coupling": "batch"}, {"start_steps": 0}):
        with pytest.raises(UsageError, match="only outer steps craft"):
            Crafter(**nothing)  # type: ignore[arg-type]
    for kind in (CrafterZ, CrafterResidual):
        with pytest.raises(UsageError, match="prior"):
            kind().deploy(Workshop(pooling_encoder(), toy_faces().public, None), Rng(0))
        with pytest.raises(UsageError, match="damping"):
            kind(damping=0)
    with pytest.raises(UsageError, match="keep"):
        CrafterResidual(keep=-1)
