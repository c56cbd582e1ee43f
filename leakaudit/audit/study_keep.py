"""Keeps reconstructions of a few people for a human study, where a scan is asked to."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from leakaudit.audit.plan import Plan
from leakaudit.audit.store import digest
from leakaudit.audit.study_file import FILE, LEAST_PEOPLE, RETENTION, VERSION
from leakaudit.audit.study_key import network_of, work_of
from leakaudit.core.errors import UsageError
from leakaudit.core.files import atomic_write
from leakaudit.core.rng import Rng
from leakaudit.core.threats import Informed
from leakaudit.core.types import Score
from leakaudit.models.subject import Subject


def check_enough_people(subject: Subject, count: int) -> None:
    """Raises ``UsageError``, before any work, where a study of so many people can't be made."""
    if min(count, subject.faces.n_people) < LEAST_PEOPLE:
        raise UsageError(
            f"A study needs at least {LEAST_PEOPLE} attacked people",
            where=f"--keep-study {count}, with {subject.faces.n_people} attacked people",
            todo="Keep more, or attack more people",
        )


def keep(
    subject: Subject,
    plan: Plan,
    scores: tuple[Score, ...],
    reconstructions: dict[tuple[str, str], Tensor],
    folder: Path,
    *,
    count: int,
) -> Path | None:
    """The written ``study.safetensors``: ``count`` people drawn by the plan's seed, or all.

    Of each person one attacked picture, and what every attack that makes pictures made of it;
    controls, and adversaries who hold the people's other pictures, are left out. The file is
    readable by its owner only. ``None`` where no attack makes pictures.
    """
    informed = {attack.name for attack in plan.attacks if attack.holds is Informed}
    names = {attack.name for attack in plan.attacks} - informed
    pairs = [pair for pair in reconstructions if pair[1] in names]
    if not pairs:
        return None
    rows = _one_of_each(subject.faces.people, count, Rng(plan.seed).derive("study"))
    tensors = {"originals": _bytes(subject.faces.images[rows])}
    made = []
    for place, pair in enumerate(pairs):
        tensors[f"made-{place}"] = _bytes(reconstructions[pair][rows])
        told = {"defence": pair[0], "attack": pair[1], "pictures": f"made-{place}"}
        made.append({**told, **_strength(scores, *pair)})
    about = {
        "version": VERSION, "retention": RETENTION, "secret": secrets.token_hex(32),
        "faces_sha256": digest(subject.faces.images), "synthetic": subject.synthetic, "made": made,
        "network": network_of(subject.about),
        "work": work_of(plan.to_json(), subject.about, plan.seed),
    }  # fmt: skip
    path = atomic_write(folder / FILE, save(tensors, metadata={"about": json.dumps(about)}))
    os.chmod(path, 0o600)  # the folder is private already
    return path


def _one_of_each(people: Tensor, count: int, rng: Rng) -> Tensor:
    """Rows of one picture each of ``count`` people, or of all, drawn at random."""
    order = torch.randperm(len(people), generator=rng.torch())
    first: dict[int, int] = {}
    for row in order.tolist():
        first.setdefault(int(people[row]), row)
    return torch.tensor(list(first.values())[:count])


def _strength(scores: tuple[Score, ...], defence: str, attack: str) -> dict[str, float]:
    """How well the attack names people here, for the choice of the best one; -1 if unknown."""
    found = {
        score.metric: score.value
        for score in scores
        if (score.defence, score.attack) == (defence, attack) and score.value is not None
    }
    return {
        "identification": found.get("identification", -1.0),
        "similarity": found.get("feature_similarity", -1.0),
    }


def _bytes(images: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] as bytes (N, H, W, 3)."""
    scaled = (images.detach().cpu().clamp(0, 1) * 255).round()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
