"""whitebox-latent: search the prior's latent space for a face whose feature is the one seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.attacks.base import Attack, Effort, Guess, ReadyAttack, last_change, settled
from leakaudit.core.checks import at_least
from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.core.threats import ThreatModel, WhiteBox
from leakaudit.maths.chunks import chunked, in_chunks
from leakaudit.maths.descent import Descended, Descent, descend
from leakaudit.models.best_response import Amortiser
from leakaudit.models.posterior import Posterior, whitening
from leakaudit.models.prior import Prior
from leakaudit.models.widening import Stage, Widening, onwards, widen

SETTLED_FACES = 0.9


@final
@dataclass(frozen=True)
class WhiteBoxLatent(Attack):
    """``z* = argmin |Enc(G(z)) - F|²`` in the metric of a ``Posterior``, then widened.

    Gaps count by how unusual they are on ``public`` pictures (Kaipio and Somersalo 2005). The first
    start is a ridge regression from features to latents; the prior samples with the nearest
    features follow, at most ``restarts`` starts in all: a face goes on while its loss is above the
    worst of ``rehearsed`` public faces and its last start gained by ``search.gain``. The best
    loss is kept, the attacker's own. Last, activations of the generator are searched
    (``widening``), as many stages as brought the rehearsed faces nearer to their pictures. Source:
    Crafter (NDSS 2024), Eq. 13; widening after IF-GMI (Qiu et al. 2024).
    """

    name: ClassVar[str] = "whitebox-latent"
    holds: ClassVar[type[ThreatModel]] = WhiteBox
    source: ClassVar[str] = "Crafter, NDSS 2024, Eq. 13"
    needs: ClassVar[tuple[str, ...]] = ("prior",)

    search: Descent = field(default_factory=lambda: Descent(steps=40, rate=0.3, patience=8))
    widening: Widening = field(default_factory=Widening)
    restarts: int = 2
    samples: int = 1000
    public: int = 400
    rehearsed: int = 8
    batch: int = 32

    def __post_init__(self) -> None:
        at_least(self.name, 1, restarts=self.restarts, batch=self.batch)
        at_least(self.name, 8, samples=self.samples, public=self.public)
        at_least(self.name, 0, rehearsed=self.rehearsed)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Fits the start on the prior and the metric on public pictures; rehearses on some more."""
        assert isinstance(held, WhiteBox)
        order = torch.randperm(len(held.public), generator=rng.derive("public").torch())
        spared = min(self.rehearsed, len(order) // 4)
        few, many = order[:spared], order[spared : spared + self.public]
        meter = Meter(held)
        amortiser = Amortiser(meter.response, held.prior.draw(self.samples, rng), batch=self.batch)
        features = meter.features(held.public[many], self.batch)
        posterior = Posterior.fit(meter.response, amortiser, features, batch=self.batch)
        ready = LatentReady(self, meter, amortiser, posterior)
        if spared:
            ready.rehearse(held.public[few])
        return ready

    def passes_ahead(self, faces: int) -> int:
        """Preparing once; then three a step (forward and backward), start, stage and face, most."""
        rounds = 1 + 3 * (self.search.steps + 1)
        stages = 3 * self.widening.stages * (self.widening.steps + 1)
        rehearsal = self.rehearsed * (1 + rounds + stages)
        once = self.samples + 2 * self.public + rehearsal
        return once + faces * (self.restarts * rounds + stages)

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """Every pass through the encoder goes through the prior too."""
        passes = self.passes_ahead(faces)
        return Cost(encodes=passes, generates=passes, solves=(self.samples,))


@final
class Meter:
    """The encoder behind the prior, with each face's pass counted; a backward pass is two more."""

    def __init__(self, held: WhiteBox) -> None:
        self._encoder, self.prior, self.passes = held.encoder, held.prior, 0

    def encode(self, images: Tensor) -> Tensor:
        """Features (N, ...) of pictures."""
        self.passes += len(images) * (3 if images.requires_grad else 1)
        feature: Tensor = self._encoder(images)
        return feature

    def response(self, z: Tensor) -> Tensor:
        """``Enc(G(z))``, (N, ...)."""
        return self.encode(self.prior(z))

    @torch.no_grad()
    def features(self, images: Tensor, batch: int) -> Tensor:
        """Features of pictures (N, 3, H, W), in batches."""
        return in_chunks(self.encode, images, batch)

    def stages(self) -> tuple[Stage, ...]:
        """The generator's stages; none where the prior isn't ours."""
        return self.prior.stages() if isinstance(self.prior, Prior) else ()


@dataclass(frozen=True, eq=False)
class Searched:
    """Latents, losses and starts of faces (N,), which settled, and the mean loss's way.

    ``noise`` (N,) is each feature's own level of it; ``loss`` has no unit.
    """

    latents: Tensor
    loss: Tensor
    starts: Tensor
    settled: Tensor
    noise: Tensor
    curve: tuple[float, ...]


@final
class LatentReady(ReadyAttack):
    """Start and metric, and what a rehearsal taught: when to be content, how many stages help."""

    def __init__(
        self, how: WhiteBoxLatent, meter: Meter, amortiser: Amortiser, posterior: Posterior
    ) -> None:
        self._how, self._meter, self._amortiser = how, meter, amortiser
        self._posterior, self._stages = posterior, meter.stages()
        self._content, self._depth, self._prepared = -math.inf, 0, meter.passes

    def rehearse(self, images: Tensor) -> None:
        """Attacks public pictures (N, 3, H, W), and keeps as many stages as made them better."""
        features = self._meter.features(images, self._how.batch)
        found = self._search(features, restarts=1)
        self._content = float(found.loss.max())
        h, error = found.latents, math.inf
        for stage in range(1 + min(self._how.widening.stages, max(len(self._stages) - 1, 0))):
            if stage:
                h = self._widened(features, found.noise, h, stage).points
            with torch.no_grad():
                now = float((self._picture(h, stage) - images).square().mean())
            if now >= error:
                break
            error, self._depth = now, stage
        self._prepared = self._meter.passes

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Faces of the prior, widened (N, 3, H, W), with the losses and the latents they are of."""
        before = self._meter.passes
        parts = chunked(self._one_batch, features, self._how.batch)
        searches = [part[0] for part in parts]
        curve = _mean_curve(searches)
        done, starts = (
            float(torch.cat(told).float().mean())
            for told in ([s.settled for s in searches], [s.starts for s in searches])
        )
        effort = Effort(
            steps=self._how.search.steps + self._depth * self._how.widening.steps,
            passes=self._prepared + self._meter.passes - before,
            curve=curve,
            last_change=last_change(curve),
            converged=done >= SETTLED_FACES or settled(curve),
            note=f"{starts:.1f} starts a face, ranked by the posterior; {self._depth} stages "
            f"widened; the search of {done:.0%} of the faces settled",
        )
        return Guess(
            torch.cat([part[1] for part in parts]),
            torch.cat([part[2] for part in parts]),
            effort,
            torch.cat([search.latents for search in searches]),
        )

    def _one_batch(self, features: Tensor) -> tuple[Searched, Tensor, Tensor]:
        """The search, the pictures and their losses (N,)."""
        found = self._search(features, restarts=self._how.restarts)
        h, loss = found.latents, found.loss
        for stage in range(1, self._depth + 1):
            wide = self._widened(features, found.noise, h, stage)
            h, loss = wide.points, wide.loss
        with torch.no_grad():
            made = in_chunks(lambda x: self._picture(x, self._depth), h, len(h))
            return found, made, loss

    def _search(self, features: Tensor, *, restarts: int) -> Searched:
        """The best latent a face of its starts; only faces that still pay get another one."""
        start = self._amortiser(features)
        with torch.no_grad():
            response = in_chunks(self._meter.response, start, len(start))
            noise = self._posterior.metric.noise(response - features)
        found = self._descended(features, noise, start)
        best, loss, done = found.points, found.loss, found.settled
        starts = torch.ones_like(loss)
        going = loss > self._content
        for turn in range(1, restarts):
            rows = going.nonzero()[:, 0]
            if len(rows) == 0:
                break
            near = self._amortiser.nearest(features[rows], turn)[:, -1]
            again = self._descended(features[rows], noise[rows], near)
            gained = again.loss < (1 - self._how.search.gain) * loss[rows]
            better = again.loss < loss[rows]
            best[rows[better]], loss[rows[better]] = again.points[better], again.loss[better]
            done[rows[better]] = again.settled[better]
            starts[rows] += 1
            going[rows] = gained & (loss[rows] > self._content)
        return Searched(best, loss, starts, done, noise, (*found.curve, float(loss.mean())))

    def _descended(self, features: Tensor, noise: Tensor, start: Tensor) -> Descended:
        def loss(z: Tensor, rows: Tensor) -> Tensor:
            gap = self._meter.response(z) - features[rows]
            return self._posterior.loss(gap, z, noise[rows])

        # In coordinates in which the curvature is 1 in a linear world, few steps suffice.
        turn = whitening(self._posterior.curvature(noise))

        def point(y: Tensor, rows: Tensor) -> Tensor:
            return start[rows] + (turn[rows] @ y[:, :, None])[:, :, 0]

        found = descend(
            lambda y, rows: loss(point(y, rows), rows),
            torch.zeros_like(start),
            how=self._how.search,
        )
        every = torch.arange(len(start), device=start.device)
        return replace(found, points=point(found.points, every))

    def _widened(self, features: Tensor, noise: Tensor, h: Tensor, stage: int) -> Descended:
        """The best activations after ``stage`` stages from the best after one stage less."""
        latent = self._posterior.linear.shape[0]

        def judge(images: Tensor, rows: Tensor) -> Tensor:
            gap = self._meter.encode(images) - features[rows]
            return self._posterior.metric(gap, noise[rows]) / latent

        with torch.no_grad():
            begin = self._stages[stage - 1](h)
        return widen(stage, begin, stages=self._stages, judge=judge, how=self._how.widening)

    def _picture(self, h: Tensor, stage: int) -> Tensor:
        made: Tensor = self._meter.prior(h) if stage == 0 else onwards(h, self._stages[stage:])
        return made


def _mean_curve(parts: list[Searched]) -> tuple[float, ...]:
    """The mean over all faces; a batch that was done early stays where it was."""
    length = max(len(part.curve) for part in parts)
    total = sum(len(part.loss) for part in parts)

    def at(part: Searched, step: int) -> float:
        return part.curve[min(step, len(part.curve) - 1)] * len(part.loss) / total

    return tuple(sum(at(part, step) for part in parts) for step in range(length))
