"""Published networks by name, with the preprocessing they were published with.

Their weights are files that the user gives or has fetched; nothing is downloaded here, and random
ones are refused.
"""

from __future__ import annotations

import difflib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from leakaudit.core.errors import UnknownNameError, UsageError, WeightsError
from leakaudit.models.catalogue import KNOWN, at_hand, missing
from leakaudit.models.preprocessing import Native, Three

# Classes in the published heads: facenet-pytorch, InceptionResnetV1.
_FACENET: Final = {"vggface2": 8631, "casia-webface": 10575}


@dataclass(frozen=True, eq=False)
class Published:
    """A network, its own preprocessing, and names in its weights files that it does without.

    ``check`` raises WeightsError for a state that belongs to another network.
    """

    network: nn.Module
    native: Native = Native()  # noqa: RUF009 - frozen
    without: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Tensor], str], None] = lambda state, where: None


def torchvision_network(name: str) -> Published:
    """A network of torchvision's, with random weights."""
    from torchvision import models

    known = models.list_models(module=models)
    _known("torchvision network", name, known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some warn about how they draw weights, which we replace
        return Published(models.get_model(name, weights=None))


def timm_network(name: str) -> Published:
    """A network of timm's with the size, mean and std of its configuration, random weights."""
    if importlib.util.find_spec("timm") is None:
        raise UsageError(
            "timm isn't installed", where=f"timm:{name}", todo="pip install 'timm>=1.0'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm
        from timm.data import resolve_model_data_config  # type: ignore[attr-defined]

        _known("timm network", name.partition(".")[0], timm.list_models())
        try:
            network: nn.Module = timm.create_model(name, pretrained=False)
        except RuntimeError as error:  # resnet18.NO_SUCH_TAG
            raise UsageError(str(error), where=f"timm:{name}") from error
        config: Mapping[str, Any] = resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise UsageError(f"It takes {channels} channels, not pictures", where=f"timm:{name}")
    return Published(
        network, Native((height, width), _three(config["mean"]), _three(config["std"]))
    )


def facenet_network(name: str) -> Published:
    """facenet-pytorch's InceptionResnetV1 (Szegedy et al. 2017; Schroff et al. 2015), random.

    160 x 160 pictures, ``(255 x - 127.5) / 128``; unit embeddings of 512 numbers.
    """
    if name not in _FACENET:
        raise UnknownNameError("facenet weights", name, _FACENET)
    if importlib.util.find_spec("facenet_pytorch") is None:
        raise UsageError(
            "facenet-pytorch isn't installed",
            where=f"facenet:{name}",
            todo="pip install 'facenet-pytorch>=2.5.3,<2.6'",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from facenet_pytorch import InceptionResnetV1

        network: nn.Module = InceptionResnetV1(pretrained=None, classify=False)

    def check(state: Mapping[str, Tensor], where: str) -> None:
        head = next((t for n, t in state.items() if n.endswith("logits.weight")), None)
        if head is None or len(head) == _FACENET[name]:
            return
        other = next((n for n, people in _FACENET.items() if people == len(head)), "neither's")
        raise WeightsError(
            f"The file's head knows {len(head)} people, so its weights are {other}, not {name}'s",
            where=where,
            todo=f"Say facenet:{other}, or give the other file" if other in _FACENET else None,
        )

    deviation = 128 / 255
    native = Native((160, 160), (0.5, 0.5, 0.5), (deviation, deviation, deviation))
    return Published(network, native, without=("logits.",), check=check)


PUBLISHERS: Final[Mapping[str, Callable[[str], Published]]] = {
    "torchvision": torchvision_network,
    "timm": timm_network,
    "facenet": facenet_network,
}


def refuse_random(spec: str, weights: Path | None) -> None:
    """WeightsError without a file: a published network's random weights say nothing of it."""
    if weights is None:
        raise WeightsError(
            f"No weights are given for {spec}, and random ones are never audited",
            todo=missing(spec),
        )


def fetched(spec: str) -> Path | None:
    """The file of this SPEC's own weights that ``leakaudit fetch`` has brought, or ``None``."""
    return at_hand(KNOWN[spec]) if spec in KNOWN else None


def _known(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise UnknownNameError(kind, name, known if near else known[:8])


def _three(values: Any) -> Three:
    a, b, c = (float(value) for value in values)
    return a, b, c
