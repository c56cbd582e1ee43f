"""The audit, read aloud: release, attack, measure, doubt, conclude."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leakaudit.attacks.base import Attack, Effort, Guess, Queries, ReadyAttack
from leakaudit.attacks.pairs import queried
from leakaudit.audit import cases, compare, doubts, gates, worst
from leakaudit.audit.about import tool_version
from leakaudit.audit.choose import choose, joined, set_apart, trials, trust
from leakaudit.audit.dependence import dependence
from leakaudit.audit.floors import Floors
from leakaudit.audit.guesses import checked_guess, checked_score
from leakaudit.audit.pipeline import Pipeline
from leakaudit.audit.plan import NamedDefence, Plan
from leakaudit.audit.seal import Seal, is_ours
from leakaudit.audit.store import RunStore, digest, on_cpu
from leakaudit.core.errors import RunError, UsageError
from leakaudit.core.memory import is_out_of_memory
from leakaudit.core.rng import Rng
from leakaudit.core.threats import Bench, Informed, NoFeature, ThreatModel
from leakaudit.core.types import Comparison, Convergence, Doubt, GateResult, Score, Utility, Win
from leakaudit.defences.base import Deployed, Released, Workshop
from leakaudit.metrics import METRICS
from leakaudit.metrics.base import Evidence, Metric
from leakaudit.metrics.identity import (
    FeatureSimilarity,
    IdentificationRate,
    IdentificationTop5,
    by_judge,
)
from leakaudit.metrics.indistinguishability import EpsilonPii
from leakaudit.metrics.likeness import Lpips, Psnr, Ssim
from leakaudit.metrics.utility import head_outputs, utility_rows
from leakaudit.metrics.verification import Verification
from leakaudit.models.devices import CPU, told
from leakaudit.models.faces import several_of_each
from leakaudit.models.generators import Prior
from leakaudit.models.subject import Subject
from leakaudit.models.users_code import torch_as_it_was, users_code
from leakaudit.models.weights import sha256_of_state

Progress = Callable[[str, float], None]
"""Told what is being done and which share of the plan is finished, in [0, 1]."""

DEPENDENCE_PEOPLE, DEPENDENCE_RELEASES = 12, 16
CHEAP_PASSES, CHEAP_SECONDS = 4, 0.05
"""A face's release is cheap up to so many encoder passes; of others' code, in so much time too."""
CHEAP_QUERIES, CHEAP_RELEASES = 1000, 128
"""Public pictures that are at least sent through a cheap defence, once and several times each."""


@dataclass(frozen=True, eq=False)
class Findings:
    """All that was measured, before anybody doubts or judges it."""

    scores: tuple[Score, ...]
    utility: tuple[Utility, ...]
    convergence: tuple[Convergence, ...]
    doubts: tuple[Doubt, ...]
    gates: tuple[GateResult, ...]
    comparisons: tuple[Comparison, ...]
    wins: tuple[Win, ...]
    reconstructions: dict[tuple[str, str], Tensor]
    seconds: dict[str, float]
    latents: dict[tuple[str, str], Tensor]


def run(
    subject: Subject, plan: Plan, store: RunStore, exprs: tuple[str, ...], progress: Progress
) -> Findings:
    """Scores of every defence under every attack, with doubts and gates.

    Raises InputError for features that aren't finite and RunError where memory runs out.
    """
    with guarded(Audit(subject, plan, store, progress)) as audit:
        for named in plan.defences:  # "none" always first
            audit.measure(named)
        return audit.findings(exprs)


@contextmanager
def guarded(audit: Audit) -> Iterator[Audit]:
    """The audit at work; what runs out of memory is a RunError, and counting ends with it."""
    try:
        yield audit
    except torch.OutOfMemoryError as error:
        raise RunError(
            "The GPU ran out of memory, in smaller chunks too",
            todo="Say --batch-size 8 or less, give smaller images, or use --device cpu",
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(
            "The machine ran out of memory", todo="Give fewer or smaller images"
        ) from error
    finally:
        audit.passes.stop()


class Audit:
    """One audit at work: ``measure`` defences one by one, ``none`` first, then ask ``findings``.

    Which defences are still to come may depend on those that were measured. With ``choosing``
    every attack is also tried on public pictures, which tells which guess the adversary would
    choose; without it there is no row ``chosen``, and a static attack sends no queries.
    """

    def __init__(
        self, subject: Subject, plan: Plan, store: RunStore, progress: Progress,
        *, choosing: bool = True,
    ) -> None:  # fmt: skip
        self.subject, self.plan, self.store = subject, plan, store
        self._choosing = choosing
        self.rng = Rng(plan.seed)
        self.scores: list[Score] = []
        self.utility: list[Utility] = []
        self.convergence: list[Convergence] = []
        self.guesses: dict[tuple[str, str], Guess] = {}
        self.embedded: dict[tuple[str, str], Tensor | None] = {}
        self.choices: dict[str, tuple[str, ...]] = {}
        self.joined: dict[str, list[Score]] = {}
        self.seconds: dict[str, float] = {}
        self.dependence: dict[str, float] = {}
        self.random: set[str] = set()
        self.moved: set[str] = set()
        self.passes = cases.Passes(subject.encoder)
        self._prepared: dict[str, int] = {}
        self._kept: dict[Hashable, Any] = {}
        self._attributed = 0
        self._progress = progress
        self._bench = Bench(
            {
                attack.name: partial(self._prepare_static, attack)
                for attack in (*plan.attacks, *plan.controls)
                if not attack.holds.adaptive
            }
        )
        self._done, self._planned = 0, 0
        self._all = sum(self._steps(named) for named in plan.defences)
        self._baseline: Tensor | None = None
        self._metrics: list[Metric] = []
        tried, self._public = set_apart(subject.public)
        self._trials = tried[: trials(plan)] if choosing else tried[:0]
        self._seal = Seal(subject, self._public)
        self._identity = digest(
            plan.seed, subject.faces.images, subject.public, sha256_of_state(subject.encoder),
            len(self._public), *_prior_marks(subject.prior),
            subject.query(subject.public[:8]), tool_version(),
            # Attacks judge and name by the recogniser; informed ones learn other pictures.
            subject.oracle.embed(subject.public[:8]), subject.oracle.means,
            *([] if subject.known is None else [subject.known.images, subject.known.people]),
            *([] if subject.device == CPU else [told(subject.device)]),
        )  # fmt: skip

    def measure(self, named: NamedDefence) -> None:
        """Releases features of the attacked faces by this defence, attacks and scores them."""
        if not self.scores:
            self._open()
        if named not in self.plan.defences:
            self.plan = replace(self.plan, defences=(*self.plan.defences, named))
            self._all += self._steps(named)
        with self._seal.lent_to(named.defence, f"The defence {named.label}"):
            case = self._case(named)
        for attack in self._attacks_on(case):
            guess = self._attack(case, attack)
            self._measure(named.label, attack.name, attack.holds.name, guess)
        self._shuffled(case)
        self._choose(case)
        logits = self._logits(case.seen[0])
        if logits is not None:
            self._baseline = logits if self._baseline is None else self._baseline
            self._utility(named.label, logits, self._baseline)
        self._dependence(case)
        self._planned += self._steps(named)
        self._done = self._planned  # what made no sense on this defence is done as well

    def _open(self) -> None:
        """What all defences share: the metrics, checks of the subject, and the originals."""
        faces = self.subject.faces
        cases.another_person(faces.people)  # refuses what can't be controlled before any work
        self._tell("measuring the oracle on originals")
        self._metrics = self._made_metrics()
        self._checks = doubts.CleanChecks.of(self.subject)
        self._floors = Floors(self.subject, self.rng)
        self._measure("none", "original", "-", Guess(faces.images, None, Effort(0, 0)))

    def complete(self) -> tuple[Score, ...]:
        """All scores of what was measured so far, with worst cases, floors and excess."""
        return worst.complete(
            self.scores,
            self.choices,
            self.subject,
            self.plan,
            self.rng,
            self._floors,
            joined=self.joined,
        )

    def findings(
        self, exprs: tuple[str, ...], *, compared: tuple[NamedDefence, ...] | None = None
    ) -> Findings:
        """What was measured, with the doubts about it and gates held against it.

        The defences ``compared`` are held against each other, by default all of them.
        """
        self._tell("worst cases")
        self._put_in_order()
        convergence = tuple(self.convergence)
        scores = self.complete()
        reached = [u.value for u in self.utility if (u.defence, u.metric) == ("none", "auc")]
        facts = doubts.Facts(
            checks=self._checks, random=frozenset(self.random), moved=frozenset(self.moved),
            dependence=self.dependence, reached=next(iter(reached), None),
        )  # fmt: skip
        found = doubts.raised(self.subject, self.plan, scores, convergence, facts)
        labels = [named.label for named in self.plan.defences]
        judged = gates.judge(exprs, scores, tuple(self.utility), found, labels)
        pictures = {
            key: guess.images for key, guess in self.guesses.items() if guess.images is not None
        }
        latents = {
            key: guess.latents for key, guess in self.guesses.items() if guess.latents is not None
        }
        return Findings(
            scores, tuple(self.utility), convergence, found, judged,
            compare.comparisons(
                scores, self.subject, replace(self.plan, defences=compared or self.plan.defences),
                self.rng,
            ),
            compare.wins(scores, self.choices), pictures, self.seconds, latents,
        )  # fmt: skip

    def _put_in_order(self) -> None:
        """Rows stand as the plan's defences do, whichever of them were measured first."""
        places = {named.label: place for place, named in enumerate(self.plan.defences)}
        for rows in (self.scores, self.utility, self.convergence):
            rows.sort(key=lambda row: places.get(row.defence, len(places)))

    def _steps(self, named: NamedDefence) -> int:
        """Steps that take about as long, for the progress: release, queries, attacks."""
        return 2 + len(self.plan.attacks_on(named))

    def _tell(self, what: str) -> None:
        self._progress(what, self._done / self._all)

    def _timed(self, label: str, start: float) -> float:
        spent = time.perf_counter() - start
        self.seconds[label] = round(self.seconds.get(label, 0.0) + spent, 3)
        return spent

    def _made_metrics(self) -> list[Metric]:
        oracle = self.subject.oracle
        metrics: list[Metric] = [
            IdentificationRate(oracle), IdentificationTop5(oracle),
            Verification(oracle, self.subject.comparisons), FeatureSimilarity(oracle),
            Ssim(), Psnr(), Lpips(),
        ]  # fmt: skip
        if self.subject.prior is not None:
            draws = self.rng.derive("epsilon")  # fresh draws that no defence ever saw
            faces = len(self.subject.faces)
            metrics.append(EpsilonPii.against(self.subject.prior, faces, draws))
        return [*metrics, *(METRICS.make(name, {}) for name in METRICS.foreign())]

    # -- releasing ---------------------------------------------------------------------------

    def _case(self, named: NamedDefence) -> _Case:
        """The defence deployed, what it released of the attacked faces, and of public ones."""
        self._tell(f"releasing features: {named.label}")
        start = time.perf_counter()
        # By name, not by label: settings of one defence are compared with the same draws.
        rng = self.rng.derive("defence", named.defence.name)
        subject = self.subject
        workshop = Workshop(subject.encoder, subject.public, subject.prior, kept=self._kept)
        deployed = named.defence.deploy(workshop, rng.derive("deploy"))
        pipeline = Pipeline(deployed, rng.derive("queries"), label=named.label)
        if named.defence.coupling != "image" and not named.defence.keeps_rows:
            pipeline.alone = pipeline.moves_rows(queried(self.subject.public, 12))
            self.moved |= {named.label} if pipeline.alone else set()
        released = self._released(named, pipeline, rng, 0)
        looks = 1
        trial = 1 if named.defence.coupling == "image" else 16  # ours are known, and may be slow
        if not named.undefended and not pipeline.repeats(queried(self.subject.public, trial)):
            self.random.add(named.label)
            looks = max(attack.looks() for attack in self.plan.attacks)
        seen = [released.features]
        seen += [self._released(named, pipeline, rng, k).features for k in range(1, looks)]
        self._defence_row(named, released, self._timed(f"release {named.label}", start))
        cheap = not named.undefended and self._is_cheap(named, pipeline, released)
        case = _Case(named, deployed, pipeline, torch.stack(seen), cheap)
        self._finished()
        self._ask(case)
        return case

    def _is_cheap(self, named: NamedDefence, pipeline: Pipeline, released: Released) -> bool:
        """Whether an adversary may ask often: what costs him nothing, he isn't short of."""
        if released.passes > CHEAP_PASSES * len(released.features):
            return False
        if is_ours(named.defence):
            return True
        few, start = queried(self.subject.public, 8), time.perf_counter()
        pipeline.made(few, self.rng.derive("cheap"))  # others needn't count their passes
        return time.perf_counter() - start < CHEAP_SECONDS * len(few)

    def _released(self, named: NamedDefence, pipeline: Pipeline, rng: Rng, turn: int) -> Released:
        faces = self.subject.faces.images.to(self.subject.device)

        def make() -> Released:
            made = pipeline.made(faces, rng.derive("release", turn))
            return replace(made, features=on_cpu(made.features))

        if named.undefended:
            return make()  # undefended features are never written
        settings = self.plan.to_json()["defences"][named.label]
        key = digest("release", self._identity, named.label, settings, turn)
        return self.store.released(key, make)

    def _defence_row(self, named: NamedDefence, released: Released, spent: float) -> None:
        if not released.steps:
            return
        self.convergence.append(
            Convergence(
                named.label, "(defence)", released.steps, released.passes, released.curve[-1],
                doubts.relative_change(released.curve), released.converged, round(spent, 3),
                cases.thinned(released.curve),
                ", ".join(f"{k} {v:.3g}" for k, v in released.details.items()) or None,
            )
        )  # fmt: skip

    def _ask(self, case: _Case) -> None:
        """The queries that all adaptive attacks share, asked once and kept for a resumed run."""
        asked = self._queries(case)
        images = queried(self._public, asked.pictures)
        if self._tries_releases(case):
            images = torch.cat([images, self._trials])
        if case.named.undefended or len(images) == 0:
            return
        self._tell(f"querying the defence: {case.label}")
        start = time.perf_counter()

        def make() -> Released:
            return Released(case.pipeline.release(images, asked.releases))

        settings = self.plan.to_json()["defences"][case.label]
        shape = (len(images), asked.releases)
        key = digest("queries", self._identity, case.label, settings, shape, len(self._trials))
        asked_for = self.store.released(key, make).features
        case.pipeline.remember(images, asked_for.to(self.subject.device))
        self._timed(f"queries {case.label}", start)
        self._finished()

    def _tries_releases(self, case: _Case) -> bool:
        """Whether attacks are tried on releases; a lone one has no rival, and needs no queries."""
        several = len(self.plan.attacks) > 1 and self._choosing
        return several and not case.named.undefended

    def _queries(self, case: _Case) -> Queries:
        asked = [a.queries_ahead() for a in self._attacks_on(case) if a.holds is not Informed]
        return Queries(max(q.pictures for q in asked), max(1, *(q.releases for q in asked)))

    # -- attacking ---------------------------------------------------------------------------

    def _attacks_on(self, case: _Case) -> list[Attack]:
        """Controls, then the attacks that make sense here.

        Averaging needs releases that differ. Where a release is cheap, ours ask at least
        ``CHEAP_QUERIES``, but for those that invert each picture that they ask for.
        """
        fit = [
            attack
            for attack in self.plan.attacks_on(case.named)
            if attack.looks() == 1 or case.label in self.random
        ]
        if case.cheap:
            fit = [_asking_often(attack) for attack in fit]
        return [*self.plan.controls, *fit]

    def _held(self, attack: Attack, case: _Case | None) -> ThreatModel:
        """What this adversary may know, and nothing more."""
        subject = self.subject
        known: dict[str, Any] = {
            "public": self._public,
            "query": subject.query,
            "prior": subject.prior,
            "head": subject.head,
            "encoder": subject.encoder,
        }
        if case is not None:
            known |= {"encoder": case.deployed.encoder, "release": case.pipeline.release}
        if attack.holds is Informed:
            if subject.known is None:
                raise UsageError(
                    f"{attack.name} needs other pictures of the people, and there are none"
                )
            known |= {"known": subject.known.images, "labels": subject.known.people}
        names = [field.name for field in fields(attack.holds)]
        held = {name: known[name] for name in names if name not in ("recogniser", "bench")}
        return attack.holds(**held, recogniser=subject.oracle.embed, bench=self._bench)

    def _prepare_static(self, attack: Attack) -> ReadyAttack:
        rng, before = self.rng.derive("attack", attack.name), self._unattributed()
        ready = attack.prepare(self._held(attack, None), rng.derive("prepare"))
        self._prepared[attack.name] = self._unattributed() - before
        self._attributed += self._prepared[attack.name]
        return ready

    def _unattributed(self) -> int:
        """Encoder passes but for those of preparations that belong to another row."""
        return self.passes.total - self._attributed

    def _ready(self, attack: Attack, case: _Case) -> ReadyAttack:
        if not attack.holds.adaptive:  # static: one preparation serves all defences
            return self._bench.once(attack.name, partial(self._prepare_static, attack))
        rng = self.rng.derive("attack", attack.name)
        return attack.prepare(self._held(attack, case), rng.derive("prepare", case.label))

    def _attack(self, case: _Case, attack: Attack) -> Guess:
        """The guess for the attacked faces; those for public ones tell how far to trust it."""
        self._tell(f"{attack.name} on {case.label}")
        start = time.perf_counter()
        rng = self.rng.derive("attack", attack.name)
        features = case.seen[: attack.looks()]
        if self._choosing:
            features = torch.cat([features, self._trial(case, attack.looks()).cpu()], 1)

        given = (features[0] if attack.looks() == 1 else features).to(self.subject.device)

        def make() -> Guess:
            before = self._unattributed()
            with self._seal.lent_to(attack, f"The attack {attack.name}"):
                answer = self._ready(attack, case).reconstruct(
                    given if is_ours(attack) else given.clone(), rng.derive("go", case.label)
                )
            made = checked_guess(
                answer, attack.name,
                features.shape[1], shape=self.subject.faces.images.shape[1:],
                people=self.subject.oracle.gallery_size,
            )  # fmt: skip
            passes = self._unattributed() - before + self._prepared.get(attack.name, 0)
            return replace(_here(made), effort=replace(made.effort, passes=passes))

        told = self.plan.to_json()["attacks"]
        # Others may start from what the static ones made of the same features.
        static = {a.name: told[a.name] for a in self.plan.attacks if not a.holds.adaptive}
        queries = attack.queries_ahead()
        key = digest(
            "guess", self._identity, case.label, attack.name, told[attack.name], static, features,
            asdict(queries),
        )  # fmt: skip
        whole = make() if attack.control else self.store.guess(key, make)
        if not attack.holds.adaptive:
            self._bench.keep_guess(attack.name, given, whole)
        spent = self._timed(f"{attack.name} on {case.label}", start)
        count = len(self.subject.faces)
        guess = _rows(whole, slice(0, count))
        self.guesses[case.label, attack.name] = guess
        if attack.control:
            return guess
        self._effort_row(case, attack, guess.effort, spent)
        if self._choosing:
            case.trusted[attack.name] = self._trust(case, _rows(whole, slice(count, None)))
        self._finished()
        return guess

    def _trial(self, case: _Case, looks: int) -> Tensor:
        """Releases (looks, C, ...) of public pictures that every attack is tried on."""
        if self._tries_releases(case):
            return case.pipeline.release(self._trials, looks)
        clean = self.subject.query(self._trials)
        return clean.expand(looks, *clean.shape)

    def _effort_row(self, case: _Case, attack: Attack, effort: Effort, spent: float) -> None:
        queries = attack.queries_ahead()
        asked = min(queries.pictures, len(self._public)) * queries.releases
        self.convergence.append(
            Convergence(
                case.label, attack.name, effort.steps, effort.passes, effort.final_loss,
                effort.last_change, effort.converged, round(spent, 3),
                cases.thinned(effort.curve), effort.note, queries=asked,
            )
        )  # fmt: skip

    # -- measuring ---------------------------------------------------------------------------

    def _embedded(self, guess: Guess) -> Tensor | None:
        if guess.embeddings is not None or guess.images is None:
            return guess.embeddings
        return self.subject.oracle.embed(guess.images)

    def _trust(self, case: _Case, guess: Guess) -> float:
        made = self._embedded(guess)
        return -1.0 if made is None else trust(made, self.subject.oracle.embed(self._trials))

    def _choose(self, case: _Case) -> None:
        """Which attack the adversary would believe, face by face; ``Informed`` ones stand apart."""
        made = {
            attack.name: self.embedded[case.label, attack.name]
            for attack in self._attacks_on(case)
            if not attack.control and attack.holds is not Informed
        }
        known = {name: vectors for name, vectors in made.items() if vectors is not None}
        if not known or not self._choosing:
            return
        joint = joined(known, case.trusted)
        self.choices[case.label] = choose(known, joint)
        guess = Guess(None, None, Effort(0, 0), embeddings=joint)
        self.joined[case.label] = self._scored(case.label, "chosen", "chosen", guess)

    def _shuffled(self, case: _Case) -> None:
        """control-shuffled: the first attack's guess from another person's feature."""
        first = next((a for a in self._attacks_on(case) if not a.control), None)
        if first is None:
            return
        order = cases.another_person(self.subject.faces.people)
        shuffled = _rows(self.guesses[case.label, first.name], order)
        self.guesses[case.label, "control-shuffled"] = shuffled
        self._measure(case.label, "control-shuffled", NoFeature.name, shuffled)

    def _measure(self, defence: str, attack: str, threat: str, guess: Guess) -> None:
        guess = replace(guess, embeddings=self._embedded(guess))
        self.embedded[defence, attack] = guess.embeddings
        self.scores += self._scored(defence, attack, threat, guess)

    def _scored(self, defence: str, attack: str, threat: str, guess: Guess) -> list[Score]:
        """What every metric and judge says of a guess that was embedded."""
        start = time.perf_counter()
        faces = self.subject.faces
        evidence = Evidence(
            defence, attack, threat, faces.images, guess.images, faces.people,
            self.rng.derive("metric", defence, attack), guess.embeddings, guess.scores,
        )  # fmt: skip
        made = [self._said(metric, evidence) for metric in self._metrics]
        for judge in self.subject.judges:
            made += by_judge(evidence, judge)
        self._timed("metrics", start)
        return made

    @staticmethod
    def _said(metric: Metric, evidence: Evidence) -> Score:
        """What a metric says; one that another package brings gets a copy, and is looked at."""
        if is_ours(metric):
            return metric(evidence)
        doing = f"The metric {metric.name} on {evidence.attack}, {evidence.defence}"
        with users_code(doing), torch_as_it_was():
            made = metric(evidence.copy())
        return checked_score(made, metric, evidence)

    def _logits(self, features: Tensor) -> Tensor | None:
        if self.subject.head is None or self.subject.faces.attributes is None:
            return None
        return head_outputs(self.subject.head, features.to(self.subject.device))

    def _utility(self, defence: str, logits: Tensor, baseline: Tensor) -> None:
        start = time.perf_counter()
        faces = self.subject.faces
        assert faces.attributes is not None
        self.utility += utility_rows(
            defence, logits, baseline, faces.attributes, faces.people, faces.attribute_names,
            self.rng.derive("utility"),
        )  # fmt: skip
        self._timed("metrics", start)

    def _dependence(self, case: _Case) -> None:
        """Where nothing names anybody: do releases of two people differ all the same?"""
        if case.named.undefended or self.subject.known is None or self._explained(case):
            return
        self._tell(f"looking for dependence: {case.label}")
        start = time.perf_counter()
        known = self.subject.known
        whose = known.people.cpu()
        rows = several_of_each(whose, people=DEPENDENCE_PEOPLE, pictures=2)
        if len(rows):
            releases = DEPENDENCE_RELEASES if case.label in self.random else 1
            self.dependence[case.label] = dependence(
                lambda x, count: case.pipeline.release(x, count).cpu(),
                known.images[rows], whose[rows], self.rng.derive("dependence", case.label),
                releases=releases,
            )  # fmt: skip
        self._timed(f"dependence {case.label}", start)

    def _explained(self, case: _Case) -> bool:
        """Whether some attack names clearly more people than chance does."""
        chance = 1 / self.subject.oracle.gallery_size
        names = worst.members(self.scores, case.label)  # no informed ones: they gate nothing
        lows = [
            score.low
            for score in self.scores
            if score.defence == case.label
            and score.attack in names
            and score.metric == "identification"
            and score.low is not None
        ]
        return max(lows, default=0.0) > 2 * chance

    def _finished(self) -> None:
        self._done += 1


@dataclass(eq=False)
class _Case:
    """One defence at work: what it released of the attacked faces, ``seen`` (K, N, ...)."""

    named: NamedDefence
    deployed: Deployed
    pipeline: Pipeline
    seen: Tensor
    cheap: bool = False
    trusted: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.named.label


def _prior_marks(prior: Prior | None) -> tuple[Any, ...]:
    """What tells one prior from another: its numbers, and what its code makes of two latents."""
    if prior is None:
        return ("",)
    return sha256_of_state(prior), prior.sample(2, Rng(0, ("identity",))).cpu()


def _asking_often(attack: Attack) -> Attack:
    """The attack with queries for a defence that costs nothing; others' say themselves."""
    asks = attack.queries_ahead()
    as_told = attack.inverts_queries or attack.holds is Informed or not is_ours(attack)
    if as_told or not asks.pictures:
        return attack
    least = CHEAP_QUERIES if asks.releases == 1 else CHEAP_RELEASES
    ours: Any = attack
    made: Attack = replace(ours, queries=max(asks.pictures, least))
    return made


def _here(guess: Guess) -> Guess:
    """The guess on the CPU, where it is kept and measured."""

    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().cpu()

    return replace(
        guess, images=None if guess.images is None else on_cpu(guess.images),
        loss=moved(guess.loss), latents=moved(guess.latents), embeddings=moved(guess.embeddings),
        scores=moved(guess.scores),
    )  # fmt: skip


def _rows(guess: Guess, rows: slice | Tensor) -> Guess:
    """Some rows of a guess, in this order."""

    def part(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[rows]

    return replace(
        guess, images=part(guess.images), loss=part(guess.loss), latents=part(guess.latents),
        embeddings=part(guess.embeddings), scores=part(guess.scores),
    )  # fmt: skip
