"""Utility and its paired drop on logits whose numbers are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from toys import ToyHead, normal

from leakaudit.core.rng import Rng
from leakaudit.metrics.utility import accuracy, head_outputs, mean_auc, utility_rows

NAN = math.nan
TRUTH = torch.tensor([[1.0, 0], [1, 1], [0, 0], [0, 1]])
# First attribute: of four pairs of a 1 and a 0 three are in order. Second: all four.
LOGITS = torch.tensor([[0.9, -1.0], [-0.1, 2.0], [0.2, -3.0], [-0.5, 1.0]])


def rows(logits: Tensor, baseline: Tensor, truth: Tensor = TRUTH, people: Tensor | None = None):
    who = torch.arange(len(truth)) if people is None else people
    names = tuple("abcdefg"[: truth.shape[1]])
    found = utility_rows("crafter", logits, baseline, truth, who, names, Rng(1))
    return {row.metric: row for row in found}


def test_auc_and_accuracy_by_hand() -> None:
    assert mean_auc(LOGITS, TRUTH) == pytest.approx((0.75 + 1.0) / 2)
    # Signs: 0.9 right, -0.1 wrong, 0.2 wrong, -0.5 right; the second attribute is all right.
    assert accuracy(LOGITS, TRUTH) == pytest.approx(6 / 8)


def test_the_same_logits_lose_nothing() -> None:
    many = normal(40, 2, seed=1)
    truth = (normal(40, 2, seed=2) > 0).float()
    for row in rows(many, many.clone(), truth).values():
        assert (row.drop, row.drop_low, row.drop_high) == (0.0, 0.0, 0.0)
        assert row.value is not None and row.low is not None and row.high is not None
        assert row.low <= row.value <= row.high


def test_the_drop_is_positive_when_utility_was_lost() -> None:
    truth = (normal(60, 2, seed=2) > 0).float()
    good = 2 * truth - 1 + 0.1 * normal(60, 2, seed=3)
    bad = normal(60, 2, seed=4)
    lost, won = rows(bad, good, truth)["auc"], rows(good, bad, truth)["auc"]
    assert lost.value is not None and lost.drop is not None
    assert lost.drop == pytest.approx(1.0 - lost.value)
    assert lost.drop_low is not None and 0 < lost.drop_low <= lost.drop
    assert won.drop == pytest.approx(-lost.drop)


def test_each_attribute_has_a_row_of_its_own() -> None:
    found = rows(LOGITS, LOGITS)
    assert set(found) == {"auc", "accuracy", "auc:a", "auc:b"}
    assert found["auc:a"].value == 0.75 and found["auc:b"].value == 1.0
    assert all(row.defence == "crafter" and row.n == 4 for row in found.values())


def test_unknown_attributes_are_left_out() -> None:
    truth = TRUTH.clone()
    truth[2, 0] = NAN  # of the first attribute's pairs, those with the 0.2 are gone
    assert mean_auc(LOGITS, truth) == pytest.approx((1.0 + 1.0) / 2)
    assert accuracy(LOGITS, truth) == pytest.approx(6 / 7)
    counts = {name: row.n for name, row in rows(LOGITS, LOGITS, truth).items()}
    assert counts == {"auc": 4, "accuracy": 4, "auc:a": 3, "auc:b": 4}


def test_an_attribute_of_one_class_does_not_count_and_says_so() -> None:
    truth = TRUTH.clone()
    truth[:, 0] = 1
    found = rows(LOGITS, LOGITS, truth)
    assert found["auc"].value == 1.0
    assert found["auc:a"].value is None and found["auc:a"].drop is None
    assert "unavailable" in str(found["auc:a"].note)


def test_nothing_known_is_unavailable() -> None:
    found = rows(LOGITS, LOGITS, torch.full_like(TRUTH, NAN))
    assert all(row.value is None and row.note for row in found.values())
    assert accuracy(LOGITS, torch.full_like(TRUTH, NAN)) is None


def test_people_are_resampled_whole() -> None:
    truth = (normal(60, 1, seed=2) > 0).float()
    noisy = truth + 1.2 * normal(60, 1, seed=3)
    apart = rows(noisy, noisy, truth)["auc"]
    four = rows(
        noisy.repeat_interleave(4, 0), noisy.repeat_interleave(4, 0),
        truth.repeat_interleave(4, 0), torch.arange(60).repeat_interleave(4),
    )["auc"]  # fmt: skip
    assert four.value == pytest.approx(apart.value)
    width = [row.high - row.low for row in (apart, four)]  # type: ignore[operator]
    # Copies of a person's picture tell nothing new; drawn one by one they would halve the width.
    assert width[1] == pytest.approx(width[0], rel=0.3)


def test_head_outputs_are_those_of_the_head_in_any_batch() -> None:
    features = normal(7, 3, 4, 4, seed=5)
    expected = ToyHead()(features)
    for batch in (1, 3, 128):
        torch.testing.assert_close(head_outputs(ToyHead(), features, batch=batch), expected)


def test_a_sample_without_an_error_knows_of_errors() -> None:
    """Classes may happen to be apart: the truth may be worse, the less so the more people."""

    def apart(people: int) -> dict:
        truth = (torch.arange(people) % 2).float()[:, None]
        return rows(2 * truth - 1, 2 * truth - 1 + 0.1 * normal(people, 1, seed=3), truth)

    few, many = apart(20), apart(200)
    for name in ("auc", "accuracy", "auc:a"):
        assert (few[name].value, few[name].high, few[name].drop) == (1.0, 1.0, 0.0)
        assert few[name].low < many[name].low < 1.0
        assert 0.0 < many[name].drop_high < few[name].drop_high
    assert 0.05 < few["auc"].drop_high < 0.2 and many["auc"].drop_high < 0.02


def test_an_interval_rests_on_people_not_on_pictures() -> None:
    truth = (torch.arange(40) % 2).float()[:, None]
    logits = 2 * truth - 1 + 0.9 * normal(40, 1, seed=5)
    before = 2 * truth - 1 + 0.9 * normal(40, 1, seed=6)
    once = rows(logits, before, truth)
    often = rows(
        logits.repeat(5, 1), before.repeat(5, 1), truth.repeat(5, 1), torch.arange(40).repeat(5)
    )
    for name in ("auc", "accuracy"):
        one, many = once[name], often[name]
        assert one.value == pytest.approx(many.value)
        assert one.high - one.low == pytest.approx(many.high - many.low, rel=0.25)
        assert one.drop_high - one.drop_low == pytest.approx(
            many.drop_high - many.drop_low, rel=0.25
        )


@pytest.mark.parametrize("positives, before, after", [(16, 0.995, 0.985), (8, 0.97, 0.9)])
def test_the_drop_lies_under_the_interval_as_often_as_it_is_meant_to(
    positives: int, before: float, after: float
) -> None:
    """Normal scores of 32 people: a bootstrap alone misses above in 15 to 30 % of samples."""
    shift = [math.sqrt(2) * torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(a)).item()
             for a in (before, after)]  # fmt: skip
    missed, times = 0, 60
    for k in range(times):
        truth = (torch.arange(32) < positives).float()[:, None]
        noise = normal(32, 2, seed=100 + k)
        worse = 0.7 * noise[:, :1] + math.sqrt(1 - 0.49) * noise[:, 1:]
        row = rows(truth * shift[1] + worse, truth * shift[0] + noise[:, :1], truth)["auc"]
        missed += row.drop_high < before - after
    assert missed <= 4  # of 60, where 1.5 are meant
