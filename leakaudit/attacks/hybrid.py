"""whitebox-hybrid: other attacks' pictures, each refined until its feature is the one seen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.attacks.base import Attack, Guess, ReadyAttack, prepared
from leakaudit.attacks.decoder import BlackBoxDecoder
from leakaudit.attacks.image_space import PictureSearch, effort_of
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.attacks.pixel import FITTING
from leakaudit.attacks.ridge import BlackBoxRidge
from leakaudit.core.checks import at_least
from leakaudit.core.rng import Rng
from leakaudit.core.threats import Bench, BlackBox, ThreatModel, WhiteBox
from leakaudit.maths.descent import Descended, Descent

STARTS = {
    "decoder": BlackBoxDecoder.name,
    "ridge": BlackBoxRidge.name,
    "latent": WhiteBoxLatent.name,
}
SHORT = 5
"""A fifth of the steps goes to each start before the best one has the rest."""


@final
@dataclass(frozen=True)
class WhiteBoxHybrid(Attack):
    """Pixel search from the decoder's, the ridge's and the latent attack's pictures.

    Each start descends for a fifth of the steps; the one with the least loss, the attacker's own,
    goes on alone, face by face. Source: Crafter (NDSS 2024), the hybrid white-box attack, which
    starts from the decoder alone and takes 150 steps; the other starts and the coordinates are
    ours (see ``whitebox-pixel``). Without a prior there is no latent start. What the starting
    attacks made of the same features already stands on the bench and isn't made again.
    """

    name: ClassVar[str] = "whitebox-hybrid"
    holds: ClassVar[type[ThreatModel]] = WhiteBox
    source: ClassVar[str] = "Crafter, NDSS 2024, hybrid"

    descent: Descent = field(default_factory=lambda: Descent(steps=150))
    batch: int = 32

    def __post_init__(self) -> None:
        at_least(self.name, 1, batch=self.batch)

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Prepares the attacks that give the starts, unless they stand already."""
        assert isinstance(held, WhiteBox)
        asking = _asking(held)
        wanted: dict[str, tuple[Attack, ThreatModel]] = {
            "decoder": (BlackBoxDecoder(), asking),
            "ridge": (BlackBoxRidge(), asking),
        }
        if held.prior is not None:
            wanted["latent"] = (WhiteBoxLatent(), held)
        starts = {
            name: prepared(attack, owns, rng.derive(attack.name))
            for name, (attack, owns) in wanted.items()
        }
        return _Ready(PictureSearch.of(held), starts, self, held.bench)

    def passes_ahead(self, faces: int) -> int:
        """Fitting, and three a step and face; each start takes a fifth.

        The attacks that give the starts are counted by themselves: most plans run them anyway.
        """
        steps, starts = self.descent.steps, len(STARTS)
        looks = starts * (steps // SHORT + 1) + steps - steps // SHORT + 1
        return FITTING + 3 * faces * looks


@final
class _Ready(ReadyAttack):
    def __init__(
        self,
        search: PictureSearch,
        starts: dict[str, ReadyAttack],
        how: WhiteBoxHybrid,
        bench: Bench,
    ) -> None:
        self._search, self._starts, self._how, self._bench = search, starts, how, bench

    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Pictures (N, 3, H, W) and their losses; the curve begins with the best start."""
        search, passes, tried = self._search, self._search.passes, []
        steps = self._how.descent.steps
        short = replace(self._how.descent, steps=steps // SHORT)
        rest = replace(self._how.descent, steps=steps - short.steps)
        for name, attack in self._starts.items():
            guess = self._bench.guess(STARTS[name], features)
            if guess is None:
                guess = attack.reconstruct(features, rng.derive(name))
                passes += guess.effort.passes
            assert guess.images is not None
            start = search.space.coordinates(guess.images.to(features))
            tried.append(search.run(features, start, short, batch=self._how.batch))
        first = Descended.best_of(tried)
        done = search.run(features, first.points, rest, batch=self._how.batch)
        path, spent = torch.cat([first.path, done.path[1:]]), first.spent + done.spent
        whole = replace(done, path=path, spent=spent)
        won = torch.stack([found.loss for found in tried]).argmin(0)
        shares = {
            f"from the {name}": float((won == k).double().mean())
            for k, name in enumerate(self._starts)
        }
        note = "starts: " + ", ".join(self._starts) + "; each face keeps the one with least loss"
        return Guess(
            search.pictures(done.points),
            done.loss,
            effort_of(whole, passes=passes, note=note),
            details=shares | {"weight": search.weight},
        )


def _asking(held: WhiteBox) -> BlackBox:
    """The same adversary, as one who asks the encoder without looking inside."""
    return BlackBox(held.public, held.encoder, recogniser=held.recogniser, bench=held.bench)
