"""The audit, read aloud: release, attack, measure, doubt, conclude."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakaudit.attacks.base import Attack, Guess, ReadyAttack
from leakaudit.audit import cases, doubts, gates, worst
from leakaudit.audit.about import tool_version
from leakaudit.audit.plan import NamedDefence, Plan
from leakaudit.audit.store import RunStore, digest, on_cpu
from leakaudit.core.errors import InputError, RunError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import BlackBox, NoFeature, ThreatModel, WhiteBox
from leakaudit.core.types import Convergence, Doubt, GateResult, Score, Utility
from leakaudit.defences.base import Deployed, Released, Workshop
from leakaudit.metrics.base import Evidence, Metric
from leakaudit.metrics.identity import FeatureSimilarity, IdentificationRate, IdentificationTop5
from leakaudit.metrics.indistinguishability import EpsilonPii
from leakaudit.metrics.likeness import Lpips, Psnr, Ssim
from leakaudit.metrics.utility import head_outputs, utility_rows
from leakaudit.models.subject import Subject

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the plan is finished, in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Findings:
    """All that was measured, before anybody doubts or judges it."""

    scores: tuple[Score, ...]
    utility: tuple[Utility, ...]
    convergence: tuple[Convergence, ...]
    doubts: tuple[Doubt, ...]
    gates: tuple[GateResult, ...]
    reconstructions: dict[tuple[str, str], Tensor]
    seconds: dict[str, float]


def run(
    subject: Subject, plan: Plan, store: RunStore, exprs: tuple[str, ...], progress: Progress
) -> Findings:
    """Scores of every defence under every attack, with doubts and gates.

    Raises InputError for features that aren't finite and RunError where memory runs out.
    """
    try:
        return _Audit(subject, plan, store, progress).findings(exprs)
    except torch.OutOfMemoryError as error:
        raise RunError("The device ran out of memory", todo="Use --device cpu") from error
    except MemoryError as error:
        raise RunError(
            "The machine ran out of memory", todo="Give fewer or smaller images"
        ) from error


class _Audit:
    def __init__(self, subject: Subject, plan: Plan, store: RunStore, progress: Progress) -> None:
        self.subject, self.plan, self.store = subject, plan, store
        self.rng = Rng(plan.seed)
        self.scores: list[Score] = []
        self.utility: list[Utility] = []
        self.convergence: list[Convergence] = []
        self.guesses: dict[tuple[str, str], Guess] = {}
        self.seconds: dict[str, float] = {}
        self._ready: dict[str, ReadyAttack] = {}
        self._progress = progress
        self._done, self._all = 0.0, float(len(plan.defences) * (len(plan.attacks) + 2) + 2)
        self._identity = digest(
            plan.seed, subject.faces.images, subject.public, cases.fingerprint(subject.encoder),
            "" if subject.prior is None else cases.fingerprint(subject.prior),
            subject.query(subject.public[:8]), tool_version(),
        )  # fmt: skip

    def findings(self, exprs: tuple[str, ...]) -> Findings:
        faces = self.subject.faces
        cases.another_person(faces.people)  # refuses what can't be controlled before any work
        self._tell("measuring the oracle on originals")
        metrics = self._metrics()
        checks = doubts.CleanChecks.of(self.subject)
        self._measure("none", "original", "-", faces.images, metrics)
        baseline: Tensor | None = None
        for named in self.plan.defences:  # "none" always first
            released = self._release(named)
            for attack in (*self.plan.controls, *self.plan.attacks):
                guess = self._attack(named, attack, released.features)
                self._measure(named.label, attack.name, attack.holds.name, guess.images, metrics)
            self._shuffled(named, metrics)
            logits = self._logits(released.features)
            if logits is not None:
                baseline = logits if baseline is None else baseline
                self._utility(named.label, logits, baseline)
        self._tell("worst cases")
        scores = worst.complete(self.scores, self.guesses, self.subject, self.plan, self.rng)
        found = doubts.raised(self.subject, self.plan, scores, tuple(self.convergence), checks)
        labels = [named.label for named in self.plan.defences]
        judged = gates.judge(exprs, scores, tuple(self.utility), found, labels)
        pictures = {key: guess.images for key, guess in self.guesses.items()}
        return Findings(
            scores, tuple(self.utility), tuple(self.convergence), found, judged, pictures,
            self.seconds,
        )  # fmt: skip

    def _tell(self, what: str) -> None:
        self._progress(what, self._done / self._all)

    def _timed(self, label: str, start: float) -> float:
        spent = time.perf_counter() - start
        self.seconds[label] = round(self.seconds.get(label, 0.0) + spent, 3)
        return spent

    def _metrics(self) -> list[Metric]:
        oracle = self.subject.oracle
        metrics: list[Metric] = [
            IdentificationRate(oracle), IdentificationTop5(oracle), FeatureSimilarity(oracle),
            Ssim(), Psnr(), Lpips(),
        ]  # fmt: skip
        if self.subject.prior is not None:
            draws = self.rng.derive("epsilon")  # fresh draws that no defence ever saw
            faces = len(self.subject.faces)
            metrics.append(EpsilonPii.against(self.subject.prior, faces, draws))
        return metrics

    def _release(self, named: NamedDefence) -> Released:
        self._tell(f"releasing features: {named.label}")
        start = time.perf_counter()
        rng = self.rng.derive("defence", named.label)
        faces = self.subject.faces.images

        def make() -> Released:
            made = self._deploy(named, rng).release(faces, rng.derive("release", 0))
            return replace(made, features=on_cpu(made.features))

        if named.defence.name == "none":
            released = make()  # undefended features are never written
        else:
            key = digest("release", self._identity, named.label, self.plan.to_json()["defences"])
            released = self.store.released(key, make)
        _check_features(released.features, named.label)
        spent = self._timed(f"release {named.label}", start)
        self._done += 1
        if released.steps:
            self.convergence.append(
                Convergence(
                    named.label, "(defence)", released.steps, released.passes, released.curve[-1],
                    doubts.relative_change(released.curve), released.converged, round(spent, 3),
                    cases.thinned(released.curve),
                    ", ".join(f"{k} {v:.3g}" for k, v in released.details.items()) or None,
                )
            )  # fmt: skip
        return released

    def _deploy(self, named: NamedDefence, rng: Rng) -> Deployed:
        workshop = Workshop(self.subject.encoder, self.subject.public, self.subject.prior)
        return named.defence.deploy(workshop, rng.derive("deploy"))

    def _held(self, attack: Attack) -> ThreatModel:
        """What this adversary may know, and nothing more."""
        subject = self.subject
        if attack.holds is NoFeature:
            return NoFeature(subject.public, subject.query, subject.prior, subject.head)
        if attack.holds is BlackBox:
            return BlackBox(subject.public, subject.query)
        if attack.holds is WhiteBox:
            return WhiteBox(subject.public, subject.encoder, subject.prior)
        raise RunError(f"No adversary of the kind {attack.holds.name} can be equipped yet")

    def _attack(self, named: NamedDefence, attack: Attack, features: Tensor) -> Guess:
        self._tell(f"{attack.name} on {named.label}")
        start = time.perf_counter()
        rng = self.rng.derive("attack", attack.name)

        def make() -> Guess:
            if attack.name not in self._ready:  # static: one preparation serves all defences
                self._ready[attack.name] = attack.prepare(self._held(attack), rng.derive("prepare"))
            made = self._ready[attack.name].reconstruct(features, rng.derive("go", named.label))
            loss = self.subject_loss(made.images, features)
            return replace(made, images=on_cpu(made.images), loss=on_cpu(loss))

        settings = self.plan.to_json()["attacks"][attack.name]
        key = digest("guess", self._identity, named.label, attack.name, settings, features)
        guess = make() if attack.control else self.store.guess(key, make)
        spent = self._timed(f"{attack.name} on {named.label}", start)
        if not attack.control:
            self._done += 1
            effort = guess.effort
            self.convergence.append(
                Convergence(
                    named.label, attack.name, effort.steps, effort.passes, effort.final_loss,
                    effort.last_change, effort.converged, round(spent, 3),
                    cases.thinned(effort.curve), effort.note,
                )
            )  # fmt: skip
        self.guesses[named.label, attack.name] = guess
        return guess

    @torch.no_grad()
    def subject_loss(self, images: Tensor, features: Tensor) -> Tensor:
        """``|Enc(guess) - F|²`` a face: every adversary can re-encode his guess, and compare."""
        made = torch.cat([self.subject.query(x) for x in images.clamp(0, 1).split(64)])
        return (made - features).flatten(1).square().sum(1)

    def _shuffled(self, named: NamedDefence, metrics: list[Metric]) -> None:
        """control-shuffled: the first attack's picture from another person's feature."""
        guess = self.guesses[named.label, self.plan.attacks[0].name]
        order = cases.another_person(self.subject.faces.people)
        images = guess.images[order]
        self.guesses[named.label, "control-shuffled"] = replace(guess, images=images)
        self._measure(named.label, "control-shuffled", NoFeature.name, images, metrics)

    def _measure(
        self, defence: str, attack: str, threat: str, images: Tensor, metrics: list[Metric]
    ) -> None:
        start = time.perf_counter()
        faces = self.subject.faces
        for metric in metrics:
            rng = self.rng.derive("metric", defence, attack)
            evidence = Evidence(defence, attack, threat, faces.images, images, faces.people, rng)
            self.scores.append(metric(evidence))
        self._timed("metrics", start)

    def _logits(self, features: Tensor) -> Tensor | None:
        if self.subject.head is None or self.subject.faces.attributes is None:
            return None
        return head_outputs(self.subject.head, features)

    def _utility(self, defence: str, logits: Tensor, baseline: Tensor) -> None:
        start = time.perf_counter()
        faces = self.subject.faces
        assert faces.attributes is not None
        self.utility += utility_rows(
            defence, logits, baseline, faces.attributes, faces.people, faces.attribute_names,
            self.rng.derive("utility"),
        )  # fmt: skip
        self._timed("metrics", start)
        self._done += 1


def _check_features(features: Tensor, label: str) -> None:
    if not bool(features.isfinite().all()):
        bad = int((~features.isfinite().flatten(1).all(1)).sum())
        raise InputError(
            f"{bad} of {len(features)} features hold NaN or infinite numbers",
            where=f"defence {label}",
            todo="Check the weights, the layer and the preprocessing (--mean, --std)",
        )
