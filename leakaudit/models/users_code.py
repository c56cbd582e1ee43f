"""A user's own Python: imported from its place, run, and told of in one sentence where it fails.

Two folders may have a ``model.py`` each: what is imported from one is never taken for the other's.
What the code sets in torch for all (gradients off, another kind of number) ends with it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import random
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import torch

from leakaudit.core.errors import LeakauditError, UsageError
from leakaudit.core.memory import is_out_of_memory
from leakaudit.core.rng import Rng

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_entered: set[Path] = set()
_of_two: set[str] = set()


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


@contextmanager
def seeded(rng: Rng) -> Iterator[None]:
    """Global randomness of torch, numpy and Python from ``rng``; afterwards as it was before."""
    numpys, pythons = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.state)
        np.random.seed(rng.state % 2**32)
        random.seed(rng.state)
        try:
            yield
        finally:
            np.random.set_state(numpys)
            random.setstate(pythons)


@contextmanager
def at_home(source: str) -> Iterator[None]:
    """The surroundings of code in ``source``, a ``file.py`` or a dotted name.

    The file's folder (for a dotted name the current one) is looked through before installed
    packages, and what another such folder holds under the same name isn't seen. Afterwards torch's
    switch of gradients, its default kind of number and its default device are as they were.
    """
    folder = Path(source).resolve().parent if source.endswith(".py") else Path.cwd()
    with torch_as_it_was(), _importable(folder):
        yield


@contextmanager
def torch_as_it_was() -> Iterator[None]:
    """Torch's switch of gradients, default kind of number and device, set in here, end with it."""
    grad, kind = torch.is_grad_enabled(), torch.get_default_dtype()
    device = torch.get_default_device()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(kind)
        if torch.get_default_device() != device:
            torch.set_default_device(None)


def module_of(source: str) -> ModuleType:
    """A user's module by its file or dotted name, imported; UsageError where that fails.

    To be called `at_home`, together with what is run of it.
    """
    return _of_file(Path(source)) if source.endswith(".py") else _of_package(source)


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError("There is no such Python file", where=str(path), todo="Check the path")
    # Known under a name of its own, for dataclasses and pickling look their module up by name.
    name = f"leakaudit_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError("This is not a Python file", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with users_code(path.name):
        spec.loader.exec_module(module)
    return module


def _of_package(name: str) -> ModuleType:
    with users_code(f"Importing {name}"):
        return importlib.import_module(name)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder's modules can be imported, before those of installed packages."""
    _entered.add(folder)
    hidden = _of_others(folder)
    for name in hidden:
        del sys.modules[name]
    at = next((k for k, p in enumerate(sys.path) if "-packages" in Path(p).name), len(sys.path))
    sys.path.insert(at, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        _of_two.update(name for name in hidden if name in sys.modules)
        sys.modules.update({name: m for name, m in hidden.items() if name not in _of_two})
        for name in _of_two:  # an import that comes later must not find either for the other
            sys.modules.pop(name, None)


def _of_others(folder: Path) -> dict[str, ModuleType]:
    """Modules from users' other folders that bear the name of one in this folder."""
    try:
        here = {path.stem if path.suffix == ".py" else path.name for path in folder.iterdir()}
    except OSError:
        return {}
    return {
        name: module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in here - {_PACKAGE.name} and _is_of_another(module, folder)
    }


def _is_of_another(module: ModuleType, folder: Path) -> bool:
    known = getattr(module, "__dict__", {})  # some modules make up any attribute that is asked for
    files = [known.get("__file__"), *(known.get("__path__") or ())]
    places = [Path(file).resolve() for file in files if isinstance(file, str) and file]
    if not places or any("-packages" in part for part in places[0].parts):
        return False
    others = [other for other in _entered if other != folder]
    return not places[0].is_relative_to(folder) and any(
        places[0].is_relative_to(other) for other in others
    )
