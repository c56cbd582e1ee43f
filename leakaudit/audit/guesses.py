"""What an attack answered, looked at before anything is measured on it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from leakaudit.attacks.base import Guess
from leakaudit.core.errors import RunError, UsageError
from leakaudit.core.types import Score
from leakaudit.defences.foreign import OVERSHOOT
from leakaudit.metrics.base import Evidence, Metric


def checked_guess(
    guess: Guess, attack: str, rows: int, *, shape: tuple[int, ...], people: int
) -> Guess:
    """The guess, if metrics can be measured on it: ``rows`` of faces, in range and finite.

    Pictures must be (rows, *shape) in [0, 1], embeddings (rows, d), scores (rows, people), where
    -inf rules a name out. A loss must not be NaN.
    An attack that was installed beside ours may answer anything, and one that broke down must not
    be told as one that found nothing. Raises UsageError for another form, RunError for NaN.
    """
    told = f"The attack {attack}"
    if not isinstance(guess, Guess):
        raise UsageError(f"{told} gave a {type(guess).__name__}, not a Guess")
    for name in ("images", "embeddings", "scores", "loss", "latents"):
        part = getattr(guess, name)
        if part is not None and not isinstance(part, Tensor):
            raise UsageError(f"{told} gave {name} as a {type(part).__name__}, not a torch.Tensor")
    forms = {
        "images": (guess.images, (rows, *shape)),
        "embeddings": (guess.embeddings, (rows, None)),
        "scores": (guess.scores, (rows, people)),
    }
    given = [name for name, (tensor, _) in forms.items() if tensor is not None]
    if len(given) != 1:
        what = " and ".join(given) or "none of them"
        raise UsageError(f"{told} gave {what}", todo="Give one of images, embeddings and scores")
    tensor, form = forms[given[0]]
    assert tensor is not None
    _check_form(tensor, form, f"{told} gave {given[0]}", out=given == ["scores"])
    if given == ["images"]:
        _check_range(tensor, told)
    for name, more in (("loss", guess.loss), ("latents", guess.latents)):
        if more is not None and (more.ndim < 1 or len(more) != rows):
            raise UsageError(f"{told} gave {name} of shape {tuple(more.shape)} for {rows} faces")
    if guess.loss is not None and bool(guess.loss.isnan().any()):
        raise RunError(f"{told} gave a loss with NaN", todo="Give None where it has no loss")
    return guess


def checked_score(score: Score, metric: Metric, evidence: Evidence) -> Score:
    """The score, if it is this metric's for this row; UsageError where it is any other's."""
    told = f"The metric {metric.name}"
    if not isinstance(score, Score):
        raise UsageError(f"{told} gave a {type(score).__name__}, not a Score")
    wanted = (metric.name, evidence.defence, evidence.attack, evidence.threat)
    found = (score.metric, score.defence, score.attack, score.threat)
    if found != wanted:
        raise UsageError(
            f"{told} gave a score of {', '.join(map(str, found))}, asked for {', '.join(wanted)}",
            todo="Make it by self.score(evidence, interval)",
        )
    return score


def _check_form(
    tensor: Tensor, shape: tuple[int | None, ...], told: str, *, out: bool = False
) -> None:
    """``out`` where -inf is an answer."""
    found = tuple(tensor.shape)
    fits = len(found) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, found, strict=True)
    )
    if not fits:
        wanted = ", ".join("d" if want is None else str(want) for want in shape)
        raise UsageError(f"{told} of shape {found}, not ({wanted})")
    if not tensor.is_floating_point():
        raise UsageError(f"{told} as {tensor.dtype}, not floating numbers")
    sound = tensor.isfinite() | ((tensor == -math.inf) & out)
    broken = int((~sound.flatten(1).all(1)).sum())
    if broken:
        raise RunError(
            f"{told} with NaN or infinite numbers for {broken} of {len(tensor)} faces",
            todo="Leave it out of --attacks, or mend it: no leak was measured by it",
        )


def _check_range(images: Tensor, told: str) -> None:
    low, high = (float(end) for end in torch.aminmax(images))
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise UsageError(
            f"{told} gave pictures from {low:.3g} to {high:.3g}, not in [0, 1]",
            todo="Scale and clip them in its reconstruct",
        )
