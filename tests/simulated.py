"""An accelerator that isn't there: tensors on a device ``sim`` whose numbers are kept on the CPU.

What a GPU refuses is refused here too: an operation that mixes its tensors with the CPU's (but for
single numbers), a CPU generator for a draw on the device, a draw from the device's own stream,
which no seed of ours reaches, and ``.numpy()``. So code that runs here puts its tensors where they
belong, and its numbers can be held against the CPU's. Says nothing of a GPU's own rounding.

Needs a torch that lets Python be a backend, and is registered once a process, before the first
backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch

NAME = "sim"
_COPIES = {"aten::copy_", "aten::_copy_from"}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_STRICT = {"aten::cat", "aten::stack"}  # take no single numbers of the CPU either


class _Backend:
    """What torch asks of a device's module, for other tests' sake: it has no stream to be kept."""

    @staticmethod
    def is_available() -> bool:
        return True

    is_initialized = is_available

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """There is no stream to be seeded: draws on the device are refused."""

    @staticmethod
    def get_rng_state(device: Any = None) -> Tensor:
        return torch.zeros(0, dtype=torch.uint8)

    @staticmethod
    def set_rng_state(state: Tensor, device: Any = None) -> None:
        """Nothing to set."""

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16]


class Simulated(torch.Tensor):
    """A tensor on the device; ``inner`` is the CPU tensor that holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Simulated:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=torch.device(NAME, 0),
        )  # fmt: skip
        made.inner = inner
        return made  # type: ignore[no-any-return]

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Simulated({self.inner})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    def new_tensor(self, data: Any, **settings: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, **settings}).to(self.device)

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_tensors(index, self.device))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_tensors(index, self.device), value)


def _tensors(index: Any, device: torch.device) -> Any:
    """Lists in an index as tensors; torch's own way to make them passes Python by."""
    if isinstance(index, tuple):
        return tuple(_tensors(part, device) for part in index)
    return torch.tensor(index).to(device) if isinstance(index, list) else index


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the inner tensors, if a device would do it."""
    name = func._schema.name
    leaves = _leaves((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, Simulated)]
    asked = kwargs.get("device")
    here = bool(ours) if asked is None else torch.device(asked).type == NAME
    _refuse(func, name, args, leaves, ours, here)
    given = args, kwargs
    args, kwargs = _mapped(_inner, given)
    if asked is not None:
        kwargs["device"] = torch.device("cpu")
    if name in _COPIES:
        func(*args, **kwargs)
        return leaves[0]
    if torch.Tag.inplace_view in func.tags:  # the shell has to change its shape as well
        func(*args, **kwargs)
        with no_dispatch():
            return func(*given[0], **given[1])
    known = {id(tensor.inner): tensor for tensor in ours}
    made = func(*args, **kwargs)

    def wrapped(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) in known:  # in place
            same = known[id(leaf)]
            assert same.shape == leaf.shape, f"{name} changes a shape in place"
            return same
        return Simulated(leaf) if here else leaf

    return _mapped(wrapped, made)


def _leaves(tree: Any) -> list[Any]:
    """What an operation is given, out of its lists; torch's own way takes most of the time."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [tree]


def _mapped(function: Any, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _mapped(function, part) for key, part in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)([_mapped(function, part) for part in tree])
    return function(tree)


def _refuse(
    func: Any, name: str, args: Any, leaves: list[Any], ours: list[Simulated], here: bool
) -> None:
    if here and torch.Tag.nondeterministic_seeded in func.tags:
        raise RuntimeError(f"{name}: a draw on the device, from a stream that no seed reaches")
    if not ours or name in _COPIES:
        return
    if name in _INDEXED and isinstance(args[0], Simulated):
        leaves = [args[0], *args[2:]]  # indices may lie on the CPU
    strangers = [
        leaf for leaf in leaves
        if isinstance(leaf, Tensor) and not isinstance(leaf, Simulated)
        and (leaf.dim() > 0 or name in _STRICT)
    ]  # fmt: skip
    if strangers:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in strangers)
        raise RuntimeError(
            f"{name}: Expected all tensors to be on the same device, but found {NAME}:0 and cpu "
            f"({shapes})"
        )


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, Simulated) else leaf


_FACTORIES = (torch.ops.aten.arange, torch.ops.aten.eye, torch.ops.aten.linspace)
"""Those that torch makes by changing the shape of an empty tensor, which ours can't follow."""


def _told(packet: Any, overload: str) -> str:
    name: str = packet._qualified_op_name
    return name if overload == "default" else f"{name}.{overload}"


def _kernel(func: Any) -> Any:
    return lambda *args, **kwargs: _run(func, args, kwargs)


def _register() -> torch.device | None:
    """The device, where this torch can have one; the libraries must outlive the process's tests."""
    setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None:
        return None
    setup(NAME, _Backend())
    library = torch.library.Library("_", "IMPL")  # kept below: it ends with its object
    library.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")  # kept below: it ends with its object
    for packet in _FACTORIES:
        for overload in packet.overloads():
            if not overload.endswith("out"):
                aten.impl(
                    _told(packet, overload), _kernel(getattr(packet, overload)), "PrivateUse1"
                )
    _KEPT.extend((library, aten))
    return torch.device(NAME, 0)


_KEPT: list[Any] = []
DEVICE = _register()


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """The simulated device in force; skips the test where this torch can't have one."""
    if DEVICE is None:
        pytest.skip(f"torch {torch.__version__} takes no backend in Python")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tensor", "as_tensor"):  # C++ that doesn't come back to Python
            patch.setattr(torch, name, _moved(getattr(torch, name)))
        yield DEVICE


def _moved(make: Any) -> Any:
    def made(data: Any, *args: Any, device: Any = None, **settings: Any) -> Tensor:
        if isinstance(data, Tensor) or device is None or torch.device(device).type != NAME:
            return make(data, *args, device=device, **settings)  # type: ignore[no-any-return]
        return make(data, *args, **settings).to(device)  # type: ignore[no-any-return]

    return made


def moved(thing: Any, device: torch.device) -> Any:
    """Tensors and modules in a tuple, list or dictionary on the device; a module is copied."""
    if isinstance(thing, torch.nn.Module):
        import copy

        return copy.deepcopy(thing).to(device)
    if isinstance(thing, dict):
        return {key: moved(value, device) for key, value in thing.items()}
    return thing.to(device) if isinstance(thing, Tensor) else thing
