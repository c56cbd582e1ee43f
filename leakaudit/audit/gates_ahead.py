"""Gates that a plan can't decide, told before any work: names that it surely won't measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from leakaudit.audit import gates
from leakaudit.audit.plan import NamedDefence, Plan
from leakaudit.core.threats import Informed
from leakaudit.metrics import METRICS
from leakaudit.models.subject import Subject

_JUDGED = ("identification", "identification_top5", "feature_similarity")
"""What further judges say, each under a name of his own."""


def warnings(asked: Mapping[str, str], layers: Sequence[tuple[Subject, Plan]]) -> tuple[str, ...]:
    """A sentence for each gate that reads a row which the plan of a layer surely can't give.

    ``asked`` gives readable gates by the text that the user knows them by. A plan is taken to give
    every row that it might, so that nobody is warned in vain: a metric that turns out unavailable
    isn't told here. Where only some layers lack the row, they are named.
    """
    found: dict[str, list[str]] = {}
    given = [list(rows_ahead(subject, plan)) for subject, plan in layers]
    for text, expr in asked.items():
        gate = gates.parse_gate(expr)
        for (subject, plan), rows in zip(layers, given, strict=True):
            for why in _unmeasured(gate, plan, rows):
                told = f"gate '{text}' will end inconclusive: {why}"
                found.setdefault(told, []).append(str(subject.about.get("layer", "?")))
    return tuple(
        told if len(at) == len(layers) else f"at {', '.join(at)}, {told}"
        for told, at in found.items()
    )


def _unmeasured(gate: gates.Gate, plan: Plan, rows: list[gates.Row]) -> tuple[str, ...]:
    """Why rows that the gate reads can't be there among the plan's, each reason once."""
    labels = [named.label for named in plan.defences]
    read = gates.named_rows(gate, rows, labels)
    return tuple(
        dict.fromkeys(
            row.replace(gates.UNMEASURED, "is not in this plan", 1)
            for _, row in read
            if isinstance(row, str)
        )
    )


def rows_ahead(subject: Subject, plan: Plan) -> Iterator[gates.Row]:
    """Every row that the plan might give, without a number."""
    for named in plan.defences:
        for attack in _attacks(named, plan):
            for metric in _metrics(subject, attack):
                yield _row(named, attack, metric)
        for metric in _utility(subject):
            yield _row(named, "utility", metric)


def _row(named: NamedDefence, attack: str, metric: str) -> gates.Row:
    return gates.Row(named.label, attack, metric, None, None, None, 0, None, "up")


def _attacks(named: NamedDefence, plan: Plan) -> list[str]:
    """The rows of attacks on this defence, with controls and what is made of several."""
    run = plan.attacks_on(named)
    counted = [attack for attack in run if attack.holds is not Informed]
    sets = ["worst", "chosen"] if counted else []
    sets += ["worst-static"] if any(not attack.holds.adaptive for attack in counted) else []
    sets += ["worst-adaptive"] if any(attack.holds.adaptive for attack in counted) else []
    originals = ["original"] if named.undefended else []
    controls = [control.name for control in plan.controls]
    return [*originals, *(a.name for a in run), *controls, "control-shuffled", *sets]


def _metrics(subject: Subject, attack: str) -> list[str]:
    names = [*METRICS.names(), "identification_excess", "epsilon_rel"]
    names += [f"{metric}-{judge.short}" for judge in subject.judges for metric in _JUDGED]
    lacking = {"epsilon_pii", "epsilon_rel"} if subject.prior is None else set()
    lacking |= {"identification_excess", "epsilon_rel"} if attack == "original" else set()
    return [name for name in names if name not in lacking]


def _utility(subject: Subject) -> list[str]:
    if subject.head is None or subject.faces.attributes is None:
        return []
    names = ["auc", "accuracy", *(f"auc:{name}" for name in subject.faces.attribute_names)]
    return [f"{name}{drop}" for name in names for drop in ("", "_drop")]
