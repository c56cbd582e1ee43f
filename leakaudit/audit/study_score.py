"""Scores a human study: precision, recall and Macro-F1 over five choices, and whether it can tell.

Source: re-identification by people as a privacy metric (Macro-F1 over four candidates and none of
them), Crafter, arXiv 2401.07205.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from leakaudit.audit.answers import Matched
from leakaudit.audit.study_key import Key, network_of, work_of
from leakaudit.core.errors import InputError
from leakaudit.core.rng import Rng
from leakaudit.core.study import (
    ACCURACY,
    CHOICES,
    HUMAN,
    MACRO_F1,
    Estimate,
    Study,
    StudyChoice,
    StudyRow,
    StudyStatus,
    StudyUnit,
)
from leakaudit.core.types import Doubt, Result, Score
from leakaudit.maths.intervals import bootstrap_statistic, rate_interval

CHANCE = 1 / len(CHOICES)
"""What guessing gives: every choice is right equally often, and so is "none of them"."""
SEVERAL = 5
"""Participants from whom on they are what the bootstrap draws; before that it draws questions."""
DRAWS = 1000
_NO_POWER, _FEW = "study-no-power", "study-few"


def macro_f1(counts: Tensor) -> float | None:
    """The mean F1 over the choices of a confusion matrix (5, 5), rows right, columns given.

    F1 is ``2 tp / (2 tp + fp + fn)``, so 0 for a choice that was right but never given. A choice
    that was neither is left out of the mean; ``None`` without any answer.
    """
    scores = [f1 for f1 in map(_f1, range(len(CHOICES)), [counts] * len(CHOICES)) if f1 is not None]
    return sum(scores) / len(scores) if scores else None


def _f1(choice: int, counts: Tensor) -> float | None:
    both = float(counts[choice].sum() + counts[:, choice].sum())
    return 2 * float(counts[choice, choice]) / both if both else None


def confusion(right: Tensor, given: Tensor) -> Tensor:
    """Counts (5, 5) of answers: a row for each right choice, a column for each given one."""
    size = len(CHOICES)
    return torch.bincount(right * size + given, minlength=size * size).reshape(size, size)


def score_study(
    answers: Sequence[Matched], keys: Sequence[Key], notes: tuple[str, ...], rng: Rng
) -> Study:
    """The scored study.

    95 % intervals resample participants where there are five or more, else questions with all
    their answers; none is shorter than it would be were all answers independent.
    """
    people = {answer.participant for answer in answers}
    unit: StudyUnit = "participants" if len(people) >= SEVERAL else "questions"
    shown = dict.fromkeys(q.defence for key in keys for q in key.questions)
    labels = sorted(shown, key=lambda label: label != "none")
    parts = {label: [a for a in answers if a.question.defence == label] for label in labels}
    rows = tuple(
        _row(label, part, unit, rng.derive("study", label)) for label, part in parts.items() if part
    )
    status, reason = _power(rows)
    ids = tuple(dict.fromkeys(key.questionnaire for key in keys))
    return Study(len(people), ids, unit, CHANCE, status, reason, rows, notes)


def _row(label: str, answers: list[Matched], unit: StudyUnit, rng: Rng) -> StudyRow:
    right = torch.tensor([CHOICES.index(a.question.right) for a in answers])
    given = torch.tensor([CHOICES.index(a.choice) for a in answers])
    names = [a.participant if unit == "participants" else a.question.id for a in answers]
    groups = torch.tensor([list(dict.fromkeys(names)).index(name) for name in names])
    counts = confusion(right, given)
    accuracy = _share(right == given, groups, rng.derive("accuracy"))
    times = [a.seconds for a in answers if a.seconds is not None]
    return StudyRow(
        label,
        ", ".join(dict.fromkeys(a.question.attack for a in answers)),
        len(answers),
        len({a.question.id for a in answers}),
        _macro(right, given, groups, accuracy, rng.derive("macro")),
        accuracy,
        tuple(_choice(k, right, given, groups, rng.derive("choice", k)) for k in range(5)),
        tuple(tuple(int(n) for n in line) for line in counts),
        round(median(times), 3) if times else None,
    )


def _macro(right: Tensor, given: Tensor, groups: Tensor, accuracy: Estimate, rng: Rng) -> Estimate:
    """Macro-F1, whose interval reaches at least as far to both sides as that of the accuracy."""

    def statistic(rows: Tensor) -> float | None:
        return macro_f1(confusion(right[rows], given[rows]))

    drawn = bootstrap_statistic(statistic, groups, rng.torch(), draws=DRAWS)
    assert accuracy.value is not None and accuracy.low is not None and accuracy.high is not None
    low = min(drawn.low, drawn.value - (accuracy.value - accuracy.low))
    high = max(drawn.high, drawn.value + (accuracy.high - accuracy.value))
    return Estimate(drawn.value, max(0.0, low), min(1.0, high))


def _share(hits: Tensor, groups: Tensor, rng: Rng) -> Estimate:
    """The share of hits with an interval over groups; nothing is known of no answers."""
    if not len(hits):
        return Estimate(None, None, None)
    value = float(hits.double().mean())
    found = rate_interval(hits, groups, rng.torch(), whole=False)
    return Estimate(value, min(value, found.low), max(value, found.high))


def _choice(place: int, right: Tensor, given: Tensor, groups: Tensor, rng: Rng) -> StudyChoice:
    was, chosen, hit = right == place, given == place, right == given
    recall = _share(hit[was], groups[was], rng.derive("recall"))
    precision = _share(hit[chosen], groups[chosen], rng.derive("precision"))
    value = _f1(place, confusion(right, given))
    f1 = Estimate(None, None, None)
    if value is not None:
        f1 = Estimate(value, *_harmonic_ends(precision, recall))
    return StudyChoice(CHOICES[place], int(was.sum()), int(chosen.sum()), precision, recall, f1)


def _harmonic_ends(one: Estimate, other: Estimate) -> tuple[float, float]:
    """The harmonic means of both lows and of both highs; what isn't known lies in [0, 1]."""
    lows = [0.0 if e.low is None else e.low for e in (one, other)]
    highs = [1.0 if e.high is None else e.high for e in (one, other)]
    low, high = (2 * a * b / (a + b) if a + b else 0.0 for a, b in (lows, highs))
    return low, high


def _power(rows: tuple[StudyRow, ...]) -> tuple[StudyStatus, str]:
    """Whether undefended reconstructions were recognised: the study's own positive control."""
    control = next((row.macro_f1 for row in rows if row.defence == "none"), None)
    if control is None or control.value is None or control.low is None or control.high is None:
        return "no-power", "No undefended reconstruction was judged, so the study has no power."
    told = f"Macro-F1 {control.value:.3f}, {control.low:.3f} to {control.high:.3f}"
    if control.low <= CHANCE:
        return "no-power", (
            f"The study has no power: undefended reconstructions weren't recognised better than by "
            f"guessing ({told}; guessing {CHANCE:.3f})."
        )
    return "usable", f"Undefended reconstructions were recognised ({told}; guessing {CHANCE:.3f})."


def with_study(result: Result, study: Study, keys: Sequence[Key]) -> Result:
    """``result`` with the study, its rows among the scores (attack ``human``) and its doubts.

    An earlier study goes. Gates and verdict stay as they are; ``leakaudit gate`` judges anew.
    Raises ``InputError`` where a key belongs to another scan.
    """
    faces = result.subject.get("faces_sha256")
    labels = {score.defence for score in result.scores}
    for key in keys:
        strange = sorted({q.defence for q in key.questions} - labels)
        network = key.network in ("", network_of(result.subject))
        work = key.work in ("", work_of(result.plan, result.subject, result.seed))
        if key.faces_sha256 != faces or strange or not (network and work):
            raise InputError(
                "The key belongs to another scan than the result", where="--key",
                todo="Give the result.json of the run folder that the questionnaire was made from",
            )  # fmt: skip
    scores = [score for score in result.scores if score.attack != HUMAN]
    scores += [_score(study, row, name) for row in study.rows for name in (MACRO_F1, ACCURACY)]
    doubts = [doubt for doubt in result.doubts if doubt.id not in (_NO_POWER, _FEW)]
    return replace(result, study=study, scores=tuple(scores), doubts=(*doubts, *_doubts(study)))


def _score(study: Study, row: StudyRow, metric: str) -> Score:
    found: Estimate = getattr(row, metric)
    units = study.participants if study.unit == "participants" else row.questions
    note = (
        f"{row.answers} answers of {study.participants} participants; intervals over {study.unit}"
    )
    return Score(
        row.defence, HUMAN, "Human", metric, found.value, found.low, found.high, units, "0 to 1",
        "up", floor=study.chance, note=note,
    )  # fmt: skip


def _doubts(study: Study) -> list[Doubt]:
    rows = (("*", HUMAN),)
    raised = []
    if study.status == "no-power":
        raised.append(
            Doubt(
                _NO_POWER, "serious", study.reason.rstrip("."),
                "Who can't recognise undefended faces says nothing of defended ones.",
                "Ask more participants, or keep reconstructions by a stronger attack "
                "(leakaudit study make --attack NAME).", rows,
            )
        )  # fmt: skip
    if study.participants < SEVERAL:
        raised.append(
            Doubt(
                _FEW, "note", f"the study had only {study.participants} participants",
                "Its intervals tell how other faces would fare, not how other people would.",
                f"Ask at least {SEVERAL} participants.", rows,
            )
        )  # fmt: skip
    return raised
