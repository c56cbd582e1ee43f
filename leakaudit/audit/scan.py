"""One scan from plan to result: runs the audit and puts everything it said into one object."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from leakaudit.audit.about import tool_version, versions
from leakaudit.audit.gallery import gallery
from leakaudit.audit.gates import conclude, parse_gate
from leakaudit.audit.latent_map import latent_maps
from leakaudit.audit.plan import Plan
from leakaudit.audit.run import Findings, Progress, run
from leakaudit.audit.store import RunStore, digest
from leakaudit.audit.study_keep import check_enough_people, keep
from leakaudit.core.types import Adversary, Result
from leakaudit.models.subject import Subject


@dataclass(frozen=True)
class ScanOptions:
    """What a scan is told beside its plan: gates, the gallery's mode, the command as typed.

    ``keep_study`` people are kept with their reconstructions for a human study; 0 keeps none.
    """

    gates: tuple[str, ...] = ()
    gallery: str = "none"
    command: str = "leakaudit scan"
    keep_study: int = 0


def scan(
    subject: Subject, plan: Plan, store: RunStore, options: ScanOptions, progress: Progress
) -> Result:
    """The finished result of auditing ``subject`` by ``plan``; gates are read before any work."""
    for expr in options.gates:
        parse_gate(expr)
    if options.keep_study:
        check_enough_people(subject, options.keep_study)
    start = time.perf_counter()
    found = run(subject, plan, store, options.gates, progress)
    result = result_of(found, subject, plan, options, seconds=time.perf_counter() - start)
    if options.keep_study:
        keep(
            subject, plan, found.scores, found.reconstructions, store.folder,
            count=options.keep_study,
        )  # fmt: skip
    return result


def result_of(
    found: Findings, subject: Subject, plan: Plan, options: ScanOptions, *, seconds: float
) -> Result:
    """One object of all that was found, with its provenance; ``seconds`` is what it took."""
    pictures = gallery(subject, plan, found.scores, found.reconstructions, mode=options.gallery)
    return Result(
        tool={"name": "leakaudit", "version": tool_version()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        seed=plan.seed,
        device=str(next(subject.encoder.parameters(), torch.zeros(())).device),
        subject={
            **subject.about,
            "faces_sha256": digest(subject.faces.images),
            "public_sha256": digest(subject.public),
            "head": subject.head_name,
            "trained": list(subject.trained),
        },
        plan=plan.to_json(),
        scores=found.scores,
        utility=found.utility,
        convergence=found.convergence,
        doubts=found.doubts,
        comparisons=found.comparisons,
        wins=found.wins,
        maps=latent_maps(subject, plan, found.latents, points=options.gallery != "none"),
        gates=found.gates,
        verdict=conclude(found.gates, found.scores),
        adversaries=_adversaries(plan),
        gallery_mode=options.gallery,
        gallery=pictures,
        seconds={**found.seconds, "scan": round(seconds, 3)},
        versions=versions(),
    )


def _adversaries(plan: Plan) -> tuple[Adversary, ...]:
    kinds = dict.fromkeys(attack.holds for attack in (*plan.attacks, *plan.controls))
    return tuple(
        Adversary(
            kind.name,
            tuple(a.name for a in (*plan.attacks, *plan.controls) if a.holds is kind),
            kind.holds,
            kind.never_holds,
        )
        for kind in kinds
    )
