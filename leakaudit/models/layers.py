"""Where a network can be split: its layers in the order they run, with shape, size and depth."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leakaudit.core.errors import LeakauditError, UnknownNameError, UsageError
from leakaudit.models.preprocessing import Prepare, Preprocessing
from leakaudit.models.programs import Program
from leakaudit.models.users_code import users_code

LAST: Final = "last"
_DEPTH: Final = re.compile(r"0?\.\d+|1\.0*")


@dataclass(frozen=True)
class Layer:
    """One place to split, or why it is none.

    ``shape`` is the first output of one picture, ``None`` where it isn't one tensor with a row of
    floating numbers a picture, or where the layer is never run. ``depth`` in [0, 1] is the share of
    the network's multiply-adds that are done when that output is there. ``runs`` counts how often
    the layer runs in a pass. ``cut`` says whether all that the network answers flows through that
    output: a branch or the inside of a residual block is no cut, and the cloud half can't be run
    from it alone.
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None
    depth: float
    runs: int
    cut: bool = True

    @property
    def megabytes(self) -> float | None:
        """What the feature of one face takes, as float32, in MB (10^6 bytes)."""
        return None if self.shape is None else 4e-6 * torch.Size(self.shape).numel()


def layer_table(
    network: nn.Module, preprocessing: Preprocessing, *, name: str
) -> tuple[Layer, ...]:
    """All layers in the order in which they first answer, ``last`` at the end of those that run.

    Layers that never run follow with no shape. The network's parameters must be frozen. Two grey
    pictures are sent through; UsageError where the network can't take them. Multiply-adds are
    counted by torch's `FlopCounterMode`; where it counts none, the depth is the position in that
    order.
    """
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    grey = Prepare(preprocessing).to(device=like.device, dtype=like.dtype).grey(2)
    height, width = preprocessing.height_width
    with users_code(f"{name} on pictures of {height} x {width}"):
        try:
            return _watched(network, grey.requires_grad_())
        except Exception:  # some networks refuse gradients: then nothing is known of cuts
            return _watched(network, grey.detach())


def _watched(network: nn.Module, grey: Tensor) -> tuple[Layer, ...]:
    seen = _Watch()
    inside = [] if isinstance(network, Program) else list(network.named_modules())[1:]
    with contextlib.ExitStack() as leave:
        for path, module in inside:
            leave.callback(module.register_forward_hook(seen.at(path)).remove)
        leave.enter_context(seen.counter)
        leave.enter_context(torch.set_grad_enabled(grey.requires_grad))
        seen.note(LAST, network(1 * grey))  # a leaf couldn't be changed in place
    kinds = {path: type(module).__name__ for path, module in inside}
    return seen.table({**kinds, LAST: type(network).__name__})


def layer_at(layers: Sequence[Layer], depth: float) -> Layer:
    """The layer nearest to this depth that cuts the network, of equal ones that which runs last.

    Convolution, norm and activation have one depth: the last of them ends the block.
    """
    usable = [layer for layer in layers if layer.shape is not None and layer.cut]
    nearest = min(abs(layer.depth - depth) for layer in usable)
    return [layer for layer in usable if abs(layer.depth - depth) <= nearest + 1e-9][-1]


def parse_depth(layer: str, names: Sequence[str]) -> float | None:
    """The depth that ``layer`` says, ``None`` where it is a path; a path of digits wins."""
    return float(layer) if layer not in names and _DEPTH.fullmatch(layer) else None


def check_layer(network: nn.Module, layer: str, *, where: str) -> None:
    """`UnknownNameError` unless the network has a submodule of this path, or it is ``last``."""
    names = layer_names(network)
    if layer == LAST or layer in names:
        return
    # A deep network has hundreds of names: without a near one, only the outermost are listed.
    near = difflib.get_close_matches(layer, names, n=1, cutoff=0.4)
    known = names if near else [name for name in names if "." not in name]
    raise UnknownNameError("layer", layer, [*known, LAST], where=where)


def layer_names(module: nn.Module) -> tuple[str, ...]:
    """The paths of all submodules in the order of definition: where one may try to split."""
    return tuple(name for name, _ in module.named_modules() if name)


class _Watch:
    """Notes each layer's first output, how much was computed by then, and how often it ran."""

    def __init__(self) -> None:
        self.counter = FlopCounterMode(display=False)
        self.first: dict[str, tuple[tuple[int, ...] | None, int]] = {}
        self.nodes: dict[str, Any] = {}
        self.runs: dict[str, int] = {}

    def at(self, path: str) -> Any:
        return lambda _module, _inputs, output: self.note(path, output)

    def note(self, path: str, output: Any) -> None:
        self.runs[path] = self.runs.get(path, 0) + 1
        if path not in self.first:
            self.first[path] = (_shape(output), self.counter.get_total_flops())
            self.nodes[path] = getattr(output, "grad_fn", None)

    def table(self, kinds: dict[str, str]) -> tuple[Layer, ...]:
        total, graph = self.first[LAST][1], _Graph(self.nodes[LAST])
        rows = []
        for place, (path, (shape, done)) in enumerate(self.first.items(), start=1):
            depth = done / total if total else place / len(self.first)
            cut = shape is not None and graph.passes(self.nodes[path])
            rows.append(Layer(path, kinds[path], shape, depth, self.runs[path], cut))
        idle = [path for path in kinds if path not in self.first]
        return (*rows, *(Layer(path, kinds[path], None, 0.0, 0, False) for path in idle))


class _Graph:
    """The operations between the network's answer and its input, as autograd recorded them."""

    def __init__(self, end: Any) -> None:
        self.end = end
        self.before: dict[Any, list[Any]] = {}
        ahead = [end] if end is not None else []
        while ahead:
            node = ahead.pop()
            if node not in self.before:
                self.before[node] = [below for below, _ in node.next_functions if below is not None]
                ahead += self.before[node]

    def passes(self, gate: Any) -> bool:
        """Whether every way from the answer to the input leads through ``gate``."""
        if self.end is None:
            return True  # nothing is known
        met, ahead = {gate}, [self.end]
        while ahead:
            node = ahead.pop()
            if node in met:
                continue
            met.add(node)
            ahead += self.before[node]
            if not self.before[node]:  # the picture itself: nothing else has a gradient
                return False
        return True


def _shape(output: Any) -> tuple[int, ...] | None:
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[0] != 2:
        return None
    return tuple(output.shape[1:]) if output.is_floating_point() else None


def nearest_layer(
    network: nn.Module, layer: str, preprocessing: Preprocessing, *, name: str
) -> tuple[str, tuple[str, ...]]:
    """The path that ``layer`` means and a note on it: a depth is looked up, a path is checked."""
    depth = parse_depth(layer, layer_names(network))
    if depth is None:
        check_layer(network, layer, where=name)
        return layer, ()
    table = layer_table(network, preprocessing, name=name)
    if not any(row.shape is not None and row.cut for row in table):
        raise UsageError("No layer of this network gives one tensor", where=name)
    found = layer_at(table, depth)
    note = (
        f"The depth {layer} is nearest to layer '{found.path}', where {found.depth:.2f} of the "
        "multiply-adds are done"
    )
    return found.path, (note,)


def depths_of(network: nn.Module, preprocessing: Preprocessing, *, name: str) -> dict[str, float]:
    """The depth in [0, 1] of each layer that runs; nothing where the whole network can't be run.

    What lies behind a split isn't audited and may not take such pictures.
    """
    try:
        table = layer_table(network, preprocessing, name=name)
    except LeakauditError:
        return {}
    return {layer.path: layer.depth for layer in table if layer.shape is not None}
