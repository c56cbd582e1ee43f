"""Reads the answers of participants, CSV files of questionnaires, and matches them with keys."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leakaudit.audit.study_key import Key, KeyedQuestion
from leakaudit.core.errors import InputError
from leakaudit.core.study import CHOICES

COLUMNS = ("questionnaire", "participant", "question", "choice", "seconds")
_TODO = "Give the file as the questionnaire saved it"


@dataclass(frozen=True)
class Answer:
    """One line of a CSV: what a participant chose, and in how many seconds if that is known."""

    questionnaire: str
    participant: str
    question: str
    choice: str
    seconds: float | None


@dataclass(frozen=True)
class Matched:
    """An answer beside the question that it answers."""

    participant: str
    question: KeyedQuestion
    choice: str
    seconds: float | None


def read_answers(path: Path) -> list[Answer]:
    """The answers in this file.

    Raises ``InputError`` that names the line where something is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("The answers are not UTF-8 text", where=str(path), todo=_TODO) from error
    except OSError as error:
        what = f"Can't read the answers: {error.strerror or error}"
        raise InputError(what, where=str(path), todo=_TODO) from error
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        return list(_answers(reader, path))
    except csv.Error as error:
        where = f"{path}, line {reader.line_num}"
        raise InputError(f"This is no CSV: {error}", where=where, todo=_TODO) from error


def _answers(reader: Iterator[list[str]], path: Path) -> Iterator[Answer]:
    head = next(reader, [])
    if tuple(cell.strip() for cell in head) != COLUMNS:
        what = f"The first line must name the columns {','.join(COLUMNS)}"
        raise InputError(what, where=f"{path}, line 1", todo=_TODO)
    for line, row in enumerate(reader, 2):
        if row:
            yield _answer([cell.strip() for cell in row], f"{path}, line {line}")


def _answer(row: list[str], where: str) -> Answer:
    if len(row) != len(COLUMNS):
        what = f"Expected {len(COLUMNS)} cells, found {len(row)}"
        raise InputError(what, where=where, todo=_TODO)
    if not all(row[:3]):
        raise InputError("A questionnaire, participant or question is missing", where=where)
    if row[3] not in CHOICES:
        what = f"'{row[3][:40]}' is none of the choices {', '.join(CHOICES)}"
        raise InputError(what, where=where, todo=_TODO)
    return Answer(row[0], row[1], row[2], row[3], _seconds(row[4], where))


def _seconds(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"'{text[:40]}' is no number of seconds", where=where, todo=_TODO)
    return value


def match(answers: Sequence[Answer], keys: Sequence[Key]) -> tuple[list[Matched], tuple[str, ...]]:
    """The answers that count beside their questions, and notes on those that don't.

    The same answer twice counts once; two answers of one participant that contradict each other
    don't count. Raises ``InputError`` where no answer fits any key.
    """
    known = {(key.questionnaire, q.id): q for key in keys for q in key.questions}
    strange = [a for a in answers if (a.questionnaire, a.question) not in known]
    given: dict[tuple[str, str, str], list[Answer]] = {}
    for answer in answers:
        if (answer.questionnaire, answer.question) in known:
            place = (answer.questionnaire, answer.participant, answer.question)
            given.setdefault(place, []).append(answer)
    twice = [rows for rows in given.values() if len(rows) > 1]
    torn = [rows for rows in twice if len({row.choice for row in rows}) > 1]
    kept = [rows[0] for rows in given.values() if rows not in torn]
    if not kept:
        raise InputError(
            "No answer belongs to the questionnaire of the key", where="--key",
            todo="Give the key.json that was made together with the questionnaire",
        )  # fmt: skip
    missing = _missing(kept, keys)
    notes = [
        _told(len(strange), "to questions that no key knows, left out"),
        _told(
            sum(len(rows) - 1 for rows in twice if rows not in torn), "given twice, counted once"
        ),
        _told(sum(map(len, torn)), "that contradict another one of the same participant, left out"),
        _told(missing, "missing: questions that a participant left out"),
    ]
    return [
        Matched(f"{a.questionnaire}/{a.participant}", known[a.questionnaire, a.question], a.choice,
                a.seconds)
        for a in kept
    ], tuple(note for note in notes if note)  # fmt: skip


def _missing(kept: Sequence[Answer], keys: Sequence[Key]) -> int:
    """Questions without an answer that counts, over all who answered any of their questionnaire."""
    sizes = {key.questionnaire: len(key.questions) for key in keys}
    people = {(answer.questionnaire, answer.participant) for answer in kept}
    return sum(sizes[questionnaire] for questionnaire, _ in people) - len(kept)


def _told(count: int, what: str) -> str:
    return f"{count} answer{'s' if count > 1 else ''} {what}" if count else ""
