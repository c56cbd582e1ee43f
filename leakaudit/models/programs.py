"""Whole programs as encoders: TorchScript (``.ts``), torch.export (``.pt2``), ONNX (``.onnx``).

A program runs from its input to its output; hooks don't reach inside, so only ``last`` is a layer.
TorchScript and torch.export files can run code while they are opened and are opened on consent
only; onnxruntime runs a graph of known operators and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import mmap
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from leakaudit.core.errors import UsageError, WeightsError
from leakaudit.models.preprocessing import Native
from leakaudit.models.weights import sha256_of

ENDINGS: Final = (".ts", ".pt2", ".onnx")
_DTYPES: Final = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}


class NoGradientError(UsageError, RuntimeError):
    """A gradient was asked of a program that has none; to torch's callers one of its own errors."""


@dataclass(frozen=True)
class Batch:
    """How many pictures a program takes at once; ``most`` is ``None`` where it doesn't mind."""

    least: int = 1
    most: int | None = None


@final
class Program(nn.Module):
    """``run`` in blocks that it accepts: longer batches are cut, shorter ones are filled up.

    The filling is copies of the last picture, and their answers are dropped. ``differentiable``
    says whether gradients flow back through it. One that stays ``at_home`` runs on the CPU
    wherever its pictures are, as its own graph says where it makes tensors. ``sha256`` is its
    file's, once it is loaded.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Any],
        *,
        name: str,
        batch: Batch,
        native: Native = Native(),  # noqa: B008 - frozen
        differentiable: bool = True,
        at_home: bool = False,
    ) -> None:
        super().__init__()
        self.sha256 = ""
        self.at_home = at_home
        self.run = run  # a module is registered, so that its tensors are found and moved
        self.name = name
        self.batch = batch
        self.native = native
        self.differentiable = differentiable

    def forward(self, images: Tensor) -> Tensor:
        """What the program gives for pictures (N, 3, H, W), prepared."""
        if not self.differentiable and torch.is_grad_enabled() and images.requires_grad:
            raise _no_gradient(self.name)
        parts = images.split(self.batch.most or max(1, len(images)))
        answers = [self._block(part) for part in parts]
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def train(self, mode: bool = True) -> Program:
        """Nothing changes: an exported program has no mode and refuses to be asked."""
        self.training = False
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Program:
        """What ``to`` and its like do; nothing for a program that stays where it is."""
        return self if self.at_home else super()._apply(fn, recurse)

    def _block(self, images: Tensor) -> Tensor:
        count, there = len(images), images.device
        images = images.cpu() if self.at_home else images
        if count < self.batch.least:
            copies = images[-1:].expand(self.batch.least - count, *images.shape[1:])
            images = torch.cat([images, copies])
        answer = self.run(images)
        if not isinstance(answer, Tensor):
            raise UsageError(
                f"The program gives a {type(answer).__name__}, and a feature is one tensor",
                where=self.name,
                todo="Save a program that ends with the feature",
            )
        answer = answer.to(there)
        return answer if len(answer) == count else answer[:count]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how it is run."""
        least, most = self.batch.least, self.batch.most
        notes = []
        if most is not None and least == most > 1:
            notes.append(
                f"{self.name} takes exactly {most} pictures at once: it is run in blocks of {most},"
                " and the last block is filled up with copies. Export it with a dynamic batch to "
                "save that work"
            )
        elif most is not None:
            notes.append(f"{self.name} is run in blocks of at most {most} pictures, as it was made")
        if not self.differentiable:
            notes.append(f"{self.name} gives no gradients: attacks that follow them can't be run")
        return tuple(notes)


def load_program(path: Path, *, trust: bool) -> Program:
    """The program in a file, in evaluation mode where its kind knows one.

    Raises UsageError where consent or a library is missing, and WeightsError for a file that is
    missing, damaged or of another kind, or whose input isn't pictures (N, 3, H, W).
    """
    if not path.is_file():
        raise WeightsError("There is no such file", where=str(path), todo="Check the path")
    if path.suffix != ".onnx" and not trust:
        kind = "TorchScript program" if path.suffix == ".ts" else "torch.export program"
        raise UsageError(
            f"A {kind} can run code when it is opened, so it was not opened",
            where=path.name,
            todo="Where you trust its author, say --trust-encoder (it is about the encoder only)",
        )
    program = {".ts": _torchscript, ".pt2": _exported, ".onnx": _onnx}[path.suffix](path)
    program.sha256 = program_sha256(path)
    return program


def program_sha256(path: Path) -> str:
    """The SHA-256 of a program's file; of an ONNX graph with weights beside it, of all of them."""
    beside = _beside(path) if path.suffix == ".onnx" else ()
    if not beside:
        return sha256_of(path)
    parts = [sha256_of(path), *(f"{file.name}\0{sha256_of(file)}" for file in beside)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


_LOCATION: Final = re.compile(rb"\n\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")


def _beside(path: Path) -> tuple[Path, ...]:
    """Files with an ONNX graph's tensors, in order of their names.

    The graph names one in a protobuf entry of the key ``location`` and the file's name, relative
    to the graph's folder (onnx.proto, TensorProto.external_data).
    """
    names = set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
        for found in _LOCATION.finditer(graph):
            count = found[1]
            length = count[0] if len(count) == 1 else (count[0] & 0x7F) | count[1] << 7
            names.add(bytes(graph[found.end() : found.end() + length]))
    home = path.resolve().parent
    files = {(home / name.decode("utf-8", "replace")).resolve() for name in names}
    return tuple(sorted(file for file in files if file.is_relative_to(home) and file.is_file()))


def _torchscript(path: Path) -> Program:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch recommends torch.export to its author
            module = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:
        raise _damaged("TorchScript", path, error) from error
    return Program(module.eval(), name=path.name, batch=Batch())


@contextmanager
def _silent_export() -> Iterator[None]:
    """Torch logs a whole traceback for a damaged file; what is wrong is told in one sentence."""
    logger = logging.getLogger("torch.export")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _exported(path: Path) -> Program:
    try:
        with _silent_export():
            program = torch.export.load(path)
            module = program.module()
    except Exception as error:
        raise _damaged("torch.export", path, error) from error
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in inputs]
    if len(values) != 1 or not isinstance(values[0], Tensor):
        raise _not_pictures(path, f"{len(values)} inputs")
    shape = tuple(values[0].shape)
    native = _native(path, tuple(d if isinstance(d, int) else None for d in shape))
    return Program(
        module, name=path.name, batch=_batch(program, shape[0]), native=native, at_home=True
    )


def _batch(program: Any, size: Any) -> Batch:
    if isinstance(size, int):
        return Batch(size, size)
    allowed = program.range_constraints.get(size.node.expr)
    if allowed is None:
        return Batch()
    bound = allowed.upper
    return Batch(max(1, int(allowed.lower)), int(bound) if bound.is_Integer else None)


def _onnx(path: Path) -> Program:
    if importlib.util.find_spec("onnxruntime") is None:
        raise UsageError(
            "onnxruntime isn't installed, and it runs ONNX files",
            where=path.name,
            todo="pip install 'onnxruntime>=1.18'",
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise _damaged("ONNX", path, error) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in _DTYPES:
        told = ", ".join(f"{each.name}: {each.type}" for each in inputs)
        raise _not_pictures(path, f"{len(inputs)} inputs ({told})")
    if len(outputs) != 1:
        names = ", ".join(output.name for output in outputs)
        raise WeightsError(
            f"The program has {len(outputs)} outputs ({names}), and a feature is one tensor",
            where=path.name,
            todo="Export a program that ends with the feature",
        )
    shape = tuple(d if isinstance(d, int) and d > 0 else None for d in inputs[0].shape)
    size = shape[0] if shape else None
    dtype, given = _DTYPES[inputs[0].type], inputs[0].name

    def run(images: Tensor) -> Tensor:
        try:
            array = images.detach().to("cpu", dtype).numpy()
        except RuntimeError as error:  # torch.func hands wrapped tensors that no array can hold
            raise _no_gradient(path.name) from error
        return torch.from_numpy(session.run(None, {given: array})[0]).to(images)

    return Program(
        run,
        name=path.name,
        batch=Batch() if size is None else Batch(size, size),
        native=_native(path, shape),
        differentiable=False,
    )


def _native(path: Path, shape: tuple[int | None, ...]) -> Native:
    """The size that a program was made for; ``None`` stands for a dimension that it leaves open."""
    if len(shape) != 4 or shape[1] not in (3, None):
        raise _not_pictures(path, f"an input of shape {tuple(d or 'any' for d in shape)}")
    height, width = shape[2:]
    return Native((height, width) if height is not None and width is not None else None)


def _not_pictures(path: Path, found: str) -> WeightsError:
    return WeightsError(
        f"The program takes {found}, not one batch of pictures (N, 3, height, width)",
        where=path.name,
        todo="Export it again with one input of that shape",
    )


def _damaged(kind: str, path: Path, error: Exception) -> WeightsError:
    text = (str(error).strip().splitlines() or [""])[0][:200]
    return WeightsError(
        f"The file is no {kind} program, or is damaged: {type(error).__name__}: {text}",
        where=path.name,
        todo="Fetch or save it again",
    )


def _no_gradient(name: str) -> NoGradientError:
    return NoGradientError(
        "A gradient was asked of an encoder that gives none",
        where=name,
        todo="Leave out what follows gradients, or give a differentiable form of the encoder",
    )
