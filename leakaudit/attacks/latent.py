"""whitebox-latent: search the prior's latent space for a face whose feature is the one seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.attacks.base import Attack, Effort, Guess, ReadyAttack, last_change, settled
from leakaudit.core.checks import at_least
from leakaudit.core.rng import Rng
from leakaudit.core.threats import ThreatModel, WhiteBox
from leakaudit.models.best_response import Amortiser, Found, LatentSearch, search, starts


@final
@dataclass(frozen=True)
class WhiteBoxLatent(Attack):
    """``z* = argmin |Enc(G(z)) - F|²`` from several starts; the reconstruction is ``G(z*)``.

    The first start is a ridge regression from features to latents, the others are the prior
    samples with the nearest features; each face keeps the start with the least feature loss, the
    attacker's own. Source: Crafter (NDSS 2024), Eq. 13, with restarts and an amortised start.
    """

    name: ClassVar[str] = "whitebox-latent"
    holds: ClassVar[type[ThreatModel]] = WhiteBox
    source: ClassVar[str] = "Crafter, NDSS 2024, Eq. 13"

    search: LatentSearch = field(default_factory=LatentSearch)
    restarts: int = 2
    samples: int = 1500
    batch: int = 32

    def __post_init__(self) -> None:
        at_least(self.name, 1, restarts=self.restarts, batch=self.batch)
        at_least(self.name, 8, samples=self.samples)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Draws ``samples`` faces of the prior and fits the amortised start on their features."""
        assert isinstance(held, WhiteBox)
        prior, encoder = held.prior, held.encoder

        def response(z: Tensor) -> Tensor:
            return encoder(prior(z))

        amortiser = Amortiser(response, prior.draw(self.samples, rng), batch=self.batch)
        return _Ready(response, prior, amortiser, self)

    def passes_ahead(self, faces: int) -> int:
        """Samples once, then three a step (forward and backward), start and face."""
        return self.samples + 3 * faces * self.restarts * self.search.steps


@final
class _Ready(ReadyAttack):
    def __init__(self, response, prior, amortiser: Amortiser, how: WhiteBoxLatent) -> None:  # type: ignore[no-untyped-def]
        self._response, self._prior, self._amortiser, self._how = response, prior, amortiser, how

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Faces of the prior (N, 3, H, W), their latents and feature losses."""
        parts = [self._best_of_starts(f) for f in features.split(self._how.batch)]
        latents = torch.cat([found.latents for found in parts])
        loss = torch.cat([found.loss for found in parts])
        with torch.no_grad():
            images = torch.cat([self._prior(z) for z in latents.split(self._how.batch)])
        sizes = [len(found.latents) for found in parts]
        curve = tuple(
            sum(found.curve[k] * size for found, size in zip(parts, sizes, strict=True))
            / sum(sizes)
            for k in range(len(parts[0].curve))
        )
        change = last_change(curve)
        effort = Effort(
            steps=self._how.search.steps,
            passes=self._how.passes_ahead(len(features)),
            curve=curve,
            last_change=change,
            converged=settled(curve, negligible=0.002),
            note=f"{self._how.restarts} starts a face, ranked by the feature loss",
        )
        return Guess(images, loss, effort, latents)

    def _best_of_starts(self, features: Tensor) -> Found:
        best: Found | None = None
        for start in starts(self._amortiser, features, self._how.restarts):
            found = search(
                self._response, features, start, scale=self._amortiser.scale, how=self._how.search
            )
            best = found if best is None else _better(best, found)
        assert best is not None
        return best


def _better(a: Found, b: Found) -> Found:
    """The better latent of each face, and the curve of the start that was better on average."""
    pick = b.loss < a.loss
    curve = b.curve if float(b.loss.mean()) < float(a.loss.mean()) else a.curve
    return Found(
        torch.where(pick[:, None], b.latents, a.latents), torch.where(pick, b.loss, a.loss), curve
    )
