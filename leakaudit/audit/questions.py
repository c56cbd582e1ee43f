"""Draws a questionnaire: who is shown, among whom, and where the right answer stands."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from leakaudit.audit.study_file import Kept, Pixels
from leakaudit.audit.study_key import Key, KeyedQuestion
from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.study import CHOICES, Question, Questionnaire

CANDIDATES = len(CHOICES) - 1
LEAST_EACH = len(CHOICES)
"""Questions about each defence, so that every choice is right at least once."""
USUAL = 24
"""Questions of one questionnaire where enough people were kept: about four minutes."""


@dataclass(frozen=True)
class _Drawn:
    """One question in numbers: rows of kept people, and which choice is right."""

    target: int
    candidates: tuple[int, ...]
    right: int


def draw(
    kept: Kept,
    *,
    defences: Sequence[str] = (),
    attack: str | None = None,
    questions: int | None = None,
    seed: int = 0,
) -> tuple[Questionnaire, Key]:
    """A questionnaire and its key; equal for equal ``seed`` and kept pictures.

    Undefended reconstructions are always among the questions: who can't recognise those says
    nothing of defended ones. Each defence gets equally many questions, and behind each defence all
    five choices are right equally often, or as nearly as the number allows. Nobody is the person
    sought in two questions, and candidates are dealt evenly over all questions.
    Raises ``UsageError`` for more questions than kept people, or fewer than five a defence.
    """
    labels = _labels(kept, defences)
    count = _count(kept, labels, questions)
    rng = Rng(seed, ("questionnaire", kept.secret))
    chance = rng.derive("draw").numpy()
    made = {label: kept.best(label, attack) for label in labels}
    shown = np.repeat(np.arange(len(labels)), count // len(labels))
    rights = np.concatenate([_rights(count // len(labels), chance) for _ in labels])
    drawn = _people(len(kept.originals), rights.tolist(), chance)
    ids = [f"{rng.derive('question', place).state:016x}" for place in range(count)]
    asked, keyed = [], []
    for place, turn in enumerate(chance.permutation(count).tolist()):
        row, one = made[labels[shown[turn]]], drawn[turn]
        faces = tuple(data_uri(kept.originals[person]) for person in one.candidates)
        asked.append(Question(ids[place], data_uri(row.pictures[one.target]), faces))
        keyed.append(KeyedQuestion(ids[place], row.defence, row.attack, CHOICES[one.right]))
    name = f"{rng.derive('name').state:016x}"
    return Questionnaire(name, tuple(asked)), Key(
        name, kept.faces_sha256, tuple(keyed), kept.network, kept.work
    )


def _labels(kept: Kept, defences: Sequence[str]) -> list[str]:
    """The undefended row first, then those asked for, or all that were kept."""
    if "none" not in kept.defences:
        raise UsageError("The run kept no undefended reconstructions, which a study needs")
    return list(dict.fromkeys(["none", *(defences or kept.defences)]))


def _count(kept: Kept, labels: list[str], asked: int | None) -> int:
    """A number of questions that all defences share evenly."""
    people = len(kept.originals)
    wanted = min(USUAL, people) if asked is None else asked
    wanted = max(wanted, 0) if asked is not None else max(wanted, LEAST_EACH * len(labels))
    each = wanted // len(labels)
    if each < LEAST_EACH:
        raise UsageError(
            f"Too few questions: each of {len(labels)} rows ({', '.join(labels)}) needs "
            f"{LEAST_EACH}",
            where=f"--questions {asked}",
            todo=f"Ask {LEAST_EACH * len(labels)} or more, or name fewer with --defence",
        )
    if each * len(labels) > people:
        raise UsageError(
            f"{each * len(labels)} questions need as many kept people, and there are {people}",
            where="--questions" if asked is not None else "--defence",
            todo="Ask fewer, name fewer with --defence, or scan with a larger --keep-study",
        )
    return each * len(labels)


def _rights(count: int, chance: np.random.Generator) -> np.ndarray:
    """The right choices of ``count`` questions: each equally often, the remainder drawn."""
    whole = np.tile(np.arange(len(CHOICES)), count // len(CHOICES))
    rest = chance.permutation(len(CHOICES))[: count % len(CHOICES)]
    return chance.permutation(np.concatenate([whole, rest]))


def _people(people: int, rights: list[int], chance: np.random.Generator) -> list[_Drawn]:
    """Who is sought and who is shown in each question.

    Candidates are dealt first, each person as often as any other, and the one sought is drawn among
    them afterwards: so how often or beside whom somebody is shown says nothing of where he is
    sought. A drawing that would seek somebody twice is made again.
    """
    for _ in range(1000):
        hands = _hands(people, len(rights), chance)
        targets = _targets(hands, rights, people, chance)
        if targets is not None:
            return [_seated(*row, chance) for row in zip(targets, hands, rights, strict=True)]
    raise UsageError(
        "No drawing of these questions seeks everybody once", where="--questions",
        todo="Ask fewer, or scan with a larger --keep-study",
    )  # fmt: skip


def _hands(people: int, count: int, chance: np.random.Generator) -> list[list[int]]:
    """Four different people a question, nobody shown more than once more than somebody else."""
    used = np.zeros(people)
    hands = []
    for _ in range(count):
        order = np.lexsort((chance.random(people), used))[:CANDIDATES]
        used[order] += 1
        hands.append(order.tolist())
    return hands


def _targets(
    hands: list[list[int]], rights: list[int], people: int, chance: np.random.Generator
) -> list[int] | None:
    """One person a question, nobody twice: of the hand, or outside of it where none is right."""
    targets = [-1] * len(hands)
    for place in chance.permutation(len(hands)).tolist():
        inside = rights[place] < CANDIDATES
        pool = hands[place] if inside else sorted(set(range(people)) - set(hands[place]))
        free = [person for person in pool if person not in targets]
        if not free:
            return None
        targets[place] = free[int(chance.integers(len(free)))]
    return targets


def _seated(target: int, hand: list[int], right: int, chance: np.random.Generator) -> _Drawn:
    """The hand in its order on the page, the person sought (if there) at the right place."""
    others = chance.permutation([person for person in hand if person != target]).tolist()
    if right < CANDIDATES:
        others.insert(right, target)
    return _Drawn(target, tuple(others), right)


def data_uri(pixels: Pixels) -> str:
    """A picture (H, W, 3) as a PNG without any metadata, in a ``data:`` URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
