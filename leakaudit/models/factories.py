"""A user's own factory of a defence or an attack: found, called, and its answers checked.

What goes wrong in the user's code is one sentence that names his file and line. Randomness that he
takes from the global generators is ours while he runs, so that same seed means same bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from leakaudit.core.errors import InputError, UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.core.specs import FactorySpec
from leakaudit.models.users_code import at_home, module_of, seeded, torch_as_it_was, users_code
from leakaudit.models.weights import sha256_of


@final
@dataclass(frozen=True, eq=False)
class Factory:
    """A user's function of settings; ``sha256`` is his file's, empty where there is none."""

    spec: FactorySpec
    function: Callable[..., Any]
    sha256: str

    def make(self, rng: Rng) -> Any:
        """A fresh object; UsageError where the user's code fails."""
        place = self.spec.place
        with users_code(f"The factory {place}"), at_home(self.spec.source), seeded(rng):
            return self.function(**self.spec.settings)

    def told(self, doing: str) -> str:
        """``reconstruct of file.py:factory``, for messages."""
        return f"{doing} of {self.spec.place}"

    def ask(self, method: Callable[..., Any], doing: str, *given: Any, rng: Rng) -> Any:
        """What the user's method answers; he may take gradients."""
        with users_code(self.told(doing)), torch_as_it_was(), seeded(rng), torch.enable_grad():
            return method(*given)

    def method(self, thing: Any, name: str, *arguments: str) -> Callable[..., Any] | None:
        """The method of this name, ``None`` where there is none; it must take ``arguments``."""
        found = getattr(thing, name, None)
        if found is None:
            return None
        if not callable(found):
            raise UsageError(f"{self.told(name)} is a {type(found).__name__}, not a method")
        self.takes(found, name, *arguments)
        return found  # type: ignore[no-any-return]

    def takes(self, function: Callable[..., Any], name: str, *arguments: str) -> None:
        """UsageError unless the user's function can be called with so many arguments."""
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError as error:
            raise UsageError(
                f"{self.told(name)} can't be called with ({', '.join(arguments)}): {error}",
                todo=f"Write def {name}(self, {', '.join(arguments)})",
            ) from error
        except ValueError:
            return  # a builtin says nothing about its arguments


def load_factory(spec: FactorySpec) -> Factory:
    """The factory of this name; UsageError for a missing one and for settings it doesn't take."""
    source = spec.source
    with at_home(source):
        module = module_of(source)
    file = Path(spec.source) if spec.from_file else Path(getattr(module, "__file__", None) or "")
    where = file.name or spec.source
    found = vars(module).get(spec.factory)
    if found is None:
        known = [n for n, v in vars(module).items() if inspect.isroutine(v) or inspect.isclass(v)]
        public = [name for name in known if not name.startswith("_")]
        raise UnknownNameError("factory", spec.factory, public, where=where)
    if not callable(found):
        kind = type(found).__name__
        raise UsageError(f"'{spec.factory}' is a {kind}, not a factory", where=where)
    _check_settings(found, spec, where)
    return Factory(spec, found, sha256_of(file) if file.is_file() else "")


def _check_settings(function: Callable[..., Any], spec: FactorySpec, where: str) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for key in spec.settings:
            if not names:
                raise UsageError(f"{spec.place} takes no settings", where=where)
            if key not in names:
                raise UnknownNameError(f"setting of {spec.place}", key, names, where=where)
    missing = [p.name for p in named if p.default is p.empty and p.name not in spec.settings]
    if missing:
        raise UsageError(
            f"The factory '{spec.factory}' needs {', '.join(missing)}",
            where=where,
            todo=f"Write {spec.place}:{missing[0]}=VALUE; a factory takes settings only, and "
            "returns the object that does the work",
        )


def checked_tensor(value: Any, shape: torch.Size, like: Tensor, *, told: str) -> Tensor:
    """A user's answer as a detached tensor of this shape, with the kind and device of ``like``.

    Raises UsageError for anything but a tensor of floating numbers of this shape, and InputError
    for numbers that aren't finite; ``told`` says whose answer it is.
    """
    if not isinstance(value, Tensor):
        raise UsageError(f"{told} gave a {type(value).__name__}, not a torch.Tensor")
    if value.shape != shape:
        raise UsageError(f"{told} gave a tensor of shape {tuple(value.shape)}, not {tuple(shape)}")
    if not value.is_floating_point():
        raise UsageError(f"{told} gave {value.dtype}, not floating numbers")
    if not bool(value.isfinite().all()):
        bad = int((~value.isfinite().flatten(1).all(1)).sum())
        raise InputError(f"{told} gave NaN or infinite numbers in {bad} of {len(value)} rows")
    return value.detach().to(like)
