"""The encoder under audit: a network run up to and including one of its layers.

The cut is a hook that leaves the network by an exception as soon as the layer has answered, so that
it works for any ``forward`` and nothing after the split is ever run. The exception is raised and
caught inside one call, which is why ``torch.func.jvp``, ``vjp`` and ``vmap`` see a plain function.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.models.modules import build, load_module, users_code
from leakaudit.models.weights import load_into, load_state, sha256_of, sha256_of_state

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LAST",
    "PassCounter",
    "Preprocessing",
    "SplitEncoder",
    "check_features",
    "layer_names",
    "load_encoder",
    "load_module",
]

LAST: Final = "last"
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What the network does to a picture in [0, 1] before its first layer.

    ``input_size`` is a side or (height, width) in pixels; a picture of another size is cut to that
    shape about its centre and resized. ``channels`` is the network's order; ``mean`` and ``std``
    are in that order and on the scale of [0, 1]: ``(x - mean) / std``.
    """

    input_size: int | tuple[int, int]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: Literal["rgb", "bgr"] = "rgb"

    _orders: ClassVar = ("rgb", "bgr")

    def __post_init__(self) -> None:
        if min(self.height_width) < 1:
            raise UsageError(f"An input size of {self.input_size} holds no pixels")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise UsageError("Mean and std need one number for each of the three channels")
        if not all(deviation > 0 for deviation in self.std):
            raise UsageError(f"Every std must be above zero, not {self.std}")
        if self.channels not in self._orders:
            raise UnknownNameError("order of channels", self.channels, self._orders)

    @property
    def height_width(self) -> tuple[int, int]:
        """The input's height and width in pixels."""
        size = self.input_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass
class PassCounter:
    """How many pictures went forward through an encoder; a reader takes differences."""

    passes: int = 0


@final
class SplitEncoder(nn.Module):
    """The feature of pictures at one layer of a network.

    ``forward`` takes (N, 3, H, W) in [0, 1] and gives (N, *feature_shape). The network is frozen
    and stays in evaluation mode, whatever it is put into. ``layer`` is the path of a submodule,
    whose *first* output is taken, or ``"last"`` for the network's own output. ``weights_sha256``
    is the hash of the weights file, or of the tensors where there was none. ``notes`` are sentences
    for the report. Raises `UnknownNameError` for an unknown layer, `UsageError` where the network
    can't be run on such pictures or the layer gives anything but one tensor with N rows.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        *,
        preprocessing: Preprocessing,
        name: str,
        weights_sha256: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.layer = layer
        self.preprocessing = preprocessing
        self.name = name
        self.counter = PassCounter()
        self.register_buffer(
            "_mean", torch.tensor(preprocessing.mean)[:, None, None], persistent=False
        )
        self.register_buffer(
            "_std", torch.tensor(preprocessing.std)[:, None, None], persistent=False
        )
        like = next((p for p in network.parameters() if p.is_floating_point()), None)
        if like is not None:
            self.to(device=like.device, dtype=like.dtype)
        self.eval()
        feature, calls = self._probe()
        self.feature_shape = tuple(feature.shape[1:])
        self.weights_sha256 = weights_sha256 or sha256_of_state(network)
        reused = f"Layer '{layer}' runs {calls} times in one pass; its first output is audited"
        self.notes = notes + ((reused,) if calls > 1 else ())

    def forward(self, images: Tensor) -> Tensor:
        """The features (N, *feature_shape) of pictures (N, 3, H, W) in [0, 1]."""
        self.counter.passes += images.shape[0]
        feature: Tensor = _output_at(self.network, self.layer, self._prepared(images))
        return feature

    def train(self, mode: bool = True) -> SplitEncoder:
        """Nothing changes: batch norm in training mode would mix faces and move its statistics."""
        return super().train(False)

    def _prepared(self, images: Tensor) -> Tensor:
        height, width = self.preprocessing.height_width
        if images.shape[-2:] != (height, width):
            images = _cut_to_shape(images, height, width)
            images = nn.functional.interpolate(
                images, (height, width), mode="bilinear", align_corners=False, antialias=True
            )
        if self.preprocessing.channels == "bgr":
            images = images.flip(-3)
        return (images.to(self._mean.dtype) - self._mean) / self._std

    def _probe(self) -> tuple[Tensor, int]:
        """The feature of two grey pictures, checked, and how often the layer runs in a pass."""
        _check_layer(self.network, self.layer, where=self.name)
        like, (height, width) = self._mean, self.preprocessing.height_width
        grey = torch.full((2, 3, height, width), 0.5, dtype=like.dtype, device=like.device)
        inputs = self._prepared(grey)
        with torch.no_grad(), users_code(f"{self.name} on pictures of {height} x {width}"):
            feature = _output_at(self.network, self.layer, inputs)
        _check_output(feature, layer=self.layer, where=self.name, rows=2)
        return feature, _times_run(self.network, self.layer, inputs)


def load_encoder(
    spec: str,
    *,
    weights: Path | None,
    layer: str,
    preprocessing: Preprocessing,
    trust: bool = False,
) -> SplitEncoder:
    """The encoder that ``spec`` names (see `modules`), with its weights, cut after ``layer``.

    Every tensor that is computed with up to the split must be in the weights file; what lies behind
    the split may be missing or of another shape, is never run, and is said in ``notes``. Raises
    `UsageError`, `UnknownNameError` and `WeightsError`.
    """
    network, name = build(spec, weights=weights)
    network.requires_grad_(False).eval()
    _check_layer(network, layer, where=name)
    if weights is None:
        note = "No weights file was given: the factory's own weights are audited"
        return SplitEncoder(network, layer, preprocessing=preprocessing, name=name, notes=(note,))
    state = load_state(weights, trust=trust)
    height, width = preprocessing.height_width
    with users_code(f"{name} on pictures of {height} x {width}"):
        unused = _never_used(network, layer, height=height, width=width)
    notes = load_into(network, state, where=f"{weights.name} for {name}", ignore_prefixes=unused)
    return SplitEncoder(
        network,
        layer,
        preprocessing=preprocessing,
        name=name,
        weights_sha256=sha256_of(weights),
        notes=notes,
    )


def layer_names(module: nn.Module) -> tuple[str, ...]:
    """The paths of all submodules in the order of definition: where one may try to split."""
    return tuple(name for name, _ in module.named_modules() if name)


def check_features(encoder: SplitEncoder, images: Tensor) -> tuple[str, ...]:
    """Notes on features of a few real pictures: random, dependent on the batch, or all the same.

    ``images`` (N, 3, H, W) in [0, 1], of which at most eight are used. Features that are not finite
    are a `UsageError` that names the layer.
    """
    few = images[:8]
    with torch.no_grad(), users_code(f"{encoder.name} on these pictures"):
        feature = encoder(few)
        again = encoder(few)
    finite = torch.isfinite(feature).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise UsageError(
            f"The features at layer '{encoder.layer}' of {int((~finite).sum())} of {len(few)} "
            f"pictures hold NaN or infinite numbers",
            where=encoder.name,
            todo="Check the weights, mean and std, and whether the precision is too low",
        )
    tolerance = 1e-3 * float(feature.abs().max()) + 1e-12
    if float((feature - again).abs().max()) > tolerance:
        return ("The encoder is random: the same pictures give other features each time",)
    notes = []
    if _depends_on_batch(encoder, few, feature, tolerance):
        notes.append(
            "The feature of a picture depends on the others in its batch (batch norm without "
            "running statistics is the usual cause), so numbers depend on the batch size"
        )
    if len(few) > 1 and float((feature - feature[:1]).abs().max()) <= 1e-6 * tolerance:
        notes.append("The encoder gives the same feature for every picture")
    return tuple(notes)


class _LeaveNetwork(BaseException):  # so that no "except Exception" in a network holds it back
    """Carries the layer's output out of the network's forward pass; never leaves this file."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def _leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
    raise _LeaveNetwork(output)


def _output_at(network: nn.Module, layer: str, inputs: Tensor) -> Any:
    if layer == LAST:
        return network(inputs)
    # Hooked for this call only: the same network may serve elsewhere, whole or cut elsewhere.
    handle = network.get_submodule(layer).register_forward_hook(_leave)
    try:
        network(inputs)
    except _LeaveNetwork as reached:
        return reached.output
    finally:
        handle.remove()
    raise UsageError(
        f"Layer '{layer}' is there but is not run in a forward pass", todo="Choose another layer"
    )


def _times_run(network: nn.Module, layer: str, inputs: Tensor) -> int:
    """How often the layer runs in one whole pass; a ReLU that serves twice has two outputs."""
    if layer == LAST:
        return 1
    calls = []
    handle = network.get_submodule(layer).register_forward_hook(lambda *_: calls.append(1))
    try:
        with torch.no_grad():
            network(inputs)
    except Exception:
        pass  # what lies behind the split isn't audited and may need other inputs
    finally:
        handle.remove()
    return len(calls)


def _check_layer(network: nn.Module, layer: str, *, where: str) -> None:
    names = layer_names(network)
    if layer == LAST or layer in names:
        return
    # A deep network has hundreds of names: without a near one, only the outermost are listed.
    near = difflib.get_close_matches(layer, names, n=1, cutoff=0.4)
    known = names if near else [name for name in names if "." not in name]
    raise UnknownNameError("layer", layer, [*known, LAST], where=where)


def _check_output(feature: Any, *, layer: str, where: str, rows: int) -> None:
    if not isinstance(feature, Tensor):
        raise UsageError(
            f"Layer '{layer}' gives a {type(feature).__name__}, and a feature is one tensor",
            where=where,
            todo="Choose a layer inside or behind it",
        )
    if feature.ndim < 2 or feature.shape[0] != rows or not feature.is_floating_point():
        raise UsageError(
            f"Layer '{layer}' gives {feature.dtype} of shape {tuple(feature.shape)} for {rows} "
            f"pictures, and a feature has one row of floating numbers for each",
            where=where,
            todo="Choose another layer",
        )


class _Used(TorchDispatchMode):
    """Collects the storage of every tensor that any operation reads or writes."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self.storages |= {tensor.untyped_storage().data_ptr() for tensor in tensors}
        return func(*args, **(kwargs or {}))


def _never_used(network: nn.Module, layer: str, *, height: int, width: int) -> tuple[str, ...]:
    """Names of parameters and buffers that the feature doesn't depend on, and prefixes of them.

    Measured on the operations themselves: a module that is never called can still be used (the
    output projection of torch's attention is), and one that is called need not use all it has.
    """
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    grey = torch.full((2, 3, height, width), 0.5, dtype=like.dtype, device=like.device)
    with torch.no_grad(), _Used() as used:
        _output_at(network, layer, grey)
    state = network.state_dict()
    unused = {n for n, t in state.items() if t.untyped_storage().data_ptr() not in used.storages}
    whole = [
        f"{name}."
        for name in layer_names(network)
        if (inner := [n for n in state if n.startswith(f"{name}.")]) and unused.issuperset(inner)
    ]
    return (*whole, *sorted(unused))


def _depends_on_batch(
    encoder: SplitEncoder, images: Tensor, feature: Tensor, tolerance: float
) -> bool:
    if len(images) < 2:
        return False
    try:
        with torch.no_grad():
            alone = torch.cat([encoder(image[None]) for image in images[:4]])
    except (ValueError, RuntimeError):  # batch norm in training mode refuses a single row
        return True
    return float((alone - feature[:4]).abs().max()) > tolerance


def _cut_to_shape(images: Tensor, height: int, width: int) -> Tensor:
    """The largest centred part with the proportions of height and width."""
    h, w = images.shape[-2:]
    if h * width == w * height:
        return images
    new_h = min(h, max(1, round(w * height / width)))
    new_w = min(w, max(1, round(h * width / height)))
    top, left = (h - new_h) // 2, (w - new_w) // 2
    return images[..., top : top + new_h, left : left + new_w]
