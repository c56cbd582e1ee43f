"""Doubts of defences: random, shuffling, made with the attacker's prior, or not done."""

from __future__ import annotations

import torch

from leakaudit.audit.compare import NAMED
from leakaudit.audit.facts import Facts
from leakaudit.audit.plan import NamedDefence, Plan
from leakaudit.audit.worst import WORST, members
from leakaudit.core.rng import Rng
from leakaudit.core.threats import THREATS, WhiteBox
from leakaudit.core.types import Convergence, Doubt, Score
from leakaudit.defences.exchange import LEFT
from leakaudit.maths.intervals import bonferroni, rate_interval
from leakaudit.models.subject import Subject

OFF = 0.15  # from the likeness that is sought, on 64 faces
MOVED = 0.25  # the last move of a price's logarithm: beyond it, likeness hardly answers to a price
MISSED = 0.3
"""Above the .07 to .15 of rendered people, where ``crafter`` costs half of ``crafter-z``; below the
.55 of real faces with a prior of other pictures, where it costs twice as much."""
DEPENDENT = 0.001
"""A p-value below which releases depend on the person: one audit in 1000 is alarmed in vain."""


def raised(
    subject: Subject,
    plan: Plan,
    scores: tuple[Score, ...],
    convergence: tuple[Convergence, ...],
    facts: Facts,
) -> list[Doubt]:
    """All doubts that speak of defences and their rows."""
    found = [*_not_converged(convergence), *_rough_hypergradient(convergence)]
    for named in plan.defences:
        kinds = members(scores, named.label)
        found += [
            *_averaging_not_run(named.label, kinds, plan, facts),
            *_prior_shared(named, kinds, scores),
            *_dependent(named.label, kinds, scores, subject, plan, facts),
            *_moved(named.label, facts),
            *_prior_misses(named, convergence),
            *_off_its_unit(named.label, convergence),
        ]
    return found


def _not_converged(convergence: tuple[Convergence, ...]) -> list[Doubt]:
    found = []
    slow = [row for row in convergence if not row.converged and row.attack == "(defence)"]
    for row in slow:
        found.append(
            Doubt(
                "defence-not-converged",
                "note",
                "the defence's own objective still falls when its steps end",
                f"{row.defence} stopped before its objective settled: the features would change.",
                "Give it more steps (start_steps, outer_steps or steps).",
                rows=((row.defence, "*"),),
            )
        )
    return found


def _averaging_not_run(label: str, kinds: dict[str, bool], plan: Plan, facts: Facts) -> list[Doubt]:
    averaging = {attack.name for attack in plan.attacks if attack.looks() > 1}
    if label not in facts.random or averaging & kinds.keys():
        return []
    return [
        Doubt(
            "averaging-not-run",
            "note",
            "the defence is random, but no attack averaged its releases",
            f"{label} gives another release of the same picture each time: an adversary who gets "
            "several may average the noise away.",
            "Name adaptive-averaging in --attacks too: it takes the whole list.",
            rows=_worst_of(label),
        )
    ]


def _prior_shared(
    named: NamedDefence, kinds: dict[str, bool], scores: tuple[Score, ...]
) -> list[Doubt]:
    threats = {THREATS.get(score.threat) for score in scores if score.defence == named.label}
    searched = any(kind is not None and issubclass(kind, WhiteBox) for kind in threats)
    others = [name for name in kinds if name.startswith("adaptive-generator")]
    if not named.defence.uses_prior or not searched or others:
        return []
    return [
        Doubt(
            "prior-shared",
            "note",
            "the attacks share the defender's prior, and none tried another one",
            f"{named.label} was made against the same prior that the white-box attacks search: "
            "one of another architecture or seed may see what it hides from this one.",
            "Name adaptive-generator in --attacks too: it takes the whole list.",
            rows=_worst_of(named.label),
        )
    ]


def _dependent(
    label: str,
    kinds: dict[str, bool],
    scores: tuple[Score, ...],
    subject: Subject,
    plan: Plan,
    facts: Facts,
) -> list[Doubt]:
    """Releases that tell people apart, though no attack says how."""
    p = facts.dependence.get(label)
    if p is None or not p < DEPENDENT:
        return []
    confidence = bonferroni(len(kinds))
    for score in scores:
        if (score.defence, score.metric) != (label, NAMED) or score.attack not in kinds:
            continue
        if score.per_face is None:
            continue
        hits = torch.tensor(score.per_face) > 0.5
        stream = Rng(plan.seed).derive("dependence", label, score.attack).torch()
        low = rate_interval(hits, subject.faces.people, stream, confidence=confidence).low
        blind = 1 / subject.oracle.gallery_size if score.floor is None else score.floor
        if low > blind:
            return []
    return [
        Doubt(
            "dependence-unexplained",
            "serious",
            "releases of two people differ, but no attack names anybody beyond chance",
            f"Simple statistics of the releases of {label} tell people apart (p = {p:.2g}), though "
            "no attack explains it: what a better attack would make of that isn't known.",
            "Take a stronger preset, or look for what differs: mean, magnitude, rank or norm.",
            rows=(*_worst_of(label), *((label, name) for name in kinds)),
        )
    ]


def _moved(label: str, facts: Facts) -> list[Doubt]:
    if label not in facts.moved:
        return []
    return [
        Doubt(
            "rows-moved",
            "note",
            "the defence gives a batch back in another order",
            f"{label} shuffles a batch, which hides nobody from an adversary who matches releases "
            "back: it was audited with batches of one picture.",
            "Read its numbers as those of one picture at a time.",
            rows=((label, "*"),),
        )
    ]


def _worst_of(label: str) -> tuple[tuple[str, str], ...]:
    return tuple((label, row) for row in WORST)


def _told(row: Convergence, what: str) -> float | None:
    """The number that a defence told under this name with its release."""
    note = row.note or ""
    if row.attack != "(defence)" or f"{what} " not in note:
        return None
    return float(note.split(f"{what} ")[1].split(",")[0])


def _prior_misses(named: NamedDefence, convergence: tuple[Convergence, ...]) -> list[Doubt]:
    kept = getattr(named.defence, "keep", 1.0 if named.defence.name == "crafter" else 0.0)
    told = (_told(row, "unexpressed") for row in convergence if row.defence == named.label)
    missed = max((value for value in told if value is not None), default=0.0)
    if not kept or missed <= MISSED:
        return []
    return [
        Doubt(
            "prior-misses",
            "note",
            "a defence keeps what the prior can't express, and that is more than "
            f"{MISSED:.0%} of a feature's variance",
            f"Of these faces the prior can't express {missed:.0%} of a feature's variance, which "
            f"{named.label} leaves in its releases: much of who it is may lie there.",
            "Compare crafter-z, which drops it (leakaudit tune --defence crafter --defence "
            "crafter-z), or train the prior on faces like these.",
            rows=((named.label, "*"),),
        )
    ]


def _off_its_unit(label: str, convergence: tuple[Convergence, ...]) -> list[Doubt]:
    """Where the search for what a privacy loss is worth ended far from what it sought."""
    rows = [row for row in convergence if row.defence == label]
    left, moved = (
        next((value for row in rows if (value := _told(row, what)) is not None), usual)
        for what, usual in (("likeness_left", LEFT), ("worth_moved", 0.0))
    )
    if abs(left - LEFT) <= OFF and moved <= MOVED:
        return []
    return [
        Doubt(
            "beta-off-its-unit",
            "note",
            "behind this encoder no price was found at which faces of the prior lose half of their "
            "likeness, which is what beta 2 means",
            f"{label}: {left:.0%} of it was left where {LEFT:.0%} was sought, or it hardly "
            "answered to a price, so its beta can't be compared with that of other encoders.",
            "Tune beta here (leakaudit tune), and look at the prior (leakaudit prior train says "
            "whether it collapsed).",
            rows=((label, "*"),),
        )
    ]


def _rough_hypergradient(convergence: tuple[Convergence, ...]) -> list[Doubt]:
    found = []
    for row in convergence:
        residual = _told(row, "hypergradient_residual")
        if residual is not None and not residual <= 0.7:
            found.append(
                Doubt(
                    "rough-hypergradient",
                    "note",
                    "the relative residual of the implicit gradient's solve is above 0.7",
                    f"{row.defence}: residual {residual:.2f}; its direction is damped.",
                    "Give it more solve_steps, or with Neumann's series more terms.",
                    rows=((row.defence, "*"),),
                )
            )
    return found
