"""The subject of an audit: an encoder, the faces it saw, and all that judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from leakaudit.core.types import Doubt
from leakaudit.maths.chunks import in_chunks
from leakaudit.models.devices import CPU
from leakaudit.models.faces import Faces
from leakaudit.models.oracle import IdentityOracle
from leakaudit.models.prior import Prior
from leakaudit.models.verification import Comparisons


@dataclass(frozen=True, eq=False)
class Known:
    """Enrolled pictures (K, 3, H, W) of ``people`` (K,), indices into the oracle's gallery."""

    images: Tensor
    people: Tensor


@dataclass(frozen=True, eq=False)
class Subject:
    """What is audited, and with what.

    ``faces`` are the attacked pictures, their people indices into the oracle's gallery; ``public``
    (M, 3, H, W) shares no person with them; ``head`` maps features to attribute logits; ``about``
    goes to ``result.json`` as the subject; ``trained`` says what was trained, on what. ``known``
    are other pictures of the gallery's people, which only an ``Informed`` adversary holds.
    ``public_marks`` (M, 2, 16, 16) are small greys of the uncut public pictures;
    ``comparisons`` are those that given pairs ask for.
    ``judges`` are further oracles, whose rows stand beside those of ``oracle``, the main one.
    Networks, ``public`` and ``known`` are on ``device``; ``faces`` stay on the CPU, where what is
    measured and reported is compared with them.
    """

    encoder: nn.Module
    faces: Faces
    public: Tensor
    oracle: IdentityOracle
    prior: Prior | None
    head: nn.Module | None
    head_name: str = "none"
    synthetic: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)
    trained: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    known: Known | None = None
    public_marks: Tensor | None = None
    comparisons: Comparisons | None = None
    judges: tuple[IdentityOracle, ...] = ()
    device: torch.device = CPU

    def on(self, device: torch.device) -> Subject:
        """The same subject on another device; its networks are moved, not copied."""
        if device == self.device:
            return self
        for oracle in (self.oracle, *self.judges):
            oracle.to(device)
        known = self.known
        return replace(
            self,
            encoder=self.encoder.to(device),
            prior=None if self.prior is None else self.prior.to(device),
            head=None if self.head is None else self.head.to(device),
            public=self.public.to(device),
            known=known and Known(known.images.to(device), known.people.to(device)),
            device=device,
        )

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """Undefended features (N, ...) of pictures (N, 3, H, W), in parts where memory is short.

        The pictures may lie anywhere; the features are on ``device``.
        """
        return in_chunks(lambda x: self.encoder(x.to(self.device)), images, len(images))
