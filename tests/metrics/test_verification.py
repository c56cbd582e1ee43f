"""Verification by known answers: thresholds by hand, planted impostors, and what counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.audit.floors import Floors
from leakaudit.core.rng import Rng
from leakaudit.metrics.base import Evidence
from leakaudit.metrics.verification import Verification
from leakaudit.models.oracle import IdentityOracle
from leakaudit.models.verification import Comparisons, Verifier, threshold_at


def pictures(vectors: Tensor) -> Tensor:
    """Pictures whose first pixels are these vectors."""
    images = torch.zeros(len(vectors), 3, 8, 8)
    images.flatten(1)[:, : vectors.shape[1]] = vectors
    return images


def oracle(vectors: Tensor, people: Tensor) -> IdentityOracle:
    """Sees the vectors again."""
    return IdentityOracle(
        lambda x: x.flatten(1)[:, : vectors.shape[1]], pictures(vectors), people, name="planted"
    )


def crowd(people: int, each: int, *, seed: int = 0, width: int = 32) -> tuple[Tensor, Tensor]:
    """Unit vectors (people * each, width) that lie near one of each person's own."""
    draw = torch.Generator().manual_seed(seed)
    centre = torch.randn(people, width, generator=draw).repeat_interleave(each, 0)
    noise = 0.3 * torch.randn(people * each, width, generator=draw)
    return fn.normalize(centre + noise, dim=1), torch.arange(people).repeat_interleave(each)


def evidence(vectors: Tensor, people: Tensor, **changed) -> Evidence:
    images = pictures(vectors)
    row = {"defence": "none", "attack": "toy", "threat": "BlackBox", "people": people}
    row |= {"originals": images, "reconstructions": images, "rng": Rng(0)}
    return Evidence(**{**row, **changed})


def test_the_threshold_leaves_one_of_a_hundred_above() -> None:
    cosines = torch.arange(200) / 200.0
    found = threshold_at(cosines[torch.randperm(200)], 0.01)
    assert found == pytest.approx(197 / 200) and int((cosines > found).sum()) == 2
    assert threshold_at(cosines[:100], 0.01) == pytest.approx(98 / 200)
    assert threshold_at(cosines[:99], 0.01) is None


def test_ties_at_the_threshold_do_not_match() -> None:
    assert threshold_at(torch.ones(200), 0.01) == 1.0


def test_strangers_match_at_the_stated_rate() -> None:
    vectors, people = crowd(40, 4)
    metric = Verification(oracle(vectors, people))
    strangers = fn.normalize(torch.randn(4000, 32, generator=Rng(1).torch()), dim=1)
    score = metric(evidence(strangers, torch.arange(4000) % 40))
    assert score.value == pytest.approx(0.01, abs=0.006)


def test_pictures_of_the_person_match_and_those_of_another_do_not() -> None:
    vectors, people = crowd(20, 4)
    enrolled = torch.arange(80) % 4 > 0
    metric = Verification(oracle(vectors[enrolled], people[enrolled]))
    own = metric(evidence(vectors[~enrolled], people[~enrolled]))
    other = metric(evidence(vectors[~enrolled], people[~enrolled].roll(1)))
    assert own.value == 1 and own.per_face == (1.0,) * 20
    assert other.value is not None and other.value <= 0.1


def test_the_rate_by_hand() -> None:
    """Two of three reconstructions lie beside their person's mean, one beside another's."""
    vectors = torch.eye(12).repeat_interleave(10, 0)
    people = torch.arange(12).repeat_interleave(10)
    metric = Verification(oracle(vectors, people))
    made = fn.normalize(torch.eye(12)[[0, 1, 5]] + 0.1 * torch.eye(12)[[3, 3, 2]], dim=1)
    score = metric(evidence(made, torch.tensor([0, 1, 2])))
    assert metric.verifier.threshold == 0 and metric.verifier.compared == 120 * 11
    assert score.per_face == (1.0, 1.0, 1.0)  # .0995 to person 2's mean lies above a threshold of 0
    made[2] = torch.eye(12)[5]
    assert metric(evidence(made, torch.tensor([0, 1, 2]))).per_face == (1.0, 1.0, 0.0)


def test_too_few_comparisons_are_said_and_no_number_is_given() -> None:
    vectors, people = crowd(4, 3)
    score = Verification(oracle(vectors, people))(evidence(vectors, people))
    assert score.value is None and score.note is not None
    assert "unavailable: 36 comparisons" in score.note


def test_names_without_an_embedding_are_said() -> None:
    vectors, people = crowd(20, 3)
    metric = Verification(oracle(vectors, people))
    row = evidence(vectors, people, reconstructions=None, scores=torch.zeros(60, 20))
    assert metric(row).value is None and "embedding" in str(metric(row).note)
    row = evidence(vectors, people, reconstructions=None, embeddings=vectors)
    assert metric(row).value == 1


def test_the_originals_row_tells_threshold_and_rate() -> None:
    vectors, people = crowd(20, 3)
    metric = Verification(oracle(vectors, people))
    assert "false-match rate 1%" in str(metric(evidence(vectors, people, attack="original")).note)
    assert metric(evidence(vectors, people)).note is None


def test_given_pairs_say_which_picture_a_face_is_compared_with() -> None:
    vectors, people = crowd(20, 3)
    vectors[1] = -vectors[0]  # person 0's partner looks like nobody
    judge = oracle(vectors, people)
    partners = torch.arange(20) * 3 + 1
    given = Comparisons(partners, torch.zeros(0, 2, dtype=torch.long))
    score = Verification(judge, given)(evidence(vectors[::3], torch.arange(20)))
    assert score.per_face == (0.0, *(1.0,) * 19)
    assert Verification(judge)(evidence(vectors[:1], torch.tensor([0]))).value in (0, 1)


def test_given_pairs_of_two_people_set_the_threshold_where_they_are_enough() -> None:
    vectors, people = crowd(20, 3)
    judge, draw = oracle(vectors, people), Rng(2).torch()
    ahead = torch.randint(60, (400, 2), generator=draw)
    two = ahead[people[ahead[:, 0]] != people[ahead[:, 1]]]
    given = Verifier.of(judge, Comparisons(torch.arange(20) * 3, two))
    assert given.compared == len(two) and given.threshold is not None
    cosines = (vectors[two[:, 0]] * vectors[two[:, 1]]).sum(1)
    assert float((cosines > given.threshold).float().mean()) <= 0.01
    few = Verifier.of(judge, Comparisons(torch.arange(20) * 3, two[:50]))
    assert few.compared == 60 * 19


def test_a_person_without_a_reference_never_matches() -> None:
    vectors, people = crowd(20, 3)
    given = Comparisons(torch.arange(1, 20) * 3, torch.zeros(0, 2, dtype=torch.long))
    score = Verification(oracle(vectors, people), given)(evidence(vectors[:1], torch.tensor([0])))
    assert score.value == 0


def test_the_floor_is_how_often_blind_faces_match_and_grows_with_the_guesses() -> None:
    """A prior that draws person 0's face every other time."""
    vectors, people = crowd(20, 3)
    judge = oracle(vectors, people)

    class Prior:
        def sample(self, count: int, rng: Rng) -> Tensor:
            drawn = fn.normalize(torch.randn(count, 32, generator=rng.torch()), dim=1)
            drawn[::2] = vectors[0]
            return pictures(drawn)

    subject = SimpleNamespace(
        prior=Prior(), oracle=judge, comparisons=None, judges=(),
        faces=SimpleNamespace(people=torch.tensor([0])),
    )  # fmt: skip
    floors = Floors(subject, Rng(0))  # type: ignore[arg-type]
    one, three = floors.of("verification", 1), floors.of("verification", 3)
    assert one == pytest.approx(0.505, abs=0.02)
    assert three == pytest.approx(1 - (1 - float(one or 0)) ** 3)
