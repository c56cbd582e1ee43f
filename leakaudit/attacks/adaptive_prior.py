"""adaptive-prior: invert public releases, then teach the generator whose faces they were."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from leakaudit.attacks.base import Attack, Guess, Queries, ReadyAttack, prepared
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.attacks.learnt import Judge
from leakaudit.attacks.pairs import released_pairs
from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.rng import Rng
from leakaudit.core.threats import AdaptiveWhiteBox, ThreatModel
from leakaudit.maths.chunks import in_chunks
from leakaudit.maths.ridge import Ridge

LOOKS = 10
"""Looks at held-out pictures within a training; three without a gain end it."""
PATIENCE = 3


@final
@dataclass(frozen=True)
class AdaptivePrior(Attack):
    """Inverts releases of public ``x`` to ``z*``, then updates G on ``|G(z*) - x|²``.

    ``z*`` is what ``whitebox-latent`` finds with the given prior; a new release is inverted by the
    same search, and the new G shows its latent. Candidates: the prior as it is; it after a ridge
    map among latents, from ``z*`` to the inversion of the clean feature; and each of them with the
    generator updated (RMSprop at ``rate``), the best look at held-out pictures kept. The judge
    takes the one that shows held-out public pictures best.
    Source: Crafter (NDSS 2024), adaptive adversary A1 for the white box; the map is ours.
    """

    name: ClassVar[str] = "adaptive-prior"
    inverts_queries: ClassVar[bool] = True
    holds: ClassVar[type[ThreatModel]] = AdaptiveWhiteBox
    source: ClassVar[str] = "Crafter, NDSS 2024, A1"
    needs: ClassVar[tuple[str, ...]] = ("prior",)

    queries: int = 48
    repeats: int = 1
    steps: int = 100
    batch: int = 24
    rate: float = 1e-3
    latent: WhiteBoxLatent = field(default_factory=WhiteBoxLatent)

    def __post_init__(self) -> None:
        at_least(self.name, 8, queries=self.queries)
        at_least(self.name, 1, repeats=self.repeats, steps=self.steps, batch=self.batch)
        above_zero(self.name, rate=self.rate)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Sends his pictures through the defence, inverts them and updates the generator."""
        assert isinstance(held, AdaptiveWhiteBox)
        asked = released_pairs(held, self.queries, releases=self.repeats)
        search = prepared(self.latent, held, rng.derive(self.latent.name))
        clean, _ = _inverted(search, asked.clean, rng.derive("clean"))
        guesses = [
            _inverted(search, r, rng.derive("released", k)) for k, r in enumerate(asked.released)
        ]
        found = torch.stack([latents for latents, _ in guesses])
        fit, rest = asked.fit, asked.held_out
        pairs = found[:, fit].flatten(0, 1), torch.cat([asked.images[fit]] * self.repeats)
        seen = found[:, rest].flatten(0, 1), torch.cat([asked.images[rest]] * self.repeats)
        # Latents are few: in float64 a map with large weights costs no digits.
        among = Ridge.fit(pairs[0].double(), torch.cat([clean[fit]] * self.repeats).double())
        plain: list[nn.Module] = [held.prior, _Mapped(among, held.prior)]
        updated = [self._updated(g, pairs, seen, rng.derive(k)) for k, g in enumerate(plain)]
        judge = Judge(seen[1], held.recogniser)
        # The static search may show more than its generator does: it is judged by all it shows.
        static = torch.cat([images[rest] for _, images in guesses])
        others = [_shown(g, seen[0]) for g in (*plain[1:], *updated)]
        errors = [judge.error(images) for images in (static, *others)]
        best = min(range(len(errors)), key=errors.__getitem__)
        passes = self.latent.passes_ahead(len(asked.images) * (1 + self.repeats))
        return _Ready(search, (*plain, *updated)[best], TOLD[best], passes)

    def passes_ahead(self, faces: int) -> int:
        """The search's own, for queried pictures, their releases and the faces."""
        return self.latent.passes_ahead(faces + self.queries * (1 + self.repeats))

    def queries_ahead(self) -> Queries:
        """Each picture ``repeats`` times."""
        return Queries(self.queries, self.repeats)

    def _updated(
        self, start: nn.Module, pairs: tuple[Tensor, Tensor], seen: tuple[Tensor, Tensor], rng: Rng
    ) -> nn.Module:
        """A copy of ``start`` trained on pairs; its best look at ``seen``, the first included."""
        latents, images = pairs
        learner = copy.deepcopy(start).requires_grad_(True)
        learnt = [p for p in learner.parameters() if p.requires_grad]
        if not learnt:  # a generator without weights of its own
            return learner
        optimiser = torch.optim.RMSprop(learnt, lr=self.rate)
        generator, every = rng.torch(), max(1, self.steps // LOOKS)
        best, least, quiet = copy.deepcopy(learner.state_dict()), _error(learner, *seen), 0
        for step in range(self.steps):
            pick = torch.randint(len(latents), (self.batch,), generator=generator)
            loss = (learner(latents[pick]) - images[pick]).square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if step % every != every - 1:
                continue
            error = _error(learner, *seen)
            quiet = 0 if error < least else quiet + 1
            if error < least:
                best, least = copy.deepcopy(learner.state_dict()), error
            if quiet == PATIENCE:
                break
        learner.load_state_dict(best)
        return learner.eval().requires_grad_(False)


TOLD = (
    "the prior as it is",
    "the prior after a map among latents",
    "the updated prior",
    "the updated prior after a map among latents",
)


@final
class _Mapped(nn.Module):
    """A generator after a fixed map among latents."""

    def __init__(self, among: Ridge, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self._among = among

    def forward(self, z: Tensor) -> Tensor:
        """Faces (N, 3, H, W) for latents (N, latent)."""
        faces: Tensor = self.generator(self._among(z.double()).to(z))
        return faces


@final
class _Ready(ReadyAttack):
    def __init__(self, search: ReadyAttack, generator: nn.Module, told: str, passes: int) -> None:
        self._search, self._generator = search, generator
        self._told, self._passes = told, passes

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Faces of the chosen generator at the latents of the search, with its feature losses."""
        guess = self._search.reconstruct(features, rng)
        assert guess.latents is not None
        passes = guess.effort.passes + self._passes
        effort = replace(guess.effort, passes=passes, note=f"{self._told}; {guess.effort.note}")
        if self._told == TOLD[0]:
            return replace(guess, effort=effort)
        return replace(guess, images=_shown(self._generator, guess.latents), effort=effort)


def _inverted(search: ReadyAttack, features: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
    """The latents and the pictures of the search's guess."""
    guess = search.reconstruct(features, rng)
    assert guess.latents is not None and guess.images is not None
    return guess.latents, guess.images


@torch.no_grad()
def _shown(generator: nn.Module, latents: Tensor) -> Tensor:
    return in_chunks(generator, latents, 64).clamp(0, 1)


def _error(generator: nn.Module, latents: Tensor, images: Tensor) -> float:
    return float((_shown(generator, latents) - images).square().mean())
