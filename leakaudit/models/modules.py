"""Networks by SPEC: published ones, a user's own factories, and whole programs in files.

A factory is the user's own code. What goes wrong inside it is told as one sentence with the kind of
exception and its line, because a traceback through this package would hide the line that matters.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from leakaudit.core.errors import LeakauditError, UnknownNameError, UsageError
from leakaudit.core.memory import is_out_of_memory
from leakaudit.models.preprocessing import Prepared, Wishes
from leakaudit.models.programs import ENDINGS, Program, load_program
from leakaudit.models.published import PUBLISHERS, Published, fetched, refuse_random
from leakaudit.models.weights import load_into, load_state, sha256_of

_READ_FORMS = (
    "An encoder is torchvision:NAME, timm:NAME, facenet:vggface2|casia-webface, pkg.mod:factory or "
    "file.py:factory with --weights FILE, or a whole program FILE.ts, FILE.pt2 or FILE.onnx"
)
_WEIGHTS_FILES = (".pt", ".pth", ".safetensors", ".bin", ".ckpt")


_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, eq=False)
class Built:
    """A network, ``name`` as a report may print it (no folders), and what is known beside it.

    ``sha256`` is the file's that holds a whole program, ``None`` for all other forms.
    """

    name: str
    published: Published
    sha256: str | None = None

    @property
    def network(self) -> nn.Module:
        """The network itself; its weights may be random still."""
        return self.published.network

    @property
    def whole(self) -> bool:
        """Whether it runs from end to end only, so that no layer inside can be reached."""
        return isinstance(self.network, Program)


def load_module(spec: str, weights: Path | None = None, *, trust: bool = False) -> nn.Module:
    """The network that ``spec`` names, such as an oracle or a head, frozen and in evaluation mode.

    With ``weights`` the file must fit it exactly. A network that was published with preprocessing
    does it itself, from pictures in [0, 1]. Raises `UsageError` for a form that isn't read and for
    failures in the user's code, `WeightsError` for weights that are missing or don't fit.
    """
    weights = weights or fetched(spec)
    built = build(spec, weights=weights, trust=trust)
    network, own = built.network, built.published
    if weights is not None:
        state = load_state(weights, trust=trust)
        own.check(state, weights.name)
        where = f"{weights.name} for {built.name}"
        load_into(network, state, where=where, ignore_prefixes=own.without)
    if own.native.mean is not None and own.native.input_size is not None:
        network = Prepared(network, Wishes(own.native.input_size[0]).over(own.native))
    return network.requires_grad_(False).eval()


def build(spec: str, *, weights: Path | None, trust: bool = False, random: bool = False) -> Built:
    """The network that ``spec`` names, a published one or a factory's without its weights.

    Published networks without a weights file are refused unless ``random`` ones will do, and
    programs that can run code on opening unless ``trust``.
    """
    kind, _, name = spec.rpartition(":")
    if spec.endswith(ENDINGS):
        return _program(Path(spec), weights, trust)
    if kind in PUBLISHERS:
        published = PUBLISHERS[kind](name)
        if not random:
            refuse_random(spec, weights)
        return Built(spec, published)
    if spec.endswith(_WEIGHTS_FILES):
        raise UsageError(f"'{Path(spec).name}' holds weights, not a network", todo=_READ_FORMS)
    if not kind or not name.isidentifier():
        raise UsageError(f"'{spec}' doesn't name a network", todo=_READ_FORMS)
    if kind.endswith(".py"):
        network = _from_user(module_of_file(Path(kind)), name)
        return Built(f"{Path(kind).name}:{name}", Published(network))
    return Built(spec, Published(_from_user(module_of_package(kind), name)))


def _program(path: Path, weights: Path | None, trust: bool) -> Built:
    if weights is not None:
        raise UsageError(
            "A program file holds its own weights; it takes none beside it",
            where=f"{path.name}, {weights.name}",
            todo="Leave out --weights",
        )
    program = load_program(path, trust=trust)
    return Built(path.name, Published(program, program.native), sha256_of(path))


@contextmanager
def users_code(doing: str) -> Iterator[None]:
    """Tell any failure inside as a `UsageError` with exception type, file name and line."""
    try:
        yield
    except LeakauditError:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise  # it may be tried again with fewer pictures
        text = " ".join(str(error).split())[:300]
        told = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise UsageError(f"{doing} raised {told}", where=_place(error)) from error


def _place(error: BaseException) -> str | None:
    """File name and line where the user should look: the innermost that isn't a library's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}"
    libraries = ("<", str(_PACKAGE), str(Path(importlib.__file__).parents[1]))
    theirs = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(libraries) and "site-packages" not in frame.filename
    ]
    return f"{Path(theirs[-1].filename).name}, line {theirs[-1].lineno}" if theirs else None


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


def module_of_file(path: Path) -> ModuleType:
    """A user's Python file, imported; UsageError where there is none or where it fails."""
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


def module_of_package(name: str) -> ModuleType:
    """A module by its dotted name, from the current folder too; UsageError where it fails."""
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
