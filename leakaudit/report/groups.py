"""Rows of the tables in the groups in which they are read: by what the adversary knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leakaudit.core.threats import THREATS, Informed
from leakaudit.core.types import Result, Score
from leakaudit.report import view

_GROUPS = {
    "worst": ("Worst case", "all attacks together"),
    "static": ("Attacks that ignore the defence", "made on undefended features"),
    "adaptive": ("Attacks that studied the defence", "made on its releases of public pictures"),
    "informed": ("With the people's other pictures", "counted in no worst case"),
    "floor": ("Floor", "controls: adversaries without the person's feature"),
    "ceiling": ("Ceiling", "the best that any attack could do"),
}


SINGLE = ("static", "adaptive", "informed")
"""Groups of single attacks, which have one guess a face."""

_WORST = {name: rank for rank, name in enumerate(view.WORST)}


@dataclass(frozen=True)
class AttackGroup:
    """Rows of the table that are read together."""

    id: str
    title: str
    plain: str
    attacks: tuple[str, ...]


def attack_groups(result: Result) -> tuple[AttackGroup, ...]:
    """Worst cases first, then attacks by what they know, floor and ceiling; none that is empty."""
    names = view.attacks(result)
    threats = {score.attack: score.threat for score in result.scores}
    groups: dict[str, list[str]] = {key: [] for key in _GROUPS}
    for name in sorted(names, key=lambda name: _WORST.get(name, 0)):
        groups[_group(name, threats[name])].append(name)
    return tuple(
        AttackGroup(key, title, plain, tuple(groups[key]))
        for key, (title, plain) in _GROUPS.items()
        if groups[key]
    )


def _group(attack: str, threat: str) -> str:
    if attack in view.WORST:
        return "worst"
    if attack == view.CEILING:
        return "ceiling"
    if attack.startswith("control-"):
        return "floor"
    kind = THREATS.get(threat)
    if kind is Informed:
        return "informed"
    return "adaptive" if kind is not None and kind.adaptive else "static"


def without_pictures(result: Result) -> tuple[str, ...]:
    """Attacks that give names or embeddings: identified, but without any likeness of pictures."""
    silent = {metric for metric, _ in view.unmeasured(result)}
    likeness = [metric for metric in ("ssim", "psnr", "lpips") if metric not in silent]
    return tuple(
        attack
        for group in attack_groups(result)
        if group.id in SINGLE
        for attack in group.attacks
        if likeness and _silent(result, attack, likeness)
    )


def _silent(result: Result, attack: str, likeness: list[str]) -> bool:
    rows = [s for s in result.scores if s.attack == attack and s.metric in likeness]
    return bool(rows) and all(score.value is None for score in rows)


def bounds(result: Result, group: AttackGroup) -> Score | None:
    """A score of this group of single guesses: floor and ceiling are the same for all of them."""
    if group.id not in SINGLE:
        return None
    rows = (
        score
        for score in result.scores
        if score.attack in group.attacks and score.metric == "identification"
    )
    return next((row for row in rows if row.floor is not None or row.ceiling is not None), None)


def silent_notes(scores: Sequence[Score | None]) -> tuple[str, ...]:
    """Why some of these scores have no value, each reason once."""
    notes = (score.note for score in scores if score is not None and score.value is None)
    return tuple(dict.fromkeys(note for note in notes if note))
