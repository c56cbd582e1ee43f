"""The authors' algorithm: each part against what it is known to be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from crafter_world import World, matrices
from toys import LATENT, normal

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Workshop
from leakaudit.defences.crafter_paper import CrafterPaper, PaperAtWork
from leakaudit.maths.hypergradient import Hypergradient


def world(**settings: Any) -> tuple[World, PaperAtWork, Any]:
    """The algorithm among matrices, and where a batch stands at its beginning."""
    prior, encoder, images, public = matrices()
    how = CrafterPaper(**settings)
    work = how.deploy(Workshop(encoder, public, prior), Rng(0))  # type: ignore[arg-type]
    assert isinstance(work, PaperAtWork)
    return World(work, prior, encoder, images), work, work.begin(images, Rng(1))


def test_the_inner_descent_finds_the_best_response_where_the_critic_has_no_weight() -> None:
    here, work, at = world(critic_weight=0.0, inner_steps=400, inner_rate=2e-3)
    F0 = here.encoder(here.images)
    best = (here.encoder(here.prior(here.best_response(F0))) - F0).norm(dim=1)
    before = (here.encoder(here.prior(at.z)) - F0).norm(dim=1)
    work.invert(at)
    after = (here.encoder(here.prior(at.z)) - F0).norm(dim=1)
    assert float(((after - best) / (before - best)).max()) < 0.25


def test_the_derivative_is_that_of_the_implicit_function_once_the_series_has_converged() -> None:
    here, work, at = world()
    J = here.J
    curvature = 2 * 2000 / (at.F.shape[1] * 128) * J.T @ J
    values = torch.linalg.eigvalsh(curvature)
    terms = int(20 * values[-1] / values[0])
    here, work, at = world(terms=terms, alpha=1 / float(values[-1]))
    work.train_critic(at, Rng(2))
    found, privacy = work.differentiate(at)
    z = at.z.clone().requires_grad_()
    score = work._level - at.critic(here.prior(z))
    torch.testing.assert_close(privacy, score.detach())
    (slope,) = torch.autograd.grad(score.mean(), z)
    expected = torch.linalg.solve(J.T @ J, slope.T).T @ J.T
    torch.testing.assert_close(found.value, expected, rtol=1e-5, atol=1e-8)


def test_few_products_sum_the_same_terms() -> None:
    _, literal, at = world()
    _, short, again = world(products=8)
    found = []
    for work, state in ((literal, at), (short, again)):
        before = work.passes
        work.train_critic(state, Rng(2))
        found.append((work.differentiate(state)[0], work.passes - before))
    torch.testing.assert_close(found[1][0].value, found[0][0].value, rtol=1e-5, atol=1e-9)
    assert found[0][1] - found[1][1] == len(at.z) * 6 * (120 - 8)


def test_the_feature_moves_by_adam_on_the_mean_of_both_losses() -> None:
    _, work, at = world(beta=4.0, rate=0.02)
    slopes = [0.01 * normal(*at.F.shape, seed=k, dtype=at.F.dtype) for k in range(3)]
    F = at.F.clone().requires_grad_()
    adam = torch.optim.Adam([F], lr=0.02)
    for slope in slopes:
        nothing = torch.zeros(len(slope), LATENT)
        work.descend(at, Hypergradient(slope, nothing, nothing[:, 0], steps=0, passes=0))
        adam.zero_grad()
        loss = 100 * (slope * F).sum() + 100 / 4.0 * (F - at.F0).square().mean()
        loss.backward()
        adam.step()
    torch.testing.assert_close(at.F, F.detach(), rtol=1e-9, atol=1e-12)


def test_the_critic_learns_to_tell_inversions_from_faces_of_the_prior() -> None:
    here, work, at = world(critic_steps=60, critic_rate=2e-3)
    at.z = at.z + 3
    work.train_critic(at, Rng(2))
    with torch.no_grad():
        apart = work._level - at.critic(here.prior(at.z))
    assert float(apart.mean()) > 0.1
    assert all(torch.equal(a, b) for a, b in zip(
        here.prior.critic.parameters(), here.prior.critic.parameters(), strict=True
    ))  # fmt: skip


def test_the_whole_moves_faces_towards_the_prior_and_more_so_with_a_larger_beta() -> None:
    moves = []
    for beta in (0.05, 20.0):
        here, work, at = world(
            beta=beta, outer_steps=12, inner_steps=15, inner_rate=1e-3, terms=10, critic_steps=3
        )
        out = work.craft(at, Rng(3))
        assert len(out.objective) == 12 and bool(out.features.isfinite().all())
        moves.append(float((out.features - here.encoder(here.images)).norm()))
    assert moves[1] > 1.5 * moves[0] > 0


def test_settings_that_make_no_sense_are_usage_errors() -> None:
    assert CrafterPaper().coupling == "batch"
    with pytest.raises(UsageError, match="alpha"):
        CrafterPaper(alpha=0)
    with pytest.raises(UsageError, match="outer_steps"):
        CrafterPaper(outer_steps=0)
