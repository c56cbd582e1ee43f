"""What a finished search found, for whoever deploys it."""

from __future__ import annotations

from leakaudit.core.errors import UsageError
from leakaudit.core.registry import parse_spec
from leakaudit.core.types import Result


def _settings(spec: str) -> set[tuple[str, str]]:
    """The settings of a specification but for the one that is open."""
    settings = parse_spec(spec, what="defence")[1]
    return {(name, value) for name, value in settings.items() if value != "auto"}


def spec_of(result: Result, defence: str | None = None) -> str:
    """The defence with the setting that the search in ``result`` chose.

    ``defence`` is the one wanted, by name; the first that was tuned otherwise. Raises UsageError
    where there is none, or where no setting met the targets.
    """
    name = None if defence is None else defence.partition(":")[0].strip()
    found = [t for t in result.tuning if name in (None, t.spec.partition(":")[0])]
    if not found:
        what = "no defence was tuned" if name is None else f"{name} was not tuned"
        raise UsageError(f"In this result {what}", todo="Run leakaudit tune")
    tuned = found[0]
    if defence is not None and not _settings(defence) <= _settings(tuned.spec):
        raise UsageError(
            f"The result tuned {tuned.spec}, which has other settings than {defence}",
            todo="Name the defence alone, or tune it with these settings",
        )
    if tuned.status == "undecided":
        raise UsageError(
            f"The search for {tuned.spec} came to {tuned.label}, but doubts bear on what it "
            f"measured there",
            todo="Mend what the result's doubts name and tune again, or say a number",
        )
    if tuned.status != "met" or tuned.label is None:
        raise UsageError(
            f"The search for {tuned.spec} ended without a setting to rely on: {tuned.reason}",
            todo="Ask for less by --target, or say a number",
        )
    return tuned.label
