"""The run folder: private, atomic, and able to give finished stages back after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from leakaudit.attacks.base import Effort, Guess
from leakaudit.core.errors import RunError, UsageError
from leakaudit.core.files import atomic_write, refuse_file, sweep
from leakaudit.defences.base import Released


def digest(*parts: Any) -> str:
    """A hash of JSON-able parts and tensors, the name of a stage."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            state.update(str((part.dtype, tuple(part.shape))).encode())
            state.update(part.detach().cpu().contiguous().numpy().tobytes())
        else:
            state.update(json.dumps(part, sort_keys=True, default=str).encode())
    return state.hexdigest()[:32]


MARKER = ".leakaudit-run"


class RunStore:
    """Stages of one run as safetensors and JSON below ``folder``; nothing is ever unpickled.

    Stages hold protected features and reconstructions only, and are removed once the result is
    written, so that no biometric data stays behind.
    """

    def __init__(self, folder: Path, *, resume: bool, part: str | None = None) -> None:
        self.folder = folder
        self._stages = folder / "stages" / ("" if part is None else digest(part)[:12])
        self._resume = resume
        self.reused = 0
        refuse_file(folder, "--run-dir")
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (folder / MARKER).is_file():
                self._refuse_others_folder()
                folder.chmod(0o700)
            (folder / MARKER).touch()
            self.began = (folder / MARKER).stat().st_mtime
            if not (folder / ".gitignore").is_file():  # a run may be killed between the two
                atomic_write(folder / ".gitignore", "*\n")
            sweep(folder)
            self._stages.mkdir(exist_ok=True, mode=0o700, parents=True)
        except OSError as error:
            raise RunError(
                "The run folder can't be made",
                where=f"{folder}: {error.strerror or error}",
                todo="Choose another one with --run-dir",
            ) from error

    def _refuse_others_folder(self) -> None:
        """A folder with files of others would be made private and written into: never."""
        if any(self.folder.iterdir()):
            raise UsageError(
                "The run folder holds other files",
                where=f"--run-dir {self.folder}",
                todo="Name a new or empty folder",
            )

    def part(self, name: str) -> RunStore:
        """The store of one layer of several: this one's folder, with stages of its own below."""
        return RunStore(self.folder, resume=self._resume, part=name)

    def released(self, key: str, make: Callable[[], Released]) -> Released:
        """A defence's release, from disk where this very stage was finished before."""
        found = self._read(key)
        if found is not None:
            tensors, about = found
            return Released(
                **{**about, "curve": tuple(about["curve"])}, features=tensors["features"]
            )
        made = make()
        about = {k: v for k, v in asdict_shallow(made).items() if k != "features"}
        self._write(key, {"features": made.features}, about)
        return made

    def guess(self, key: str, make: Callable[[], Guess]) -> Guess:
        """An attack's guess, from disk where this very stage was finished before."""
        found = self._read(key)
        if found is not None:
            tensors, about = found
            effort = Effort(**{**about["effort"], "curve": tuple(about["effort"]["curve"])})
            return Guess(
                tensors.get("images"), tensors.get("loss"), effort, tensors.get("latents"),
                about["details"], tensors.get("embeddings"), tensors.get("scores"),
            )  # fmt: skip
        made = make()
        parts = {
            name: getattr(made, name)
            for name in ("images", "loss", "latents", "embeddings", "scores")
        }
        about = {"effort": asdict(made.effort), "details": made.details}
        self._write(key, {k: v for k, v in parts.items() if v is not None}, about)
        return made

    def discard_if_empty(self) -> None:
        """Remove the folder again where nothing but the marker was written."""
        with contextlib.suppress(OSError):
            for part in self._stages.iterdir():
                part.rmdir()  # which a file, or what holds one, refuses
            self._stages.rmdir()
            if sorted(path.name for path in self.folder.iterdir()) == [".gitignore", MARKER]:
                (self.folder / ".gitignore").unlink()
                (self.folder / MARKER).unlink()
                self.folder.rmdir()

    def clear(self) -> None:
        """Remove all stages, an earlier interrupted run's too; the folder is ours alone."""
        shutil.rmtree(self._stages, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self._stages / f"{key}.safetensors"

    def _read(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        path = self._path(key)
        if not (self._resume and path.is_file()):
            return None
        try:
            data = path.read_bytes()
            note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            about = note["about"]
            if note["sha256"] != _checksum(data, about):
                return None
            tensors = load(data)
        except (OSError, ValueError, LookupError, TypeError, SafetensorError):
            return None  # a half-written or damaged stage is made again
        self.reused += 1
        return tensors, about

    def _write(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
        path = self._path(key)
        atomic_write(path, data)
        note = {"about": about, "sha256": _checksum(data, about)}
        atomic_write(path.with_suffix(".json"), json.dumps(note))
        os.chmod(path, 0o600)


def _checksum(data: bytes, about: Mapping[str, Any]) -> str:
    """A hash of the tensors and of what is told about them, so that damage to either is seen."""
    return hashlib.sha256(data + json.dumps(about, sort_keys=True).encode()).hexdigest()


def asdict_shallow(thing: Any) -> dict[str, Any]:
    """The fields of a dataclass without copying its tensors."""
    return {name: getattr(thing, name) for name in thing.__dataclass_fields__}


def on_cpu(tensor: Tensor) -> Tensor:
    """A detached copy on the CPU."""
    return tensor.detach().to("cpu", torch.float32)
