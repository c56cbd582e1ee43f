"""Doubts of attacks: those that stopped early, were not run, or fall behind simpler ones."""

from __future__ import annotations

import torch

from leakaudit.attacks import ATTACKS
from leakaudit.audit.compare import NAMED, false_security
from leakaudit.audit.gates import ABOVE
from leakaudit.audit.plan import Plan
from leakaudit.audit.worst import members
from leakaudit.core.rng import Rng
from leakaudit.core.types import Convergence, Doubt, Score
from leakaudit.maths.intervals import bonferroni, paired_rate_difference
from leakaudit.models.subject import Subject

FEW_QUERIES = 100
SIBLINGS = {
    "adaptive-decoder": "blackbox-decoder",
    "adaptive-ridge": "blackbox-ridge",
    "adaptive-linkage": "linkage",
}
"""Adaptive attacks that keep the guess of this static one among their candidates."""


def raised(
    subject: Subject,
    plan: Plan,
    scores: tuple[Score, ...],
    convergence: tuple[Convergence, ...],
) -> list[Doubt]:
    """All doubts that speak of attacks and their rows."""
    found = _not_converged(convergence, scores)
    for named in plan.defences:
        if named.undefended:
            continue
        kinds = members(scores, named.label)
        found += [
            *_static_only(named.label, kinds, scores),
            *_adaptive_weaker(named.label, scores, subject, plan),
            *_sibling_weaker(named.label, kinds, scores, subject, plan),
            *_few_queries(named.label, kinds, convergence, plan),
        ]
    return found


def _not_converged(convergence: tuple[Convergence, ...], scores: tuple[Score, ...]) -> list[Doubt]:
    late = [row for row in convergence if not row.converged and row.attack != "(defence)"]
    found = []
    for attack in dict.fromkeys(row.attack for row in late):
        own = [row for row in late if row.attack == attack]
        where = ", ".join(
            row.defence
            + ("" if row.last_change is None else f" ({row.last_change:+.1%} in the last half)")
            for row in own
        )
        bears = [pair for row in own for pair in _with_worst(row.defence, attack, scores)]
        found.append(
            Doubt(
                "not-converged",
                "serious",
                "an attack's loss still falls when its budget ends",
                f"{attack} stopped while its loss still fell on {where}: it may do better with "
                "more steps.",
                "Take a stronger preset (--preset standard).",
                rows=tuple(bears),
            )
        )
    return found


def _with_worst(
    defence: str, attack: str, scores: tuple[Score, ...]
) -> tuple[tuple[str, str], ...]:
    """The row of this attack, and the rows that it would change if it were stronger."""
    adaptive = members(scores, defence).get(attack)
    if adaptive is None:  # it counts in no worst case
        return ((defence, attack),)
    kind = "worst-adaptive" if adaptive else "worst-static"
    return tuple((defence, row) for row in (attack, "worst", kind, "chosen"))


def _static_only(label: str, kinds: dict[str, bool], scores: tuple[Score, ...]) -> list[Doubt]:
    """Somebody else's adaptive attack alone adapts to nothing that is known, unless it names."""
    adaptive = [name for name, adapts in kinds.items() if adapts]
    known = {attack.name for attack in ATTACKS}
    if known.intersection(adaptive) or any(_names_somebody(name, scores) for name in adaptive):
        return []
    alone = f", and {', '.join(adaptive)}, which named nobody," if adaptive else ""
    return [
        Doubt(
            "static-only",
            "serious",
            "a defence was audited by attacks that don't adapt to it",
            f"Only static attacks{alone} were run on {label}. In the literature defences look safe "
            "against a fixed attack and fall to one that was trained on the defence.",
            "Add adaptive attacks, or gate worst-static if that is what you mean; 'worst' stays "
            "inconclusive without adaptive attacks.",
            rows=tuple((label, row) for row in ("worst", "worst-adaptive", "chosen")),
        )
    ]


def _names_somebody(attack: str, scores: tuple[Score, ...]) -> bool:
    """Whether it names more people than chance does behind any defence: it isn't broken."""
    own = (s for s in scores if (s.attack, s.metric) == (attack, NAMED))
    return any(s.low is not None and s.low > (s.floor or 0.0) for s in own)


def _adaptive_weaker(
    label: str, scores: tuple[Score, ...], subject: Subject, plan: Plan
) -> list[Doubt]:
    """Whoever gates ``worst-adaptive`` would read too little: static attacks name more."""
    gaps = false_security(scores, subject.faces.people, Rng(plan.seed), [label])
    known = {gap.metric: gap for gap in gaps}
    gap = known.get(ABOVE, known.get(NAMED))  # excess, as one may have more guesses
    if gap is None or gap.high is None or gap.high >= 0:
        return []
    above = f", {gap.difference:+.0%} above their floors" if gap.metric == ABOVE else ""
    return [
        Doubt(
            "adaptive-weaker",
            "serious",
            "attacks that studied the defence name fewer faces than those that ignored it",
            f"{label}: all adaptive attacks together name {known[NAMED].difference:+.0%} of the "
            f"faces against all static ones{above}, beyond the paired interval. Some adaptive "
            "attack is missing or broken, and false security can't be told.",
            "Run the adaptive form of each static attack, with more queries; read 'worst', which "
            "holds both.",
            rows=((label, "worst-adaptive"),),
        )
    ]


def _sibling_weaker(
    label: str, kinds: dict[str, bool], scores: tuple[Score, ...], subject: Subject, plan: Plan
) -> list[Doubt]:
    """An adaptive attack may fall behind the static one that it started from by chance only."""
    faces = {s.attack: s.per_face for s in scores if (s.defence, s.metric) == (label, NAMED)}
    pairs = [
        (adaptive, static)
        for adaptive, static in SIBLINGS.items()
        if adaptive in kinds and static in kinds and faces[adaptive] and faces[static]
    ]
    found = []
    for adaptive, static in pairs:
        gap = paired_rate_difference(
            torch.tensor(faces[adaptive]) > 0.5, torch.tensor(faces[static]) > 0.5,
            subject.faces.people, Rng(plan.seed).derive("sibling", label, adaptive).torch(),
            confidence=bonferroni(len(pairs)),
        )  # fmt: skip
        if gap.high >= 0:
            continue
        found.append(
            Doubt(
                "adaptive-broken",
                "serious",
                "an adaptive attack names fewer faces than the static one that it started from",
                f"{adaptive} names {gap.value:+.0%} of the faces behind {label} against {static}, "
                "beyond the paired interval: what it learnt of the defence made it worse.",
                "Give it more queries or a stronger preset.",
                rows=_with_worst(label, adaptive, scores),
            )
        )
    return found


def _few_queries(
    label: str, kinds: dict[str, bool], convergence: tuple[Convergence, ...], plan: Plan
) -> list[Doubt]:
    """Adaptive attacks that hardly saw the defence."""
    releases = {attack.name: attack.queries_ahead().releases for attack in plan.attacks}
    asked = {
        row.attack: row.queries // max(1, releases.get(row.attack, 1))
        for row in convergence
        if row.defence == label and kinds.get(row.attack)
    }
    few = {name: count for name, count in asked.items() if count < FEW_QUERIES}
    if not few:
        return []
    return [
        Doubt(
            "few-queries",
            "note",
            f"an adaptive attack sent fewer than {FEW_QUERIES} pictures through the defence",
            f"{', '.join(few)} learnt {label} from {max(few.values())} of the adversary's own "
            "pictures or fewer: with more they may do better.",
            "Give them more queries, and more public images if those are few.",
            rows=tuple((label, row) for row in (*few, "worst-adaptive", "worst")),
        )
    ]
