"""The head that utility is measured on: the network's own rest, the user's, or a linear probe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.types import Doubt
from leakaudit.maths.chunks import in_chunks
from leakaudit.metrics.utility import head_outputs, mean_auc
from leakaudit.models.cloud import cloud_half
from leakaudit.models.encoder import SplitEncoder
from leakaudit.models.faces import Faces
from leakaudit.models.modules import load_module
from leakaudit.models.users_code import users_code

CLOUD = "cloud"
TRIED = 4
"""Pictures that are run through before any picture is read."""
WEAK, WEAK_HEAD = 0.6, "weak-head"
"""A mean AUC on clean enrolled faces below which a head hardly tells its attributes."""


@dataclass(frozen=True, eq=False)
class Head:
    """A network from features to logits (N, A), in the order of the attributes, and its name."""

    module: nn.Module
    name: str
    doubts: tuple[Doubt, ...] = ()


def check_head_options(head: str | None, weights: Path | None, attributes: Path | None) -> None:
    """Raise `UsageError` for options of a head that can't go together."""
    if weights is not None and head in (None, CLOUD):
        raise UsageError(
            "--head-weights are those of --head file.py:factory",
            todo="The encoder's own half takes its weights from --weights"
            if head == CLOUD
            else "Add --head SPEC",
        )
    if head is not None and attributes is None:
        raise UsageError(
            "--head needs --attributes: without the true answers its utility can't be measured",
            todo="Give a CSV file,attr1,attr2,... whose columns are in the order of the logits",
        )


def check_cloud(splits: Iterable[SplitEncoder]) -> None:
    """Raise `UsageError` where a network can't be run on from its feature, before any picture.

    It is tried on pictures of coloured patches. `given_head` looks again at real ones, which also
    tell of features that aren't finite.
    """
    patches = torch.rand(TRIED, 3, 4, 4, generator=Rng(0, ("cloud",)).torch())
    for split in splits:
        images = fn.interpolate(patches, split.preprocessing.height_width)
        with torch.no_grad():
            finite = bool(split(images).isfinite().all())
        if finite:
            cloud_half(split, images)


def given_head(spec: str, weights: Path | None, encoder: SplitEncoder, enrolled: Faces) -> Head:
    """The network's own rest for ``cloud``, else the network that ``spec`` names; on the CPU.

    Raises `UsageError` unless it gives one logit a face and attribute for the encoder's features.
    """
    few = enrolled.images[:8]
    with torch.no_grad():
        features = encoder(few)
    if spec == CLOUD:
        module: nn.Module = cloud_half(encoder, few)
        name = f"the network's own rest behind '{encoder.layer}'"
    else:
        module = load_module(spec, weights)
        name = f"the user's {Path(spec).name}"
    with torch.no_grad(), users_code(f"The head {Path(spec).name} on features"):
        logits = module(features.clone())
    _check(logits, features, enrolled.attribute_names, spec)
    return Head(module, name, _doubts(module, encoder, enrolled))


def _check(logits: object, features: Tensor, names: tuple[str, ...], spec: str) -> None:
    wanted = (len(features), len(names))
    feature = "x".join(map(str, features.shape[1:]))
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = str(logits.dtype) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"The head gives {kind}, not logits {wanted}", where=f"--head {spec}")
    if logits.shape != wanted:
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise UsageError(
            f"The head gives {tuple(logits.shape)} for {len(features)} features of {feature}, and "
            f"{wanted} is expected: one logit for each of the {len(names)} attributes ({shown})",
            where=f"--head {spec}",
            todo="Give the attributes in the order of the head's answers, or another head",
        )
    if not bool(logits.isfinite().all()):
        raise UsageError("The head gives NaN or infinite numbers", where=f"--head {spec}")


def _doubts(module: nn.Module, encoder: SplitEncoder, faces: Faces) -> tuple[Doubt, ...]:
    """A head that fails on clean faces measures no utility, most often for a wrong order."""
    assert faces.attributes is not None
    logits = in_parts(lambda x: head_outputs(module, encoder(x)), faces.images)
    reached = mean_auc(logits, faces.attributes)
    if reached is None or reached >= WEAK:
        return ()
    return (weak_head(reached, "clean enrolled faces"),)


def weak_head(reached: float, where: str) -> Doubt:
    """What a head of this mean AUC is worth, on faces that are called so."""
    return Doubt(
        WEAK_HEAD,
        "serious",
        f"the head's mean AUC on undefended features is below {WEAK:g}",
        f"The head reaches a mean AUC of {reached:.2f} on {where}, where .5 is chance: its utility "
        "says little, and a drop of it nothing.",
        "Check that the columns of --attributes are right (for a head of your own, in the order of "
        "its answers), and that features and faces enough tell the attributes.",
        rows=(("*", "utility"),),
    )


def in_parts(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """``function`` of pictures (N, ...), 64 at a time and without gradients."""
    with torch.no_grad():
        return in_chunks(function, images, 64)
