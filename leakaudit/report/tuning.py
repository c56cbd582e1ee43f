"""What a tuning tried, row by row: figures of the targets and what each setting costs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from leakaudit.core.types import Figure, Result, Tried, Tuning, Utility, path_of
from leakaudit.report import figures, view, words

_LIMIT = re.compile(r"[<>]=?\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)(?:@value)?\s*$")
OUTCOMES = {"met": "met", "missed": "can't be met", "undecided": "inconclusive"}


@dataclass(frozen=True)
class Line:
    """One setting that was tried: its figures, its AUC drop, and whether it was chosen."""

    tried: Tried
    auc: Utility | None
    chosen: bool

    @property
    def mark(self) -> str:
        """A word for the chosen one."""
        return "chosen" if self.chosen else ""


def lines(result: Result, tuned: Tuning) -> Iterator[Line]:
    """The settings of one tuning in the order of their size."""
    for tried in tuned.tried:
        yield Line(tried, view.utility(result, tried.label, "auc"), tried.value == tuned.chosen)


def shown(figure: Figure) -> str:
    """The figure with its interval in brackets, in the unit of its metric."""
    metric = metric_of(figure.target)
    value = words.measure(figure.value, metric, "")
    if figure.low is None or figure.high is None:
        return value
    low, high = (words.measure(end, metric, "") for end in (figure.low, figure.high))
    return f"{value} [{low}, {high}]"


def fitted(figure: Figure) -> str:
    """The monotone fit of the figure."""
    return words.measure(figure.fitted, metric_of(figure.target), "")


def dropped(line: Line) -> str:
    """The AUC lost with its interval."""
    if line.auc is None or line.auc.drop is None:
        return words.ABSENT
    span = words.area_span(line.auc.drop_low, line.auc.drop_high)
    return words.area(line.auc.drop) + (f" [{span.replace(' to', ',')}]" if span else "")


def has_fit(tuned: Tuning, index: int) -> bool:
    """Whether the search went by this target, and so fitted its figures."""
    return any(tried.figures[index].fitted is not None for tried in tuned.tried)


def shows_drop(tuned: Tuning) -> bool:
    """Whether the AUC lost needs a column of its own."""
    return not any(path_of(target) == "utility.auc_drop" for target in tuned.targets)


def metric_of(target: str) -> str:
    """The metric that a target names."""
    return path_of(target).rpartition(".")[2]


def limit(tuned: Tuning) -> float | None:
    """The number that the first target bounds; None where the text of a result holds none."""
    found = _LIMIT.search(tuned.targets[0]) if tuned.targets else None
    number = float(found[1]) if found else math.nan
    return number if math.isfinite(number) else None


def is_share(tuned: Tuning) -> bool:
    """Whether the first target's figures are told in per cent."""
    return bool(tuned.targets) and words.is_share(metric_of(tuned.targets[0]), "")


def around(tuned: Tuning) -> str:
    """Between which settings single intervals place the least one, or nothing."""
    told = []
    if tuned.low is not None:
        told.append(f"surely not met at {tuned.low:g}")
    if tuned.high is not None:
        told.append(f"surely met at {tuned.high:g}")
    return ", ".join(told)


def series(result: Result, tuned: Tuning) -> tuple[figures.Point, ...]:
    """The first target's figures over the AUC lost, for the settings where both are known."""
    points = []
    for line in lines(result, tuned):
        figure, auc = next(iter(line.tried.figures), None), line.auc
        if figure is None or figure.value is None or auc is None or auc.drop is None:
            continue
        label = f"{line.tried.value:g}{' (chosen)' if line.chosen else ''}"
        points.append(
            figures.Point(
                label, auc.drop, auc.drop_low, auc.drop_high, figure.value, figure.low, figure.high
            )
        )
    return tuple(points)


def shown_first(result: Result) -> frozenset[str]:
    """The defences of the verdict's band: what was chosen, and ``none``."""
    return frozenset({"none", *(tuned.label or "" for tuned in result.tuning)})


def caution(result: Result) -> str:
    """Why what a search came to is no audit of it; empty where it chose nothing."""
    chosen = [tuned for tuned in result.tuning if tuned.label is not None]
    if not chosen:
        return ""
    unread = not any(result.studied(tuned) for tuned in chosen)
    heard = ", and attacks that study the defence had no say" if unread else ""
    return (
        f"A setting chosen on these faces looks a little better on them than on others{heard}. "
        "Audit it by every attack, on other people if you can."
    )


def next_command(result: Result) -> str | None:
    """The scan that audits the first choice by every attack of the preset."""
    tuned = result.tuning[0]
    if tuned.label is None:
        return None
    return f"leakaudit scan ... --defence {words.clean(tuned.label)}"


def told(tuned: Tuning) -> str:
    """The outcome in one sentence: ``crafter:beta=auto, met: beta=6.2: ...``."""
    around_it = f" ({around(tuned)})" if around(tuned) else ""
    return f"{tuned.spec}, {OUTCOMES[tuned.status]}: {tuned.reason}{around_it}"
