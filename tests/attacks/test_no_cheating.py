"""An attack sees features and what its threat model lists; here is what follows from that.

That no reconstruction feels what becomes of the originals is held with the contract of attacks.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from small import SMALL
from torch import Tensor
from toys import ToyFaces, ToyHead, pooling_encoder, toy_faces

from leakaudit.attacks import ATTACKS
from leakaudit.attacks.base import ReadyAttack
from leakaudit.core.rng import Rng
from leakaudit.core.threats import THREATS, Bench, Informed, ThreatModel, WhiteBox

POSSESSIONS = {"public", "query", "prior", "head", "encoder", "release", "recogniser", "bench"}


@cache
def faces() -> ToyFaces:
    return toy_faces(per_person=2)


def held(name: str) -> ThreatModel:
    encoder, toy = pooling_encoder(), faces()
    things: dict[str, Any] = {
        "public": toy.public,
        "query": encoder,
        "encoder": encoder,
        "prior": toy.prior,
        "head": ToyHead(),
        "release": lambda x, count: torch.stack([encoder(x)] * count),
        "known": toy_faces(per_person=3).images,
        "labels": toy_faces(per_person=3).people,
        "recogniser": toy.oracle.embed,
        "bench": Bench(),
    }
    kind = ATTACKS.find(name).holds
    return kind(**{field.name: things[field.name] for field in dataclasses.fields(kind)})


@cache
def ready(name: str) -> ReadyAttack:
    return ATTACKS.make(name, SMALL.get(name, {})).prepare(held(name), Rng(1))


def features() -> Tensor:
    return pooling_encoder()(faces().images)


@pytest.mark.parametrize("kind", THREATS.values(), ids=THREATS)
def test_no_threat_model_has_room_for_the_attacked_pictures(kind: type[ThreatModel]) -> None:
    fields = {field.name for field in dataclasses.fields(kind)}
    labelled = {"known", "labels"} if kind is Informed else set()  # other pictures, said so
    assert fields <= POSSESSIONS | labelled
    assert any("attacked" in thing or "private" in thing for thing in kind.never_holds)


def test_a_black_box_has_no_weights_and_a_static_adversary_no_handle_on_the_defence() -> None:
    for kind in THREATS.values():
        fields = {field.name for field in dataclasses.fields(kind)}
        assert ("encoder" in fields) == issubclass(kind, WhiteBox)
        assert ("release" in fields) == kind.adaptive


def test_permuting_the_features_permutes_the_reconstructions() -> None:
    order = torch.randperm(len(features()), generator=Rng(3).torch())
    for name in ("blackbox-decoder", "whitebox-latent"):
        straight = ready(name).reconstruct(features(), Rng(2)).images
        turned = ready(name).reconstruct(features()[order], Rng(2)).images
        torch.testing.assert_close(turned, straight[order], rtol=0, atol=1e-3)
