"""Which preprocessing a network was trained with: its usual rivals, tried on labelled faces."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.maths.intervals import auc
from leakaudit.models.encoder import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, SplitEncoder
from leakaudit.models.faces import Faces

SCALES: Final = {
    "ImageNet's mean and std": (IMAGENET_MEAN, IMAGENET_STD),
    "[0, 1]": ((0.0,) * 3, (1.0,) * 3),
    "[-1, 1]": ((0.5,) * 3, (0.5,) * 3),
    "[0, 255]": ((0.0,) * 3, (1 / 255,) * 3),
}
BATCH = 16
MATERIAL = 0.02
"""A difference of AUC that is worth a word, if it is also twice its own standard error."""
BLIND = 0.6
"""An AUC under which a layer tells people apart so badly that nothing follows from it."""
MISFIT = 0.5
"""Nats a channel by which the first normalisation layer must disagree before that is told."""


@dataclass(frozen=True)
class Trial:
    """How a preprocessing did: the area under the curve of same against different people.

    ``gain`` over the given one with its standard error ``error`` (jackknife over people).
    ``misfit`` compares the first batch norm's input with what it saw in training: the median
    Kullback-Leibler divergence of normal distributions a channel, ``None`` without such a layer.
    """

    channels: str
    scale: str
    auc: float
    gain: float
    error: float
    misfit: float | None

    @property
    def words(self) -> str:
        """``BGR channels, [0, 1]``."""
        return f"{self.channels.upper()} channels, {self.scale}"

    @property
    def better(self) -> bool:
        """Whether it beats the given one by more than chance."""
        return self.gain > max(MATERIAL, 2 * self.error)


def try_all(encoder: SplitEncoder, faces: Faces) -> tuple[Trial, ...]:
    """The given preprocessing first, then its rivals in both orders of channels.

    ``faces`` show at least two people, some of them twice.
    """
    given = encoder.preprocessing
    named: dict[Preprocessing, str] = {given: _scale_of(given)}
    for name, (mean, std) in SCALES.items():
        for channels in ("rgb", "bgr"):
            named.setdefault(replace(given, mean=mean, std=std, channels=channels), name)
    swapped = replace(given, channels="rgb" if given.channels == "bgr" else "bgr")
    named.setdefault(swapped, named[given])
    trials: list[Trial] = []
    first: tuple[float, Tensor] | None = None
    for preprocessing, scale in named.items():
        features, misfit = _seen(encoder, preprocessing, faces.images)
        auc, left_out = separation(features, faces.people)
        first = first or (auc, left_out)
        error = _jackknife(left_out - first[1])
        trials.append(Trial(preprocessing.channels, scale, auc, auc - first[0], error, misfit))
    return tuple(trials)


def verdict(trials: tuple[Trial, ...]) -> str:
    """What the trials say about the preprocessing, in a sentence or two."""
    given, best = trials[0], max(trials, key=lambda trial: trial.auc)
    told = _by_statistics(trials)
    if best.auc < BLIND:
        return told or (
            f"No preprocessing makes this layer tell people apart (AUC {best.auc:.2f} at best), so "
            "nothing can be said: try a later layer, or check the weights"
        )
    if not best.better:
        return told or (
            f"The preprocessing as given ({given.words}) separates people as well as any that was "
            f"tried (AUC {given.auc:.2f}){_order_unknown(trials)}"
        )
    # Of those that do about as well, the one that changes least: no change is claimed in vain.
    near = [t for t in trials if t.better and best.auc - t.auc <= MATERIAL / 2]
    chosen = min(near, key=lambda trial: (_changes(trial, given), -trial.auc))
    fits = _best_fit(trials)
    if chosen.misfit is not None and fits is not None and _far_worse(chosen, fits):
        # What the network was trained on says more than how well a few people separate.
        apart = f"though {chosen.words} separates these people better (AUC {chosen.auc:.2f} "
        apart += f"against {given.auc:.2f} as given)"
        if _far_worse(given, fits) and told:
            return f"{told.partition(', although')[0]}, {apart}"
        return (
            f"The preprocessing as given ({given.words}) fits the network's first normalisation "
            f"layer (misfit {given.misfit or 0.0:.2f} against {chosen.misfit:.2f} nats), {apart}: "
            "nothing speaks for a change but these faces"
        )
    return (
        f"{_difference(chosen, given)}: people separate better so "
        f"(AUC {chosen.auc:.2f} against {given.auc:.2f} as given)"
    )


def separation(features: Tensor, people: Tensor) -> tuple[float, Tensor]:
    """The AUC of cosines, same against different people, and without each person (P,).

    Features (N, d) are centred over the pictures first, because all faces share most of an early
    feature. 1/2 is chance.
    """
    directions = fn.normalize(features - features.mean(0), dim=1)
    row, column = torch.triu_indices(len(people), len(people), offset=1)
    cosine = (directions @ directions.T)[row, column]
    same = people[row] == people[column]
    left = []
    for person in people.unique():
        rest = (people[row] != person) & (people[column] != person)
        left.append(auc_of(cosine[rest], same[rest]))
    return auc_of(cosine, same), torch.tensor(left, dtype=torch.float64)


def auc_of(scores: Tensor, positive: Tensor) -> float:
    """The area under the ROC curve, in [0, 1]; 1/2 where one kind is missing."""
    area = auc(scores, positive)
    return 0.5 if area is None else area


def _jackknife(values: Tensor) -> float:
    count = len(values)
    return float(((count - 1) / count * (values - values.mean()).square().sum()).sqrt())


@torch.no_grad()
def _seen(
    encoder: SplitEncoder, preprocessing: Preprocessing, images: Tensor
) -> tuple[Tensor, float | None]:
    """Features (N, d) under this preprocessing, and the misfit of the first normalisation."""
    network = encoder.network
    changed = SplitEncoder(
        network, encoder.layer, preprocessing=preprocessing, name=encoder.name,
        weights_sha256=encoder.weights_sha256,
    )  # fmt: skip
    norm = next((m for m in network.modules() if _keeps_statistics(m)), None)
    inputs: list[Tensor] = []
    with contextlib.ExitStack() as leave:
        if norm is not None:
            hook = norm.register_forward_pre_hook(lambda _norm, given: inputs.append(given[0]))
            leave.callback(hook.remove)
        features = torch.cat([changed(x).flatten(1) for x in images.split(BATCH)])
    misfit = _misfit(norm, torch.cat(inputs)) if norm is not None and inputs else None
    return features.float().nan_to_num(), misfit


def _keeps_statistics(module: nn.Module) -> bool:
    batch_norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    return batch_norm and getattr(module, "running_mean", None) is not None


def _misfit(norm: Any, inputs: Tensor) -> float:
    channels = inputs.transpose(0, 1).flatten(1).double()
    mean, variance = channels.mean(1), channels.var(1).clamp(min=1e-12)
    there, spread = norm.running_mean.double(), norm.running_var.double().clamp(min=1e-12)
    ratio = variance / spread
    divergence = (ratio - 1 - ratio.log() + (mean - there).square() / spread) / 2
    return float(divergence.median())  # a dead channel has no say


def _by_statistics(trials: tuple[Trial, ...]) -> str | None:
    """What the first normalisation layer says, where it speaks clearly."""
    given = trials[0]
    if given.misfit is None:
        return None
    best = _best_fit(trials)
    if best is None or not _far_worse(given, best):
        return None
    return (
        f"{_difference(best, given)}: the network's first normalisation layer was trained on such "
        f"inputs (misfit {best.misfit:.2f} against {given.misfit:.2f} nats as given), although "
        "separation doesn't tell at this layer"
    )


def _best_fit(trials: tuple[Trial, ...]) -> Trial | None:
    """The one whose inputs are nearest to what the first normalisation layer was trained on."""
    fits = [trial for trial in trials if trial.misfit is not None]
    return min(fits, key=lambda trial: trial.misfit or 0.0, default=None)


def _far_worse(trial: Trial, best: Trial) -> bool:
    """Whether the first normalisation layer clearly was not trained on such inputs."""
    misfit = trial.misfit or 0.0
    return misfit >= MISFIT and (best.misfit or 0.0) <= misfit / 3


def _difference(chosen: Trial, given: Trial) -> str:
    parts = []
    if chosen.channels != given.channels:
        parts.append(f"channels are probably {chosen.channels.upper()}")
    if chosen.scale != given.scale:
        parts.append(f"the scale is probably {chosen.scale}")
    text = " and ".join(parts)
    return text[0].upper() + text[1:]


def _order_unknown(trials: tuple[Trial, ...]) -> str:
    """A remark where the other order of channels does as well, so that no order is claimed."""
    given = trials[0]
    for trial in trials[1:]:
        swapped = trial.scale == given.scale and trial.channels != given.channels
        if swapped and abs(trial.gain) <= max(MATERIAL, 2 * trial.error):
            return "; the other order of channels does as well, so which is right can't be told"
    return ""


def _changes(trial: Trial, given: Trial) -> int:
    return (trial.channels != given.channels) + (trial.scale != given.scale)


def _scale_of(preprocessing: Preprocessing) -> str:
    own = (preprocessing.mean, preprocessing.std)
    return next((name for name, known in SCALES.items() if known == own), "mean and std as given")
