"""Rendered people: attributes drawn balanced, identities apart, pictures that are pictures."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.demo.people import (
    ATTRIBUTES,
    IDENTITY_PARAMETERS,
    PICTURE_PARAMETERS,
    attributes_of,
    draw_people,
    draw_pictures,
    portraits,
    render,
)

SMALL = 24


def extremes(seed: int, count: int = 12) -> tuple[Tensor, Tensor]:
    """Identities and circumstances whose parameters all lie at the ends of their ranges."""
    generator = Rng(seed).torch()
    people = (torch.rand(count, len(IDENTITY_PARAMETERS), generator=generator) < 0.5).float()
    pictures = (torch.rand(count, len(PICTURE_PARAMETERS), generator=generator) < 0.5).float()
    for column, name in enumerate(PICTURE_PARAMETERS[:6]):
        if name not in ("mouth_open", "glasses"):
            pictures[:, column] = 2 * pictures[:, column] - 1
    return people, pictures


def test_every_attribute_is_balanced() -> None:
    count = 4000
    share = attributes_of(draw_people(count, Rng(1)), draw_pictures(count, Rng(2))).mean(0)
    assert share.shape == (len(ATTRIBUTES),)
    # Four standard errors of a fair coin.
    assert float((share - 0.5).abs().max()) < 4 * 0.5 / math.sqrt(count)


def test_attributes_of_pictures_are_independent_of_each_other_and_of_the_person() -> None:
    count = 4000
    people, pictures = draw_people(count, Rng(1)), draw_pictures(count, Rng(2))
    together = torch.cat([attributes_of(people, pictures), people], dim=1)
    related = torch.corrcoef(together.T) - torch.eye(together.shape[1])
    related[6, 7 + IDENTITY_PARAMETERS.index("beard")] = 0  # the one attribute of the person
    related[7 + IDENTITY_PARAMETERS.index("beard"), 6] = 0
    assert float(related.abs().max()) < 5 / math.sqrt(count)


def test_circumstances_keep_a_margin_to_the_threshold_of_their_attribute() -> None:
    pictures = draw_pictures(500, Rng(1))
    smile, opened, glasses, *rest = pictures[:, :6].unbind(1)
    assert float(smile.abs().min()) >= 0.3
    assert not bool(((opened > 0.1) & (opened < 0.3)).any())
    assert set(glasses.tolist()) == {0.0, 1.0}
    assert all(float(column.abs().min()) >= 0.3 for column in rest)
    assert float(pictures[:, 6:].min()) >= 0 and float(pictures[:, 6:].max()) <= 1


def test_identities_of_different_streams_share_nobody() -> None:
    a, b = draw_people(300, Rng(0).derive("public")), draw_people(300, Rng(0).derive("private", 1))
    assert float(torch.cdist(a, b).min()) > 0.5
    apart = torch.cdist(a, a) + 10 * torch.eye(300)
    assert float(apart.min()) > 0.5
    assert float(a.min()) >= 0 and float(a.max()) <= 1


def test_pictures_are_finite_and_within_0_and_1() -> None:
    images = render(draw_people(16, Rng(1)), draw_pictures(16, Rng(2)), size=SMALL)
    assert images.shape == (16, 3, SMALL, SMALL) and images.dtype == torch.float32
    assert bool(images.isfinite().all())
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert float(images.flatten(1).std(1).min()) > 0.05  # there is something to see


@pytest.mark.parametrize("seed", range(3))
def test_the_ends_of_all_ranges_are_pictures_too(seed: int) -> None:
    images = render(*extremes(seed), size=SMALL)
    assert bool(images.isfinite().all())
    assert float(images.min()) >= 0 and float(images.max()) <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_zeros_and_all_ones_are_pictures(value: float) -> None:
    people = torch.full((1, len(IDENTITY_PARAMETERS)), value)
    pictures = torch.full((1, len(PICTURE_PARAMETERS)), value)
    assert bool(render(people, pictures, size=SMALL).isfinite().all())


def test_same_seed_same_picture_and_another_seed_another() -> None:
    people = draw_people(2, Rng(1))
    first, again, other = (portraits(people, 2, Rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.attributes, again.attributes)
    assert not torch.equal(first.images, other.images)


def test_portraits_come_person_by_person_with_their_attributes() -> None:
    people = draw_people(3, Rng(1))
    found = portraits(people, 2, Rng(2), batch=4)
    assert found.images.shape == (6, 3, 64, 64)
    assert found.people.tolist() == [0, 0, 1, 1, 2, 2]
    expected = attributes_of(people.repeat_interleave(2, 0), draw_pictures(6, Rng(2)))
    assert torch.equal(found.attributes, expected)
    beard = (people[:, IDENTITY_PARAMETERS.index("beard")] > 0.5).float()
    assert torch.equal(found.attributes[:, -1], beard.repeat_interleave(2))
    whole = portraits(people, 2, Rng(2), batch=256)
    torch.testing.assert_close(found.images, whole.images, rtol=0, atol=1e-6)


def test_every_identity_parameter_can_be_seen() -> None:
    people = torch.full((1, len(IDENTITY_PARAMETERS)), 0.5)
    people[:, IDENTITY_PARAMETERS.index("mole")] = 0.9  # a place is only seen of a mole that is
    pictures = torch.full((1, len(PICTURE_PARAMETERS)), 0.5)
    pictures[:, :6] = 0
    for column, name in enumerate(IDENTITY_PARAMETERS):
        ends = people.repeat(2, 1)
        ends[:, column] = torch.tensor([0.0, 1.0])
        low, high = render(ends, pictures.repeat(2, 1), size=48)
        assert float((low - high).abs().max()) > 0.02, name


def test_every_attribute_of_the_picture_can_be_seen() -> None:
    people = torch.full((2, len(IDENTITY_PARAMETERS)), 0.5)
    for column in range(6):
        pictures = torch.full((2, len(PICTURE_PARAMETERS)), 0.5)
        pictures[:, :6] = 0
        pictures[:, column] = torch.tensor([0.0 if column in (1, 2) else -0.5, 0.8])
        low, high = render(people, pictures, size=48)
        assert float((low - high).abs().max()) > 0.05, PICTURE_PARAMETERS[column]
        assert bool(
            (attributes_of(people, pictures)[0] != attributes_of(people, pictures)[1]).any()
        )
