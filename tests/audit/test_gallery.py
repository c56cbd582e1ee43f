"""The gallery: whom it shows, and by which attack."""

from __future__ import annotations

import pytest
import torch

from audit.toy_subject import toy_plan, toy_subject
from leakaudit.audit.gallery import gallery
from leakaudit.core.types import Score

STATIC = ("blackbox-decoder", "whitebox-latent")
ALIKE = (0.1, 0.9, 0.5, 0.3)  # of the four attacked faces
DEFENDED = "gaussian:sigma=0.5"


def rows(defence: str, attack: str, named: tuple[float, ...]) -> tuple[Score, Score]:
    """What a defence and an attack scored on the four faces."""

    def row(metric: str, per_face: tuple[float, ...]) -> Score:
        mean = sum(per_face) / len(per_face)
        return Score(
            defence, attack, "BlackBox", metric, mean, mean, mean, 4, "share", "up",
            per_face=per_face,
        )  # fmt: skip

    return row("identification", named), row("feature_similarity", ALIKE)


@pytest.fixture
def shown(tmp_path):
    """Undefended the latent search names more people, behind noise the decoder does."""
    subject = toy_subject(attacked=4)
    plan = toy_plan(tmp_path, DEFENDED)
    named = {
        ("none", STATIC[0]): (1, 0, 0, 0), ("none", STATIC[1]): (1, 1, 1, 0),
        (DEFENDED, STATIC[0]): (0, 1, 1, 0), (DEFENDED, STATIC[1]): (0, 1, 0, 0),
    }  # fmt: skip
    scores = [s for (defence, attack), hits in named.items() for s in rows(defence, attack, hits)]
    for label in ("none", DEFENDED):
        scores += rows(label, "original", (1, 1, 1, 1))
    made = {pair: torch.full_like(subject.faces.images, k / 8) for k, pair in enumerate(named)}
    return lambda mode: gallery(subject, plan, tuple(scores), made, mode=mode)


def test_each_defence_is_shown_by_the_attack_that_names_most_people_behind_it(shown):
    for row in shown("full"):
        original, *made = row.pictures
        assert (original.role, original.attack) == ("original", "original")
        assert {p.defence: p.attack for p in made} == {"none": STATIC[1], DEFENDED: STATIC[0]}
        assert len({p.png for p in made}) == 2  # each pair's own picture


def test_people_are_chosen_by_the_last_defence(shown):
    assert [row.person for row in shown("full")] == ["person 2", "person 3", "person 1"]
    assert {row.rule for row in shown("full")} == {
        f"{rule} under {DEFENDED}, {STATIC[0]}"
        for rule in ("most alike", "in the middle", "least alike")
    }
    named = [{p.defence: p.named for p in row.pictures[1:]} for row in shown("full")]
    assert named == [
        {"none": True, DEFENDED: True}, {"none": True, DEFENDED: True},
        {"none": True, DEFENDED: False},
    ]  # fmt: skip


def test_modes_show_less(shown):
    assert shown("none") == ()
    hidden = [p for row in shown("redacted") for p in row.pictures]
    assert {p.png for p in hidden} == {None} and {p.named for p in hidden} == {True, False}


def test_without_any_picture_made_there_is_no_gallery(shown, tmp_path):
    subject = toy_subject(attacked=4)
    assert gallery(subject, toy_plan(tmp_path), (), {}, mode="full") == ()
