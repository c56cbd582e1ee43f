"""Networks by name: ``torchvision:NAME``, ``pkg.mod:factory`` and ``file.py:factory``.

A factory is the user's own code. What goes wrong inside it is told as one sentence with the kind of
exception and its line, because a traceback through this package would hide the line that matters.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from leakaudit.core.errors import LeakauditError, UnknownNameError, UsageError, WeightsError
from leakaudit.models.weights import load_into, load_state

_READ_FORMS = (
    "This version reads torchvision:NAME, pkg.mod:factory and file.py:factory, the weights beside "
    "them as safetensors or a state dict"
)
_LATER = ("timm", "facenet")
_LATER_FILES = (".ts", ".pt2", ".onnx", ".pt", ".pth", ".safetensors")


_PACKAGE = Path(__file__).resolve().parents[1]


def load_module(spec: str, weights: Path | None = None, *, trust: bool = False) -> nn.Module:
    """The network that ``spec`` names, such as an oracle or a head, frozen and in evaluation mode.

    With ``weights`` the file must fit it exactly. Raises `UsageError` for a form that isn't read
    and for failures in the user's code, `WeightsError` for weights that are missing or don't fit.
    """
    network, name = build(spec, weights=weights)
    if weights is not None:
        load_into(network, load_state(weights, trust=trust), where=f"{weights.name} for {name}")
    return network.requires_grad_(False).eval()


def build(spec: str, *, weights: Path | None) -> tuple[nn.Module, str]:
    """The network without its weights, and the spec as a report may print it (no folders)."""
    kind, _, name = spec.rpartition(":")
    if kind == "torchvision":
        return _torchvision(name, weights=weights), spec
    if kind in _LATER or spec.endswith(_LATER_FILES):
        raise UsageError(f"'{spec}' is a form that this version doesn't read", todo=_READ_FORMS)
    if not kind or not name.isidentifier():
        raise UsageError(f"'{spec}' doesn't name a network", todo=_READ_FORMS)
    if kind.endswith(".py"):
        return _from_user(_module_of_file(Path(kind)), name), f"{Path(kind).name}:{name}"
    return _from_user(_module_of_package(kind), name), spec


@contextmanager
def users_code(doing: str) -> Iterator[None]:
    """Tell any failure inside as a `UsageError` with exception type, file name and line."""
    try:
        yield
    except (LeakauditError, MemoryError, torch.cuda.OutOfMemoryError):
        raise  # what is short of memory may be tried again with fewer pictures
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())[:300]
        told = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise UsageError(f"{doing} raised {told}", where=_place(error)) from error


def _place(error: BaseException) -> str | None:
    """File name and line where the user should look: the innermost that isn't a library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}"
    libraries = ("<", str(_PACKAGE), str(Path(importlib.__file__).parent))
    theirs = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(libraries) and "site-packages" not in frame.filename
    ]
    return f"{Path(theirs[-1].filename).name}, line {theirs[-1].lineno}" if theirs else None


def _torchvision(name: str, *, weights: Path | None) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise UnknownNameError("torchvision network", name, known if near else known[:8])
    if weights is None:
        raise WeightsError(
            f"No weights are given for torchvision:{name}, and random ones are never audited",
            todo="Give the file with --weights FILE (safetensors or a state dict)",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some warn about how they draw weights, which we replace
        network: nn.Module = models.get_model(name, weights=None)
    return network


def _from_user(module: ModuleType, name: str) -> nn.Module:
    where = Path(module.__file__).name if module.__file__ else module.__name__
    if name not in vars(module):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        if not known:
            raise UsageError(f"There is no factory '{name}', nor any other", where=where)
        raise UnknownNameError("factory", name, known, where=where)
    factory: Any = getattr(module, name)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise UsageError(f"'{name}' is a {type(factory).__name__}, not a factory", where=where)
    with users_code(f"The factory '{name}'"):
        network = factory()
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"The factory '{name}' gave a {type(network).__name__}, not a torch.nn.Module",
            where=where,
            todo="Return the network itself",
        )
    return network


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError("There is no such Python file", where=str(path), todo="Check the path")
    # Known under a name of its own, for dataclasses and pickling look their module up by name.
    name = f"leakaudit_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError("This is not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with users_code(path.name), _importable(path.resolve().parent):
        spec.loader.exec_module(module)
    return module


def _module_of_package(name: str) -> ModuleType:
    with users_code(f"Importing {name}"), _importable(Path.cwd()):
        return importlib.import_module(name)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder's modules can be imported, after all installed ones."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
