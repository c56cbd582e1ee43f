"""How long a plan will take on this machine, from units of work that are timed first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch

from leakaudit.audit.choose import trials
from leakaudit.audit.plan import Plan
from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.maths.ridge import Ridge
from leakaudit.models.decoder import DecoderTraining, train_decoder
from leakaudit.models.devices import CPU, settle
from leakaudit.models.subject import Subject

PICTURES, STEPS, PAIRS = 32, 3, 384


@dataclass(frozen=True)
class Speed:
    """Seconds for one unit of each kind of work; ``solve`` for a ridge of ``PAIRS`` pairs."""

    encode: float
    generate: float
    decoder_step: float
    solve: float
    measure: float

    @staticmethod
    def of(subject: Subject) -> Speed:
        """Timed on public pictures; takes a second or two."""
        few = subject.public[:PICTURES]
        pairs = subject.public[:PAIRS]
        with torch.no_grad():
            encode = _seconds(lambda: subject.query(few), on=subject.device) / len(few)
            features = torch.cat([subject.query(x) for x in pairs.split(PICTURES)])
        prior, generate = subject.prior, 0.0
        if prior is not None:
            latents = prior.draw(len(few), Rng(0))
            with torch.no_grad():
                generate = _seconds(lambda: prior(latents), on=subject.device) / len(few)
        training = DecoderTraining(steps=STEPS)
        step = _seconds(
            lambda: train_decoder(features, pairs, training=training, rng=Rng(0)), times=1,
            on=subject.device,
        )  # fmt: skip
        solve = _seconds(lambda: Ridge.fit(features, pairs.flatten(1)), times=2, on=subject.device)
        measure = sum(
            _seconds(partial(judge.embed, few), times=1) / len(few)
            for judge in (subject.oracle, *subject.judges)
        )
        return Speed(encode, generate, step / (STEPS + 1), solve, measure)

    def seconds(self, cost: Cost) -> float:
        """What this work takes; a ridge grows a little slower than with the square of its pairs."""
        # Maps of one attack share inputs, and most have far fewer targets than a picture.
        pairs = 0.4 * sum((size / PAIRS) ** 1.7 for size in cost.solves)
        return (
            self.encode * cost.encodes
            + self.generate * cost.generates
            + self.decoder_step * cost.decoder_steps
            + self.solve * pairs
        )


METRICS = 0.01
"""Seconds a face and row for SSIM, PSNR, optimal transport and intervals, on one core."""


def estimate(subject: Subject, plan: Plan, speed: Speed) -> float:
    """Seconds that the plan will take on this machine, good to about a factor of two."""
    faces, public = len(subject.faces), len(subject.public)
    total, ready = 0.0, set[str]()
    for named in plan.defences:
        attacks = plan.attacks_on(named)
        tried = faces + trials(plan)
        for attack in attacks:
            cost = attack.cost_ahead(tried, public)
            if attack.name in ready and not attack.holds.adaptive:  # it learnt once for all
                cost = replace(cost, decoder_steps=0, solves=())
            ready.add(attack.name)
            total += speed.seconds(cost)
        rows = len(attacks) + len(plan.controls) + 2
        total += rows * faces * (METRICS + speed.measure)
        queries = [attack.queries_ahead() for attack in attacks]
        if named.defence.will_replay:  # nothing to average: such attacks aren't run
            queries = [asks for asks in queries if asks.releases == 1]
        asked = max((asks.pictures * asks.releases for asks in queries), default=0)
        released = faces + (0 if named.undefended else asked + trials(plan) + 2)
        total += speed.seconds(named.defence.cost_ahead(released))
    return total


def in_words(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 90 else f"{minutes / 60:.1f} h"


@final
class Countdown:
    """How long a training still takes, by the steps that it did since this was made.

    It had done ``begun`` by then; `None`: the first call of ``left`` comes after its next step.
    """

    def __init__(self, steps: int, *, begun: int | None = None) -> None:
        self._steps, self._start = steps, time.perf_counter()
        self._begun = begun

    def left(self, done: int) -> str:
        """In words, after so many steps."""
        begun = self._begun = done - 1 if self._begun is None else self._begun
        pace = (time.perf_counter() - self._start) / (done - begun)
        return in_words(pace * (self._steps - done))


def _seconds(work: Callable[[], object], *, times: int = 3, on: torch.device = CPU) -> float:
    """The least of a few runs, the first of which warms up."""
    work_times = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        settle(on)
        work_times.append(time.perf_counter() - start)
    return min(work_times)
