import json
import math
from dataclasses import replace

import pytest
import torch

from audit.toy_subject import toy_plan, toy_subject
from leakaudit.audit.latent_map import MOST, latent_map, latent_maps
from leakaudit.audit.scan import ScanOptions, scan
from leakaudit.audit.store import RunStore
from leakaudit.core.types import Result


def crowd(count, shift, seed, *, size=0.1):
    """Points around ``shift`` e1 + seed-th noise of deviation ``size`` in ten dimensions."""
    noise = size * torch.randn(count, 10, generator=torch.Generator().manual_seed(seed))
    noise[:, 0] += shift
    return noise


def test_the_plane_shows_the_directions_in_which_crowds_differ():
    crowds = {None: crowd(300, 0, 0), "none": crowd(50, 4, 1), "b": crowd(60, -4, 2)}
    crowds["b"][:, 3] += 2
    found = latent_map("a", crowds)
    places = {group.defence: group.centre for group in found.groups}
    apart = math.dist(places["none"], places["b"])
    assert apart == pytest.approx(math.hypot(8, 2), abs=0.1)
    assert sum(found.explained) > 0.98
    assert found.explained[0] > found.explained[1]
    assert [group.n for group in found.groups] == [300, 50, 60]
    assert found.dimensions == 10


def test_a_spread_is_the_root_of_the_mean_square_on_the_plane():
    line = torch.zeros(2, 4)
    line[0, 1], line[1, 1] = 3, -3
    (group,) = latent_map("a", {"none": line}).groups
    assert group.centre == (0.0, 0.0)
    assert group.spread == 3.0
    assert {point[0] for point in group.points} == {-3.0, 3.0}


def test_a_crowd_weighs_the_same_whatever_its_size():
    a, b = crowd(400, 0, 0, size=1e-3), crowd(4, 6, 1, size=1e-3)
    few, many = latent_map("a", {None: a, "x": b}), latent_map("a", {None: a[:4], "x": b})
    for one, other in zip(few.groups, many.groups, strict=True):
        assert one.centre == pytest.approx(other.centre, abs=0.01)
    assert {round(abs(group.centre[0])) for group in few.groups} == {3}


def test_no_point_tells_whose_it_is():
    crowds = {None: crowd(500, 0, 0), "none": crowd(40, 1, 1)}
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    shuffled = {**crowds, "none": crowds["none"][order]}
    one, other = latent_map("a", crowds), latent_map("a", shuffled)
    assert one.groups[1].points == other.groups[1].points
    assert len(one.groups[0].points) == MOST
    assert all(group.points == () for group in latent_map("a", crowds, points=False).groups)


@pytest.mark.parametrize("mode", ["none", "full"])
def test_a_scan_maps_its_attack_on_the_prior(tmp_path, mode):
    plan = toy_plan(tmp_path, "gaussian:sigma=0.1", attacks=["whitebox-latent"], steps=2)
    store = RunStore(tmp_path / "run", resume=False)
    options = ScanOptions(gallery=mode)
    result = scan(toy_subject(attacked=8), plan, store, options, lambda what, share: None)
    (found,) = result.maps
    assert found.attack == "whitebox-latent"
    assert [g.defence for g in found.groups] == [None, "none", "gaussian:sigma=0.1"]
    assert [g.n for g in found.groups] == [1000, 8, 8]
    assert [len(g.points) for g in found.groups] == ([0] * 3 if mode == "none" else [MOST, 8, 8])
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_without_a_prior_or_its_latents_there_is_no_map(tmp_path):
    plan = toy_plan(tmp_path, attacks=["whitebox-latent"])
    subject = toy_subject()
    assert latent_maps(subject, plan, {}, points=True) == ()
    other = {("none", "whitebox-latent"): torch.zeros(4, 3)}
    assert latent_maps(subject, plan, other, points=True) == ()
    assert latent_maps(replace(subject, prior=None), plan, other, points=True) == ()
