"""Arguments against our own result: when they are raised, why, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from leakaudit.audit.plan import Plan
from leakaudit.core.threats import WhiteBox
from leakaudit.core.types import Convergence, Doubt, Score
from leakaudit.models.faces import overlap
from leakaudit.models.subject import Subject

WORST = ("worst", "worst-static", "worst-adaptive", "chosen")
FEW_IMAGES, FEW_PEOPLE = 30, 5
WEAK_ORACLE, NOTABLE_ORACLE = 0.8, 0.9
UNDER_OPTIMISED = 0.15


@dataclass(frozen=True)
class CleanChecks:
    """What is looked at before any attack: gradients, variance of features, twins of pictures."""

    gradient_ok: bool
    features_vary: bool
    twins: int

    @staticmethod
    def of(subject: Subject) -> CleanChecks:
        """Checks on a few public pictures and on all attacked ones."""
        few = subject.public[:8].detach().clone().requires_grad_()
        gradient_ok = True
        try:
            (slope,) = torch.autograd.grad(subject.encoder(few).square().sum(), few)
            gradient_ok = bool(slope.isfinite().all()) and float(slope.abs().max()) > 0
        except RuntimeError:
            gradient_ok = False
        with torch.no_grad():
            features = subject.query(subject.public[:64]).flatten(1)
        spread = float(features.std(0).max()) if len(features) > 1 else 0.0
        vary = spread > 1e-6 * max(1e-12, float(features.abs().mean()))
        return CleanChecks(gradient_ok, vary, len(overlap(subject.faces, subject.public)))


def raised(
    subject: Subject,
    plan: Plan,
    scores: tuple[Score, ...],
    convergence: tuple[Convergence, ...],
    checks: CleanChecks,
) -> tuple[Doubt, ...]:
    """All doubts of this run, the serious ones first."""
    table = {(s.defence, s.attack, s.metric): s for s in scores}
    found = [
        *_no_power(table),
        *_far_below_ceiling(table),
        *_weak_oracle(table),
        *_too_few(subject),
        *_blind(checks, plan),
        *_twins(checks),
        *_not_converged(plan, convergence),
        *_static_only(plan),
        *_under_optimised(table),
        *_high_floor(subject, plan),
        *_rough_hypergradient(plan, convergence),
        *_missing_attacks(subject, plan),
        *subject.doubts,
    ]
    return tuple(sorted(found, key=lambda doubt: doubt.severity != "serious"))


def _no_power(table: dict[tuple[str, str, str], Score]) -> list[Doubt]:
    """The worst case on undefended features must stand clear of every control."""
    worst = table.get(("none", "worst", "identification"))
    controls = [
        score
        for (defence, attack, metric), score in table.items()
        if defence == "none" and attack.startswith("control-") and metric == "identification"
    ]
    highs = [score.high for score in controls if score.high is not None]
    if worst is not None and worst.floor is not None:
        highs.append(worst.floor)  # as many blind guesses as there are attacks
    if worst is None or worst.low is None or not highs or worst.low > max(highs):
        return []
    return [
        Doubt(
            "no-power",
            "serious",
            "the worst case on undefended features doesn't exceed the controls",
            f"The attacks name {worst.value:.0%} (from {worst.low:.0%}) of undefended faces, a "
            f"control up to {max(highs):.0%}: this audit couldn't see a leak if there were one.",
            "Give more public images, a better prior or a stronger preset; if the feature is truly "
            "empty, say so by other means: this tool can't.",
        )
    ]


def _far_below_ceiling(table: dict[tuple[str, str, str], Score]) -> list[Doubt]:
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


def _weak_oracle(table: dict[tuple[str, str, str], Score]) -> list[Doubt]:
    clean = table.get(("none", "original", "identification"))
    if clean is None or clean.value is None or clean.value >= NOTABLE_ORACLE:
        return []
    return [
        Doubt(
            "weak-oracle",
            "serious" if clean.value < WEAK_ORACLE else "note",
            f"the oracle names fewer than {NOTABLE_ORACLE:.0%} of the originals "
            f"(serious below {WEAK_ORACLE:.0%})",
            f"The oracle names only {clean.value:.0%} of the attacked originals, so a "
            "reconstruction that it can't name may still be named by a better judge.",
            "Give more pictures of each person, or a stronger judge with --oracle.",
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
            f"{images} images of {people} people were attacked: intervals are too wide to decide.",
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
        found.append(
            Doubt(
                "zero-gradient",
                "serious",
                "the gradient from feature to picture is zero, NaN or missing",
                "White-box attacks follow that gradient, so their failure says nothing.",
                "Let the black-box attacks decide, or give a differentiable form of the encoder.",
                rows=(("*", "*"),) if _white_only(plan) else (("*", "whitebox-latent"),),
            )
        )
    return found


def _white_only(plan: Plan) -> bool:
    """Whether nothing attacks without the encoder's gradients."""
    return all(issubclass(attack.holds, WhiteBox) for attack in plan.attacks)


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


def _not_converged(plan: Plan, convergence: tuple[Convergence, ...]) -> list[Doubt]:
    late = [row for row in convergence if not row.converged and row.attack != "(defence)"]
    found = []
    for row in late:
        change = "" if row.last_change is None else f" ({row.last_change:+.1%} in the last half)"
        found.append(
            Doubt(
                "not-converged",
                "serious",
                "an attack's loss still falls when its budget ends",
                f"{row.attack} on {row.defence} stopped while its loss still fell{change}: it "
                "may do better with more steps.",
                "Take a stronger preset (--preset standard).",
                rows=((row.defence, row.attack), *((row.defence, worst) for worst in WORST)),
            )
        )
    slow = [row for row in convergence if not row.converged and row.attack == "(defence)"]
    for row in slow:
        found.append(
            Doubt(
                "defence-not-converged",
                "note",
                "the defence's own objective still falls when its steps end",
                f"{row.defence} stopped before its objective settled: the features would change.",
                "Give it more outer_steps.",
                rows=((row.defence, "*"),),
            )
        )
    return found


def _static_only(plan: Plan) -> list[Doubt]:
    defended = [named.label for named in plan.defences if named.defence.name != "none"]
    if not defended or any(attack.holds.adaptive for attack in plan.attacks):
        return []
    return [
        Doubt(
            "static-only",
            "serious",
            "a defence was audited by attacks that don't adapt to it",
            "Only static attacks were run on the defended features. In the literature defences "
            "look safe against a fixed attack and fall to one that was trained on the defence.",
            "Gate worst-static if that is what you mean; 'worst' stays inconclusive without "
            "adaptive attacks.",
            rows=tuple((d, w) for d in defended for w in ("worst", "worst-adaptive", "chosen")),
        )
    ]


def _under_optimised(table: dict[tuple[str, str, str], Score]) -> list[Doubt]:
    black = table.get(("none", "blackbox-decoder", "identification"))
    white = table.get(("none", "whitebox-latent", "identification"))
    if not (black and white) or black.value is None or white.value is None:
        return []
    if black.value - white.value <= UNDER_OPTIMISED:
        return []
    return [
        Doubt(
            "white-box-weak",
            "note",
            f"the black-box attack names {UNDER_OPTIMISED:.0%} more than the white-box one",
            f"Knowing more, the white-box attack names {white.value:.0%}, the black-box one "
            f"{black.value:.0%}: the prior or the search limits it.",
            "Read the worst case rather than this row; a better prior or preset helps.",
            rows=(("none", "whitebox-latent"),),
        )
    ]


def _high_floor(subject: Subject, plan: Plan) -> list[Doubt]:
    gallery, guesses = subject.oracle.gallery_size, len(plan.attacks)
    if gallery >= 20 * guesses:
        return []
    return [
        Doubt(
            "high-floor",
            "note",
            "fewer than 20 names in the gallery for each guess of the worst case",
            f"With {gallery} names and {guesses} guesses a blind adversary is often right.",
            "Read identification_excess, or enrol more people.",
        )
    ]


def _rough_hypergradient(plan: Plan, convergence: tuple[Convergence, ...]) -> list[Doubt]:
    found = []
    for row in convergence:
        note = row.note or ""
        if row.attack != "(defence)" or "hypergradient_residual" not in note:
            continue
        residual = float(note.split("hypergradient_residual ")[1].split(",")[0])
        if not residual <= 0.7:
            found.append(
                Doubt(
                    "rough-hypergradient",
                    "note",
                    "the relative residual of the implicit gradient's solve is above 0.7",
                    f"{row.defence}: residual {residual:.2f}; its direction is damped.",
                    "Give it more solve_steps.",
                    rows=((row.defence, "*"),),
                )
            )
    return found


def _missing_attacks(subject: Subject, plan: Plan) -> list[Doubt]:
    if subject.prior is not None and any(a.name == "whitebox-latent" for a in plan.attacks):
        return []
    return [
        Doubt(
            "no-white-box",
            "note",
            "no white-box attack was run",
            "No attack used the encoder's gradients: the worst case is that of a black box.",
            "Add whitebox-latent to --attacks, and give public images or a prior.",
        )
    ]


def relative_change(curve: tuple[float, ...]) -> float | None:
    """Relative change of a curve over its last two steps."""
    if len(curve) < 3:
        return None
    return (curve[-3] - curve[-1]) / max(abs(curve[-3]), 1e-12)
