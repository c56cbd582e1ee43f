"""Arguments against our own result: when they are raised, why, and what to do about it.

Here those of the whole run; ``doubts_of_attacks``, ``_defences`` and ``_judges`` hold others.
"""

from __future__ import annotations

from leakaudit.audit import doubts_of_attacks, doubts_of_defences, doubts_of_judges
from leakaudit.audit.facts import CleanChecks, Facts
from leakaudit.audit.floors import Table
from leakaudit.audit.heads import WEAK, WEAK_HEAD, weak_head
from leakaudit.audit.plan import Plan
from leakaudit.audit.worst import members
from leakaudit.core.threats import THREATS, WhiteBox
from leakaudit.core.types import Convergence, Doubt, Score
from leakaudit.models.subject import Subject

__all__ = ["CleanChecks", "Facts", "raised", "relative_change"]

FEW_IMAGES, FEW_PEOPLE = 30, 5
FEW_OF_A_CLASS = 4
"""People with an attribute, or without it, below which the interval of its AUC wasn't tried: from 4
on ``benchmarks/coverage.py`` tells how often it holds."""
UNDER_OPTIMISED = 0.15


def raised(
    subject: Subject,
    plan: Plan,
    scores: tuple[Score, ...],
    convergence: tuple[Convergence, ...],
    facts: Facts,
) -> tuple[Doubt, ...]:
    """All doubts of this run, the serious ones first."""
    table = {(s.defence, s.attack, s.metric): s for s in scores}
    found = [
        *doubts_of_judges.raised(subject, table),
        *_far_below_ceiling(table),
        *_too_few(subject),
        *_blind(facts.checks, plan),
        *_twins(facts.checks),
        *doubts_of_attacks.raised(subject, plan, scores, convergence),
        *doubts_of_defences.raised(subject, plan, scores, convergence, facts),
        *_under_optimised(table),
        *_high_floor(subject, plan, scores),
        *_no_white_box(scores),
        *_weak_head(facts, subject),
        *_few_labels(subject),
        *subject.doubts,
    ]
    return tuple(sorted(found, key=lambda doubt: doubt.severity != "serious"))


def _weak_head(facts: Facts, subject: Subject) -> list[Doubt]:
    """A head that guesses loses nothing; one that was given has been tried on more faces before."""
    told = any(doubt.id == WEAK_HEAD for doubt in subject.doubts)
    if facts.reached is None or facts.reached >= WEAK or told:
        return []
    return [weak_head(facts.reached, "undefended features of the attacked faces")]


def _few_labels(subject: Subject) -> list[Doubt]:
    """Attributes that too few of the attacked people have, or lack; the mean, where most are."""
    faces = subject.faces
    if subject.head is None or faces.attributes is None:
        return []
    counts = {}
    for name, values in zip(faces.attribute_names, faces.attributes.T, strict=True):
        classes = (values > 0.5, values <= 0.5)  # NaN is neither
        counts[name] = min(len(faces.people[chosen].unique()) for chosen in classes)
    told = {name: count for name, count in counts.items() if count}  # the others have no row
    few = {name: count for name, count in told.items() if count < FEW_OF_A_CLASS}
    if not few:
        return []
    most = 2 * len(few) > len(told)
    rows = [f"auc:{name}" for name in few] + (["auc"] if most else [])
    listed = ", ".join(f"{name} {count}" for name, count in few.items())
    return [
        Doubt(
            "few-labels",
            "serious",
            f"fewer than {FEW_OF_A_CLASS} attacked people have an attribute, or lack it",
            f"Of the attacked people the rarer class has few: {listed}. Nothing is known of the "
            f"intervals of such an AUC and its drop{', nor of their mean' if most else ''}.",
            "Attack more people, or leave those attributes out.",
            rows=(("*", "utility"),),
            metrics=tuple(metric + end for metric in rows for end in ("", "_drop")),
        )
    ]


def _far_below_ceiling(table: Table) -> list[Doubt]:
    """An undefended layer that leaks little may be safe, or its attacks too weak: say so."""
    worst = table.get(("none", "worst", "identification"))
    if worst is None or worst.value is None or not worst.ceiling:
        return []
    if worst.value >= 0.5 * worst.ceiling:
        return []
    return [
        Doubt(
            "attack-may-be-weak",
            "note",
            "the worst case on undefended features names less than half of the originals' share",
            f"Undefended features give {worst.value:.0%} of people away, their originals "
            f"{worst.ceiling:.0%}: the layer may hide people, or these attacks are too weak.",
            "Take a stronger preset, more public images or a better prior, and see if it grows.",
        )
    ]


def _too_few(subject: Subject) -> list[Doubt]:
    images, people = len(subject.faces), subject.faces.n_people
    if images >= FEW_IMAGES and people >= FEW_PEOPLE:
        return []
    return [
        Doubt(
            "too-few",
            "serious",
            f"fewer than {FEW_IMAGES} attacked images or {FEW_PEOPLE} people",
            f"{images} images of {people} people were attacked: too few for any limit to be held.",
            "Give more people or pictures.",
        )
    ]


def _blind(checks: CleanChecks, plan: Plan) -> list[Doubt]:
    found = []
    if not checks.features_vary:
        found.append(
            Doubt(
                "constant-feature",
                "serious",
                "the feature is the same for different public pictures",
                "The encoder gives the same feature whatever the picture: either it is broken "
                "(dead layer, wrong weights) or it carries nothing at all.",
                "Check the weights and the layer.",
            )
        )
    if not checks.gradient_ok:
        white = [attack.name for attack in plan.attacks if issubclass(attack.holds, WhiteBox)]
        alone = len(white) == len(plan.attacks)  # nothing attacks without the gradients
        found.append(
            Doubt(
                "zero-gradient",
                "serious",
                "the gradient from feature to picture is zero, NaN, missing or wrong",
                "White-box attacks follow that gradient, and by finite differences it isn't the "
                "encoder's: their failure says nothing.",
                "Let the black-box attacks decide, or give a differentiable form of the encoder.",
                rows=(("*", "*"),) if alone else tuple(("*", name) for name in white),
            )
        )
    return found


def _twins(checks: CleanChecks) -> list[Doubt]:
    if not checks.twins:
        return []
    return [
        Doubt(
            "overlap",
            "serious",
            "an attacked picture has a near-duplicate among the public ones",
            f"{checks.twins} attacked pictures have a near-duplicate among the public images: the "
            "adversary was trained on the answer, and controls are too strong.",
            "Remove the people under audit from --public.",
        )
    ]


def _under_optimised(table: Table) -> list[Doubt]:
    """Pictures of a black box that are named far more often than those of any white box."""
    best: dict[str, tuple[float, str]] = {}
    for (defence, attack, metric), score in table.items():
        kind = attack.partition("-")[0]
        if (defence, metric) == ("none", "identification") and score.value is not None:
            best[kind] = max(best.get(kind, (-1.0, "")), (score.value, attack))
    if "blackbox" not in best or "whitebox" not in best:
        return []
    (black, stronger), (white, weaker) = best["blackbox"], best["whitebox"]
    if black - white <= UNDER_OPTIMISED:
        return []
    names = {a for d, a, _ in table if d == "none" and a.startswith("whitebox-")}
    return [
        Doubt(
            "white-box-weak",
            "note",
            f"a black-box attack names {UNDER_OPTIMISED:.0%} more than all white-box ones",
            f"Knowing more, {weaker} names {white:.0%} of undefended faces, {stronger} {black:.0%}:"
            " the prior or the search limits it.",
            "Read the worst case rather than these rows; a better prior or preset helps.",
            rows=tuple(("none", name) for name in sorted(names)),
        )
    ]


def _high_floor(subject: Subject, plan: Plan, scores: tuple[Score, ...]) -> list[Doubt]:
    gallery = subject.oracle.gallery_size
    guesses = max(len(members(scores, named.label)) for named in plan.defences)
    if gallery >= 20 * guesses:
        return []
    return [
        Doubt(
            "high-floor",
            "note",
            "fewer than 20 names in the gallery for each guess of the worst case",
            f"With {gallery} names and {guesses} guess{'es' if guesses > 1 else ''} a blind "
            "adversary is often right.",
            "Read identification_excess, or enrol more people.",
        )
    ]


def _no_white_box(scores: tuple[Score, ...]) -> list[Doubt]:
    kinds = {THREATS[score.threat] for score in scores if score.threat in THREATS}
    if any(issubclass(kind, WhiteBox) for kind in kinds):
        return []
    return [
        Doubt(
            "no-white-box",
            "note",
            "no white-box attack was run",
            "No attack used the encoder's gradients: the worst case is that of a black box.",
            "Name whitebox-latent in --attacks too (it takes the whole list), and give public "
            "images or a prior.",
        )
    ]


def relative_change(curve: tuple[float, ...]) -> float | None:
    """Relative change of a curve over its last two steps."""
    if len(curve) < 3:
        return None
    return (curve[-3] - curve[-1]) / max(abs(curve[-3]), 1e-12)
