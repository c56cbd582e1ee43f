"""A study of seven participants in numbers, and a result that carries it."""

from __future__ import annotations

from dataclasses import replace

from leakaudit.core.study import CHOICES, Estimate, Study, StudyChoice, StudyRow
from leakaudit.core.types import Result, Score


def _row(defence: str, macro: Estimate, accuracy: Estimate) -> StudyRow:
    silent = Estimate(None, None, None)
    choices = tuple(
        StudyChoice(choice, 14, 0 if choice == "D" else 17,
                    silent if choice == "D" else accuracy, accuracy, macro)
        for choice in CHOICES
    )  # fmt: skip
    counts = tuple(tuple(10 if a == b else 1 for b in range(5)) for a in range(5))
    return StudyRow(defence, "blackbox-decoder", 70, 10, macro, accuracy, choices, counts, 6.4)


STUDY = Study(
    7, ("0123456789abcdef",), "participants", 0.2, "usable",
    "Undefended reconstructions were recognised.",
    (
        _row("none", Estimate(0.91, 0.82, 0.97), Estimate(0.92, 0.84, 0.97)),
        _row("crafter:beta=2", Estimate(0.251, 0.18, 0.33), Estimate(0.26, 0.19, 0.34)),
    ),
    ("1 answer given twice, counted once",),
)  # fmt: skip


def with_rows(result: Result) -> Result:
    """``result`` with this study and its rows among the scores."""
    rows = tuple(
        Score(
            row.defence, "human", "Human", name, found.value, found.low, found.high, 7, "0 to 1",
            "up", floor=0.2,
        )
        for row in STUDY.rows
        for name, found in (("macro_f1", row.macro_f1), ("accuracy", row.accuracy))
    )  # fmt: skip
    return replace(result, study=STUDY, scores=(*result.scores, *rows))
