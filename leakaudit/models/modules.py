"""Networks by SPEC: published ones, a user's own factories, and whole programs in files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.models.preprocessing import Prepared, Wishes
from leakaudit.models.programs import ENDINGS, Program, load_program, program_sha256
from leakaudit.models.published import PUBLISHERS, Published, fetched, refuse_random
from leakaudit.models.users_code import at_home, module_of, seeded, users_code
from leakaudit.models.weights import load_into, load_state, sha256_of, sha256_of_state

_READ_FORMS = (
    "An encoder is torchvision:NAME, timm:NAME, facenet:vggface2|casia-webface, pkg.mod:factory or "
    "file.py:factory with --weights FILE, or a whole program FILE.ts, FILE.pt2 or FILE.onnx"
)
_WEIGHTS_FILES = (".pt", ".pth", ".safetensors", ".bin", ".ckpt")


@dataclass(frozen=True, eq=False)
class Built:
    """A network, ``name`` as a report may print it (no folders), and what is known beside it.

    ``sha256`` is the file's that holds a whole program, ``None`` for all other forms. ``again``
    calls a user's factory once more, with another seed of what is drawn there.
    """

    name: str
    published: Published
    sha256: str | None = None
    again: Callable[[], nn.Module] | None = None

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


def identity_of(spec: str, weights: Path | None, network: nn.Module) -> str:
    """The SHA-256 by which the weights of a network that was loaded by ``spec`` are known.

    Of the weights file or program; else of its tensors; where it has none, of the code it is from.
    """
    file = weights or fetched(spec)
    if file is not None:
        return sha256_of(file)
    if spec.endswith(ENDINGS):
        return program_sha256(Path(spec))
    source = spec.rpartition(":")[0]
    code = source if source.endswith(".py") else getattr(sys.modules.get(source), "__file__", None)
    if not network.state_dict() and code and Path(code).is_file():
        return sha256_of(Path(code))
    return sha256_of_state(network)


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
    shown = f"{Path(kind).name}:{name}" if kind.endswith(".py") else spec
    with at_home(kind):
        module = module_of(kind)
        network = _from_user(module, name)

    def again() -> nn.Module:
        with at_home(kind):
            return _from_user(module, name, seed=1)

    return Built(shown, Published(network), again=again)


def _program(path: Path, weights: Path | None, trust: bool) -> Built:
    if weights is not None:
        raise UsageError(
            "A program file holds its own weights; it takes none beside it",
            where=f"{path.name}, {weights.name}",
            todo="Leave out --weights",
        )
    program = load_program(path, trust=trust)
    return Built(path.name, Published(program, program.native), program.sha256)


def _from_user(module: ModuleType, name: str, seed: int = 0) -> nn.Module:
    """What the user's factory gives; what it draws at random is drawn from ``seed``."""
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
    with users_code(f"The factory '{name}'"), seeded(Rng(seed, ("factory",))):
        network = factory()
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"The factory '{name}' gave a {type(network).__name__}, not a torch.nn.Module",
            where=where,
            todo="Return the network itself",
        )
    if lazy := [name for name, value in network.named_parameters() if is_lazy(value)]:
        raise UsageError(
            f"The network isn't whole: {lazy[0]} has no shape before a picture is sent through",
            where=where,
            todo="Send one through in the factory, such as network(torch.zeros(1, 3, 64, 64))",
        )
    return network
