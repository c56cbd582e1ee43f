"""blackbox-decoder: a network from features to pictures, trained on public pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from leakaudit.attacks.base import Attack, Effort, Guess, ReadyAttack, last_change, settled
from leakaudit.attacks.pairs import learnable
from leakaudit.core.cost import Cost
from leakaudit.core.rng import Rng
from leakaudit.core.threats import BlackBox, ThreatModel
from leakaudit.maths.chunks import in_chunks
from leakaudit.models.decoder import DecoderLog, DecoderTraining, train_decoder


@final
@dataclass(frozen=True)
class BlackBoxDecoder(Attack):
    """Trains a decoder on ``(Enc(x), x)`` for public ``x`` and applies it to the feature.

    Source: He et al. 2019 (ACSAC), "Model inversion attacks against collaborative inference";
    black-box inversion of Crafter (NDSS 2024). Loss: MSE plus a structural term.
    """

    name: ClassVar[str] = "blackbox-decoder"
    holds: ClassVar[type[ThreatModel]] = BlackBox
    source: ClassVar[str] = "He et al. 2019"

    training: DecoderTraining = field(default_factory=DecoderTraining)
    batch: int = 128

    def prepare(self, held: ThreatModel, rng: Rng) -> ReadyAttack:
        """Queries the encoder once for each public image to learn from and trains the decoder."""
        assert isinstance(held, BlackBox)
        seen = learnable(held.public)
        with torch.no_grad():
            features = in_chunks(held.query, seen, self.batch)
        decoder, log = train_decoder(features, seen, training=self.training, rng=rng)
        return DecoderTrained(decoder, log, len(seen), self)

    def cost_ahead(self, faces: int, public: int) -> Cost:
        """A query a public picture, and the training."""
        return Cost(encodes=public, decoder_steps=self.training.steps * self.training.batch / 48)


@final
class DecoderTrained(ReadyAttack):
    """The trained ``decoder``, applied as it is; other attacks start from it."""

    def __init__(
        self, decoder: torch.nn.Module, log: DecoderLog, queries: int, how: BlackBoxDecoder
    ) -> None:
        self.decoder = decoder
        self._log, self._queries, self._how = log, queries, how

    @torch.no_grad()
    def reconstruct(self, features: Tensor, rng: Rng) -> Guess:
        """Pictures (N, 3, H, W); the decoder has no loss of its own on a private feature."""
        images = in_chunks(self.decoder, features, self._how.batch)
        checks = self._log.held_out
        change = last_change(checks)
        effort = Effort(
            steps=self._how.training.steps,
            passes=self._queries,
            curve=checks,
            last_change=change,
            converged=settled(checks),
            note="curve: loss on held-out public pictures",
        )
        return Guess(images, None, effort)
