"""The nouns of the human study: what participants are asked, and what their answers came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CHOICES = ("A", "B", "C", "D", "none")
"""The five answers to every question: one of four candidates, or none of them."""

HUMAN, MACRO_F1, ACCURACY = "human", "macro_f1", "accuracy"
"""The attack and the metrics under which a study's rows stand among the scores."""

StudyStatus = Literal["usable", "no-power"]
StudyUnit = Literal["participants", "questions"]


@dataclass(frozen=True)
class Question:
    """One reconstruction and four candidates, as PNGs in ``data:`` URIs; ``id`` tells nothing."""

    id: str
    picture: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Questionnaire:
    """All that a participant is shown; nothing in it says which answers are right."""

    id: str
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Estimate:
    """A share in [0, 1] with its interval; ``None`` where it is defined on no answer."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class StudyChoice:
    """How well participants did on one of the five choices.

    ``right`` counts the answers for which it was right, ``given`` those in which it was chosen.
    Without the first there is no recall, without the second no precision.
    """

    choice: str
    right: int
    given: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class StudyRow:
    """What people recognised behind one defence.

    ``macro_f1`` is the mean F1 over the choices, ``accuracy`` the share of right answers;
    ``confusion`` counts answers, a row for each right choice and a column for each given one, in
    the order of ``CHOICES``; ``seconds`` is the median time an answer took.
    """

    defence: str
    attack: str
    answers: int
    questions: int
    macro_f1: Estimate
    accuracy: Estimate
    choices: tuple[StudyChoice, ...]
    confusion: tuple[tuple[int, ...], ...]
    seconds: float | None = None


@dataclass(frozen=True)
class Study:
    """A scored study; ``unit`` is what the intervals resample.

    ``status`` is ``no-power`` where undefended reconstructions weren't recognised: then the answers
    say nothing of any defence. ``notes`` tell what was missing, doubled or unknown.
    """

    participants: int
    questionnaires: tuple[str, ...]
    unit: StudyUnit
    chance: float
    status: StudyStatus
    reason: str
    rows: tuple[StudyRow, ...]
    notes: tuple[str, ...] = ()

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Study:
        """The study that a result holds (its shape checked before)."""
        rows = tuple(_row(row) for row in data["rows"])
        lists = {key: tuple(data.get(key, ())) for key in ("questionnaires", "notes")}
        return Study(**{**data, **lists, "rows": rows})


def _row(row: Mapping[str, Any]) -> StudyRow:
    choices = tuple(
        StudyChoice(**{**choice, **_estimates(choice, "precision", "recall", "f1")})
        for choice in row["choices"]
    )
    counts = tuple(tuple(line) for line in row["confusion"])
    read = {"choices": choices, "confusion": counts, **_estimates(row, "macro_f1", "accuracy")}
    return StudyRow(**{**row, **read})


def _estimates(row: Mapping[str, Any], *names: str) -> dict[str, Estimate]:
    return {name: Estimate(**row[name]) for name in names}
