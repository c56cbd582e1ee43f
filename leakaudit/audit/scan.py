"""One scan from plan to result: runs the audit and puts everything it said into one object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from leakaudit.audit.about import tool_version, versions
from leakaudit.audit.by_layer import joined
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
        device=str(subject.device),
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
        verdict=conclude(found.gates, found.scores, doubts=found.doubts),
        adversaries=_adversaries(plan),
        gallery_mode=options.gallery,
        gallery=pictures,
        seconds={**found.seconds, "scan": round(seconds, 3)},
        versions=versions(),
    )


Layered = Sequence[tuple[Subject, Plan]]
"""The subject of each layer with its plan; subjects differ in encoder and head only."""


def scan_layers(
    layers: Layered, store: RunStore, options: ScanOptions, progress: Progress
) -> Result:
    """One result over all layers, each of which is a whole scan; a single one is as by ``scan``."""
    if len(layers) == 1:
        return scan(*layers[0], store, options, progress)
    results = []
    for place, (subject, plan) in enumerate(layers):
        name = str(subject.about.get("layer", "?"))
        told = _within(progress, place, len(layers), name)
        results.append(scan(subject, plan, store.part(name), options, told))
    return joined(results)


def _within(progress: Progress, place: int, count: int, name: str) -> Progress:
    """Progress of one layer as a part of the whole."""

    def tell(what: str, share: float) -> None:
        progress(f"layer {place + 1} of {count} ({name}): {what}", (place + share) / count)

    return tell


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
