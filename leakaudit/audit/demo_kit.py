"""The demo's people, protected by the demo's encoder and prior."""

from __future__ import annotations

import torch

from leakaudit.audit.edge import Edge
from leakaudit.audit.plan import named_defence
from leakaudit.audit.recipe import Kit, facts_of
from leakaudit.audit.sources import TensorSource
from leakaudit.demo import load
from leakaudit.models.devices import CPU
from leakaudit.models.subject import Subject


def demo_kit(
    people: int, spec: str, *, preset: str, secret: bytes, seed: int | None, block: int,
    device: torch.device = CPU,
) -> tuple[Kit, TensorSource, Subject]:  # fmt: skip
    """The defence ``spec`` at work, the attacked pictures of ``people``, and who judges them."""
    named = named_defence(spec, preset)
    subject = load.demo_subject(people).on(device)
    edge = Edge(subject.encoder, subject.prior, named.defence, secret, block=block, device=device)
    told = subject.about
    facts = {
        **facts_of(edge, named, secret=secret, seed=seed),
        "encoder": {k: told.get(k) for k in ("encoder", "weights_sha256", "layer")},
        "prior_sha256": told.get("prior_sha256"),
        "demo_people": people,
    }
    names = tuple(f"person-{k + 1:03d}.png" for k in range(len(subject.faces)))
    return Kit(edge, named.label, facts), TensorSource(subject.faces.images, names), subject
