"""The encoder under audit: a network run up to and including one of its layers.

The cut is a hook that leaves the network by an exception as soon as the layer has answered, so that
it works for any ``forward`` and nothing after the split is ever run. The exception is raised and
caught inside one call, which is why ``torch.func.jvp``, ``vjp`` and ``vmap`` see a plain function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leakaudit.core.errors import UsageError
from leakaudit.models.layers import LAST, check_layer, depths_of, layer_names, nearest_layer
from leakaudit.models.modules import Built, build, load_module
from leakaudit.models.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Prepare,
    Preprocessing,
    Wishes,
)
from leakaudit.models.programs import ENDINGS, Program
from leakaudit.models.published import fetched
from leakaudit.models.users_code import users_code
from leakaudit.models.weights import load_into, load_state, sha256_of, sha256_of_state

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LAST",
    "PassCounter",
    "Preprocessing",
    "SplitEncoder",
    "Wishes",
    "check_features",
    "layer_names",
    "load_encoder",
    "load_encoders",
    "load_module",
]

NOT_SINGLE = (torch.float16, torch.bfloat16, torch.float64)
"""Types of features that are audited as float32, in which prior and attacks compute."""

NO_FILE = "No weights file was given: the factory's own weights are audited"
RANDOM = "The factory gives other weights with another seed: random ones are audited"


@dataclass
class PassCounter:
    """How many pictures went forward through an encoder; a reader takes differences."""

    passes: int = 0


@final
class SplitEncoder(nn.Module):
    """The feature of pictures at one layer of a network.

    ``forward`` takes (N, 3, H, W) in [0, 1] and gives (N, *feature_shape), float32 where the
    network computes in less. The network is frozen
    and stays in evaluation mode, whatever it is put into. ``layer`` is the path of a submodule,
    whose *first* output is taken, or ``"last"`` for the network's own output. ``weights_sha256``
    is the hash of the weights file, or of the tensors where there was none. ``notes`` are sentences
    for the report. ``differentiable`` is False where gradients don't flow back from the feature to
    the picture; a program is tried, another network is taken to have them. ``depth`` is the share
    of the network's multiply-adds that are done at the layer, ``None`` where it isn't known. Raises
    `UnknownNameError` for an unknown layer, `UsageError` where the network can't be run on such
    pictures or the layer gives anything but one tensor with N rows.
    """

    def __init__(
        self,
        network: nn.Module,
        layer: str,
        *,
        preprocessing: Preprocessing,
        name: str,
        weights_sha256: str | None = None,
        notes: tuple[str, ...] = (),
        depth: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.layer = layer
        self.depth = depth
        self.preprocessing = preprocessing
        self.name = name
        self.counter = PassCounter()
        self.prepare = Prepare(preprocessing)
        like = next((p for p in network.parameters() if p.is_floating_point()), None)
        if like is not None:
            self.to(device=like.device)
            self.prepare.to(dtype=like.dtype)
        self.eval()
        feature, calls = self._probe()
        self.feature_shape = tuple(feature.shape[1:])
        self.weights_sha256 = weights_sha256 or sha256_of_state(network)
        if feature.dtype in NOT_SINGLE:
            notes += (f"Its features, {feature.dtype} there, are audited as float32",)
        reused = f"Layer '{layer}' runs {calls} times in one pass; its first output is audited"
        self.differentiable = not isinstance(network, Program) or self._gives_gradients()
        self.notes = notes + ((reused,) if calls > 1 else ())

    def forward(self, images: Tensor) -> Tensor:
        """The features (N, *feature_shape) of pictures (N, 3, H, W) in [0, 1]."""
        self.counter.passes += images.shape[0]
        feature: Tensor = _output_at(self.network, self.layer, self.prepare(images))
        kept = feature.dtype == images.dtype  # whoever asks in float64 is answered so
        return feature.float() if feature.dtype in NOT_SINGLE and not kept else feature

    def train(self, mode: bool = True) -> SplitEncoder:
        """Nothing changes: batch norm in training mode would mix faces and move its statistics."""
        return super().train(False)

    def _probe(self) -> tuple[Tensor, int]:
        """The feature of two grey pictures, checked, and how often the layer runs in a pass."""
        check_layer(self.network, self.layer, where=self.name)
        height, width = self.preprocessing.height_width
        inputs = self.prepare.grey(2)
        with torch.no_grad(), users_code(f"{self.name} on pictures of {height} x {width}"):
            feature = _output_at(self.network, self.layer, inputs)
        _check_output(feature, layer=self.layer, where=self.name, rows=2)
        return feature, _times_run(self.network, self.layer, inputs)

    def _gives_gradients(self) -> bool:
        """Whether a program that was written elsewhere can be differentiated here."""
        inputs = self.prepare.grey(1).requires_grad_()
        try:
            with torch.enable_grad():
                answer = _output_at(self.network, self.layer, inputs)
                torch.autograd.grad(answer.square().sum(), inputs)
        except Exception:
            return False
        return True


def load_encoder(
    spec: str,
    *,
    weights: Path | None,
    layer: str,
    preprocessing: Preprocessing | Wishes,
    trust: bool = False,
    whole: bool = False,
) -> SplitEncoder:
    """The encoder that ``spec`` names (see `modules`), with its weights, cut after ``layer``.

    The one of `load_encoders` for a single layer, without its depth: to count multiply-adds takes
    a process two seconds of imports.
    """
    return load_encoders(
        spec,
        weights=weights,
        layers=(layer,),
        preprocessing=preprocessing,
        trust=trust,
        whole=whole,
        deep=False,
    )[0]


def load_encoders(
    spec: str,
    *,
    weights: Path | None,
    layers: Sequence[str],
    preprocessing: Preprocessing | Wishes,
    trust: bool = False,
    whole: bool = False,
    deep: bool = True,
) -> tuple[SplitEncoder, ...]:
    """The encoder that ``spec`` names with its weights, cut after each of ``layers``.

    The network is built once and shared, so that a factory's random weights are the same at every
    cut. Every tensor that is computed with up to some split must be in the weights file; what lies
    behind all of them may be missing or of another shape, is never run, and is said in ``notes``;
    with ``whole`` all must be there, up to the network's own answer. ``deep`` says whether each
    cut's depth is looked for.
    A layer may be a depth such as ``0.25``; one that was named twice is taken once, and said.
    `Wishes` leave a published network its own preprocessing. Raises `UsageError`,
    `UnknownNameError` and `WeightsError`.
    """
    fetched_file = fetched(spec) if weights is None else None
    weights = weights or fetched_file
    built = build(spec, weights=weights, trust=trust)
    network, own = built.network, built.published
    network.requires_grad_(False).eval()
    notes = list(network.notes) if isinstance(network, Program) else []
    if fetched_file is not None:
        notes.append(f"The fetched weights {fetched_file.name} are taken, as none were given")
    if isinstance(preprocessing, Wishes):
        notes += preprocessing.notes(own.native)
        preprocessing = preprocessing.over(own.native)
    found = _places(built, layers, preprocessing)
    sha256 = built.sha256
    if weights is not None:
        state = load_state(weights, trust=trust, tell=notes.append)
        own.check(state, weights.name)
        height, width = preprocessing.height_width
        with users_code(f"{built.name} on pictures of {height} x {width}"):
            ends = (LAST,) if whole else tuple(found)
            unused = _never_used(network, ends, height=height, width=width)
        where = f"{weights.name} for {built.name}"
        notes += load_into(network, state, where=where, ignore_prefixes=(*unused, *own.without))
        sha256 = sha256_of(weights)
    elif not built.whole:
        notes.append(NO_FILE)
        if _is_random(built, tuple(found), preprocessing):
            notes.append(RANDOM)
    depths = depths_of(network, preprocessing, name=built.name) if deep else {}
    return tuple(
        SplitEncoder(
            network,
            layer,
            preprocessing=preprocessing,
            name=built.name,
            weights_sha256=sha256,
            notes=(*notes, *told),
            depth=depths.get(layer),
        )
        for layer, told in found.items()
    )


def _is_random(built: Built, layers: Sequence[str], preprocessing: Preprocessing) -> bool:
    """Whether tensors that features depend on are other ones when the factory is called again."""
    if built.again is None:
        return False
    height, width = preprocessing.height_width
    try:
        other = built.again().state_dict()
        ours = built.network.state_dict()
        differ = [n for n, t in ours.items() if n not in other or not torch.equal(t, other[n])]
        if not differ:
            return False
        with users_code(f"{built.name} on pictures of {height} x {width}"):
            unused = _never_used(built.network, layers, height=height, width=width)
    except UsageError:
        return False  # what once was enough for is audited
    return not all(name.startswith(unused) for name in differ)


def _places(
    built: Built, layers: Sequence[str], preprocessing: Preprocessing
) -> dict[str, tuple[str, ...]]:
    """The path of each layer that was asked for, once, with what is to be said of it."""
    found: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        _refuse_inside(built, layer)
        path, told = nearest_layer(built.network, layer, preprocessing, name=built.name)
        if path in found:
            twice = f"Layer '{path}' was asked for more than once, and is taken once"
            told = (*found[path], *told, twice)
        found[path] = told
    return found


def _refuse_inside(built: Built, layer: str) -> None:
    if built.whole and layer != LAST:
        raise UsageError(
            f"A program in a {', '.join(ENDINGS)} file runs as a whole, so there is no '{layer}'",
            where=built.name,
            todo="Say --layer last, and save the program up to the layer where it is split",
        )


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
    if _looks_untrained(encoder):
        notes.append(
            "Each of its normalisation layers has the mean 0 and variance 1 of a new network: are "
            "these trained weights?"
        )
    if _depends_on_batch(encoder, few, feature, tolerance):
        notes.append(
            "The feature of a picture depends on the others in its batch (batch norm without "
            "running statistics is the usual cause), so numbers depend on the batch size"
        )
    if len(few) > 1 and float((feature - feature[:1]).abs().max()) <= 1e-6 * tolerance:
        notes.append("The encoder gives the same feature for every picture")
    return tuple(notes)


def _looks_untrained(encoder: nn.Module) -> bool:
    """Whether there are batch norms that keep statistics, and none has seen a picture."""
    kept = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    pairs = [(m.running_mean, m.running_var) for m in kept]
    told = [(a, b) for a, b in pairs if a is not None and b is not None]
    return bool(told) and all(not bool(a.any()) and bool((b == 1).all()) for a, b in told)


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


def _never_used(
    network: nn.Module, layers: Sequence[str], *, height: int, width: int
) -> tuple[str, ...]:
    """Names of parameters and buffers that no feature depends on, and prefixes of them.

    Measured on the operations themselves: a module that is never called can still be used (the
    output projection of torch's attention is), and one that is called need not use all it has.
    """
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    grey = torch.full((2, 3, height, width), 0.5, dtype=like.dtype, device=like.device)
    with torch.no_grad(), _Used() as used:
        for layer in layers:
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


def steepest(encoder: nn.Module, images: Tensor) -> Tensor:
    """The gradient of ``|Enc(x)|²`` by pictures (N, 3, H, W); RuntimeError where there is none."""
    given = images.detach().clone().requires_grad_()
    slope: Tensor = torch.autograd.grad(encoder(given).square().sum(), given)[0]
    return slope
