"""Naming people: ranks, ties and cosines by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from toys import toy_faces

from leakaudit.core.rng import Rng
from leakaudit.maths.intervals import wilson
from leakaudit.metrics.base import Evidence
from leakaudit.metrics.identity import (
    FeatureSimilarity,
    IdentificationRate,
    IdentificationTop5,
    named_within,
)
from leakaudit.models.oracle import IdentityOracle

SCORES = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.8, 0.7, 0.6], [0.4, 0.3, 0.2, 0.1]])


def evidence(images: Tensor, people: Tensor) -> Evidence:
    return Evidence("none", "toy", "BlackBox", images, images, people, Rng(1))


@pytest.mark.parametrize(
    ("top", "expected"), [(1, [True, False, False]), (2, [True, False, False]), (4, [True] * 3)]
)
def test_a_person_is_named_within_the_highest_scores(top: int, expected: list[bool]) -> None:
    assert named_within(SCORES, torch.tensor([0, 3, 3]), top).tolist() == expected


def test_the_rank_decides_to_the_place() -> None:
    third = torch.tensor([3, 3, 2])  # ranks 3, 3 and 3
    assert not named_within(SCORES, third, 2).any()
    assert named_within(SCORES, third, 3).all()


def test_a_tie_counts_as_not_named() -> None:
    tied = torch.tensor([[0.5, 0.5, 0.1]])
    assert not named_within(tied, torch.tensor([0]), 1).any()
    assert named_within(tied, torch.tensor([0]), 2).all()
    same = torch.zeros(3, 4)
    assert not named_within(same, torch.tensor([0, 1, 2]), 3).any()


def test_rates_are_counted_and_have_wilson_intervals_with_one_picture_a_person() -> None:
    faces = toy_faces()
    mixed = faces.images.clone()
    mixed[:3] = faces.images[[1, 2, 0]]  # three people wear the faces of others
    found = IdentificationRate(faces.oracle)(evidence(mixed, faces.people))
    interval = wilson(5, 8)
    assert (found.value, found.low, found.high) == (interval.value, interval.low, interval.high)
    assert found.per_face == (0, 0, 0, 1, 1, 1, 1, 1)
    five = IdentificationTop5(faces.oracle)(evidence(mixed, faces.people))
    assert five.value is not None and five.value >= 5 / 8


def test_top_five_asks_for_five_names() -> None:
    # Each picture is a unit vector; enrolment means are the axes, so scores are its entries.
    axes = torch.eye(8)
    oracle = IdentityOracle(lambda x: x.flatten(1), axes, torch.arange(8), name="axes")
    picture = torch.tensor([8.0, 7, 6, 5, 4, 3, 2, 1]).expand(8, 8)
    found = IdentificationTop5(oracle)(evidence(picture, torch.arange(8)))
    assert found.per_face == (1, 1, 1, 1, 1, 0, 0, 0)
    assert IdentificationRate(oracle)(evidence(picture, torch.arange(8))).value == 1 / 8


def test_feature_similarity_is_the_mean_cosine() -> None:
    axes = torch.eye(2)
    oracle = IdentityOracle(lambda x: x.flatten(1), axes, torch.arange(2), name="axes")
    row = evidence(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.arange(2))
    made = torch.tensor([[3.0, 3.0], [0.0, -1.0]])
    found = FeatureSimilarity(oracle)(dataclasses.replace(row, reconstructions=made))
    assert found.per_face == pytest.approx((0.5**0.5, -1.0), abs=1e-6)
    assert found.value == pytest.approx((0.5**0.5 - 1) / 2, abs=1e-6)
