"""What a finished search found, for whoever deploys it."""

from __future__ import annotations

from leakaudit.audit.knobs import with_setting
from leakaudit.core.errors import UsageError
from leakaudit.core.registry import parse_spec
from leakaudit.core.specs import is_factory, parse_factory
from leakaudit.core.types import Doubt, Result, Tuning


def _name(spec: str) -> str:
    """What is tuned: a defence's name, or ``file.py:factory`` without folders."""
    if is_factory(spec):
        return parse_factory(spec, what="defence").place
    return spec.partition(":")[0].strip()


def _settings(spec: str) -> set[tuple[str, str]]:
    """The settings of a specification but for the one that is open."""
    if is_factory(spec):
        given = parse_factory(spec, what="defence").shown_settings
    else:
        given = parse_spec(spec, what="defence")[1]
    return {(name, str(value)) for name, value in given.items() if value != "auto"}


def spec_of(result: Result, defence: str | None = None) -> str:
    """The defence with the setting that the search in ``result`` chose.

    ``defence`` as in `search_of`; a user's own must be named, as a result doesn't say in which
    folder it lies.
    """
    return _chosen(search_of(result, defence), defence)


def search_of(result: Result, defence: str | None = None) -> Tuning:
    """The search in ``result`` that chose a setting of ``defence``.

    ``defence`` is the one wanted, by name; the first that was tuned otherwise. Raises UsageError
    where there is none, or where no setting met the targets.
    """
    name = None if defence is None else _name(defence)
    found = [t for t in result.tuning if name in (None, _name(t.spec))]
    if not found:
        what = "no defence was tuned" if name is None else f"{name} was not tuned"
        raise UsageError(f"In this result {what}", todo="Run leakaudit tune")
    tuned = found[0]
    if defence is not None and not _settings(defence) <= _settings(tuned.spec):
        raise UsageError(
            f"The result tuned {tuned.spec}, which has other settings than {defence}",
            todo="Name the defence alone, or tune it with these settings",
        )
    if tuned.status == "undecided" and tuned.label is not None:
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
    return tuned


def chosen_here(search: Result, tuned: Tuning) -> Doubt:
    """What a scan of the faces by which its own setting was chosen has to say of it."""
    targets = " and ".join(tuned.targets)
    return Doubt(
        "tuned-here",
        "note",
        "a setting was chosen on the attacked faces themselves",
        f"A search on these faces chose {tuned.label} for {targets} ({tuned.reason}). It looks a "
        f"little better on them than on others{'' if search.studied(tuned) else _UNREAD}.",
        f"Audit {tuned.label} on other people's pictures.",
        rows=((str(tuned.label), "*"),),
    )


_UNREAD = ", and adversaries who study the defence had no say in the choice"


def untried(search: Result, tuned: Tuning) -> str:
    """What whoever takes the setting from a search is told; empty where the worst case was read."""
    if search.studied(tuned):
        return ""
    targets = " and ".join(tuned.targets)
    return (
        f"{tuned.label} was chosen by {targets}{_UNREAD}. leakaudit scan with --defence "
        f'"{tuned.label}" lets them'
    )


def _chosen(tuned: Tuning, defence: str | None) -> str:
    assert tuned.label is not None and tuned.chosen is not None
    if not is_factory(tuned.spec):
        return tuned.label
    if defence is None:
        raise UsageError(
            f"The result tuned a defence of your own, {_name(tuned.spec)}",
            todo="Say where it lies: --defence FILE.py:FACTORY",
        )
    rest = _settings(tuned.spec) - _settings(defence)
    for key, value in sorted(rest):
        defence = with_setting(defence, key, value)
    return with_setting(defence, tuned.knob, f"{tuned.chosen:g}")
