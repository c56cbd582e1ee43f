"""Range checks for the fields of configuration: said at the door, as a usage error."""

from __future__ import annotations

import math

from leakaudit.core.errors import UsageError


def at_least(owner: str, low: float, **values: float) -> None:
    """Each named value must be finite and at least ``low``; UsageError names the one that isn't."""
    for name, value in values.items():
        if not math.isfinite(value) or value < low:
            raise UsageError(f"{owner}: {name} must be {low:g} or more, not {value:g}")


def above_zero(owner: str, **values: float) -> None:
    """Each named value must be finite and positive; UsageError names the one that isn't."""
    for name, value in values.items():
        if not math.isfinite(value) or value <= 0:
            raise UsageError(f"{owner}: {name} must be above 0, not {value:g}")
