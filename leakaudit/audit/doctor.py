"""A check-up of an encoder on labelled faces, before hours are spent on an audit of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.audit.trials import BATCH, Trial, try_all, verdict
from leakaudit.core.errors import InputError
from leakaudit.models.encoder import SplitEncoder, check_features, steepest
from leakaudit.models.faces import Faces, several_of_each

MOST_PEOPLE, MOST_PICTURES = 30, 4
"""How many people and pictures of each are looked at: every preprocessing encodes them all."""
FEW_PEOPLE = 8


@dataclass(frozen=True)
class Gradient:
    """The gradient of ``|Enc(x)|^2`` at a few pictures.

    ``size`` is its root mean square a pixel, ``None`` where there is none or it isn't finite;
    ``blind`` the share of pixels where it is exactly zero.
    """

    size: float | None
    blind: float | None


@dataclass(frozen=True)
class Checkup:
    """What was found: numbers for a table, ``warnings`` and a ``verdict`` as sentences.

    ``norm`` is the mean length of a feature and ``norm_spread`` its deviation over pictures;
    ``dead`` the share of elements that never vary; ``trials`` begin with the given preprocessing.
    """

    encoder: str
    layer: str
    feature_shape: tuple[int, ...]
    pictures: int
    people: int
    norm: float
    norm_spread: float
    dead: float
    gradient: Gradient
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...]
    verdict: str

    @property
    def auc(self) -> float:
        """Same against different people by the cosine of centred features; 1/2 is chance."""
        return self.trials[0].auc


def examine(encoder: SplitEncoder, faces: Faces) -> Checkup:
    """The check-up on at most 30 people who have two pictures or more, four of each.

    Raises InputError where fewer than two people have two pictures.
    """
    chosen = _several_of_each(faces)
    remarks = check_features(encoder, chosen.images)
    with torch.no_grad():
        features = torch.cat([encoder(x).flatten(1) for x in chosen.images.split(BATCH)]).float()
    norms = features.norm(dim=1)
    dead = float((features.std(0) <= 1e-6 * features.abs().max()).float().mean())
    gradient = _gradient(encoder, chosen.images[:4])
    trials = try_all(encoder, chosen)
    people = chosen.n_people
    return Checkup(
        encoder=encoder.name,
        layer=encoder.layer,
        feature_shape=encoder.feature_shape,
        pictures=len(chosen),
        people=people,
        norm=float(norms.mean()),
        norm_spread=float(norms.std()),
        dead=dead,
        gradient=gradient,
        trials=trials,
        warnings=(*remarks, *_warnings(dead, gradient, encoder.differentiable, people)),
        verdict=verdict(trials),
    )


def _several_of_each(faces: Faces) -> Faces:
    chosen = faces.select(several_of_each(faces.people, people=MOST_PEOPLE, pictures=MOST_PICTURES))
    if chosen.n_people < 2:
        raise InputError(
            f"{chosen.n_people} people have two pictures, and separation needs at least two such "
            "people",
            where="--images",
            todo="Give a folder a person with two pictures or more",
        )
    return chosen


def _gradient(encoder: SplitEncoder, images: Tensor) -> Gradient:
    if not encoder.differentiable:
        return Gradient(None, None)
    try:
        slope = steepest(encoder, images)
    except RuntimeError:
        return Gradient(None, None)
    if not bool(slope.isfinite().all()):
        return Gradient(None, None)
    return Gradient(float(slope.square().mean().sqrt()), float((slope == 0).float().mean()))


def _warnings(dead: float, gradient: Gradient, wanted: bool, people: int) -> list[str]:
    found = []
    if dead > 0.5:
        found.append(f"{dead:.0%} of the feature's elements never vary: dead units or wrong scale")
    if not wanted:
        found.append("The encoder gives no gradients: only black-box attacks can be run")
    elif not gradient.size:
        found.append("The gradient to the picture is zero or missing: white-box attacks are blind")
    if people < FEW_PEOPLE:
        found.append(f"Only {people} people have two pictures: the separation is uncertain")
    return found
