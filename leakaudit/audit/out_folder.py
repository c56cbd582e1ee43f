"""The folder that protected features are written to: private, and never mixed with other work."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from leakaudit.core.errors import InputError, RunError, UsageError
from leakaudit.core.files import atomic_write, is_abandoned, refuse_file, sweep, write_new

MANIFEST, RECORDS = "manifest.json", "records"
KIND = "leakaudit-protected"
_SHOWN = 6


@final
class OutFolder:
    """``manifest.json``, shards and records below ``path``: folders 0700, files 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse_others(self) -> None:
        """UsageError for a file, or a folder with nothing but files of others, before any work."""
        refuse_file(self.path, "--out")
        there = set[str]()
        with contextlib.suppress(OSError):  # none yet, or not to be read: the writing tells
            there = {entry.name for entry in self.path.iterdir()}
        if not there & {MANIFEST, RECORDS} and any(map(self._is_others, there)):
            raise self._of_others()

    def open(self, facts: Mapping[str, Any], job: str) -> None:
        """Makes the folder, or accepts one that was made with the same ``facts``.

        Without a manifest, shards whose records tell the same ``job`` are taken as they stand.
        Raises UsageError for one with other files, or made otherwise, saying what differs;
        InputError for a manifest that can't be read, RunError where the folder can't be made.
        """
        self.refuse_others()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            there = [entry.name for entry in self.path.iterdir()]
            ours = (self.path / MANIFEST).is_file()
            if not ours and not self._is_of(job) and any(map(self._is_others, there)):
                raise self._of_others()
            if ours:
                self._refuse_other(facts)
            self.path.chmod(0o700)
            (self.path / RECORDS).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise RunError(
                f"The folder can't be used: {error.strerror or error}",
                where=f"--out {self.path}",
                todo="Choose a folder that you may write to",
            ) from error

    def _of_others(self) -> UsageError:
        return UsageError(
            "The folder holds other files", where=f"--out {self.path}",
            todo="Name a new or empty folder",
        )  # fmt: skip

    def _is_of(self, job: str) -> bool:
        """Whether all records are of this job, and beside them lie their own shards only."""
        files = [path.name.removesuffix(".json") for path in (self.path / RECORDS).glob("*.json")]
        others = {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")} - {
            RECORDS,
            *files,
        }
        records = [self.record(file) for file in files]
        return bool(files) and not others and all(r and r["job"] == job for r in records)

    def _is_others(self, name: str) -> bool:
        """Whether this isn't what a run leaves that was stopped before its first manifest."""
        if name == RECORDS:
            return any((self.path / RECORDS).iterdir())
        return not name.startswith(f".{MANIFEST}.")

    def _refuse_other(self, facts: Mapping[str, Any]) -> None:
        made_with = read_manifest(self.path)["made_with"]
        found = list(_differences(made_with, facts))
        if found:
            more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise UsageError(
                f"This folder was made with something else: {'; '.join(found[:_SHOWN])}{more}",
                where=f"--out {self.path}",
                todo="Write into another folder, or give what this one was made with",
            )

    def record(self, file: str) -> dict[str, Any] | None:
        """What is known of a finished shard, or ``None`` where that is nothing to rely on."""
        try:
            record = json.loads(self._record(file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if _has(record, _OF_RECORD) else None

    def sha256(self, file: str) -> str | None:
        """The hash of a file's bytes, ``None`` where it isn't there."""
        try:
            with (self.path / file).open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            return None

    def write(self, file: str, data: bytes) -> None:
        """Puts a shard in its place, and takes away what an interrupted writing left of it."""
        for left in (*self.path.glob(f".{file}.*.tmp"), *self._left_of_record(file)):
            if not is_abandoned(left):
                continue  # another process is at the same shard
            with contextlib.suppress(OSError):
                left.unlink()
        atomic_write(self.path / file, data, mode=0o600)

    def write_record(self, file: str, record: Mapping[str, Any]) -> None:
        """Says that a shard is finished."""
        atomic_write(self._record(file), _json(record), mode=0o600)

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Puts the first manifest in its place, before any shard.

        Raises UsageError where another process, at other work, has just done so.
        """
        if not write_new(self.path / MANIFEST, _json(manifest), mode=0o600):
            self._refuse_other(manifest["made_with"])
            self.write_manifest(manifest)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Puts the manifest in its place, and takes away what interrupted writings left of it."""
        sweep(self.path, named=f"{MANIFEST}.")
        atomic_write(self.path / MANIFEST, _json(manifest), mode=0o600)

    def settle(self, made: Callable[[OutFolder], dict[str, Any]]) -> dict[str, Any]:
        """Writes the manifest until no process beside this one has finished a shard meanwhile."""
        while True:
            manifest = made(self)
            self.write_manifest(manifest)
            if made(self) == manifest:
                return manifest

    def _record(self, file: str) -> Path:
        return self.path / RECORDS / f"{file}.json"

    def _left_of_record(self, file: str) -> list[Path]:
        return list((self.path / RECORDS).glob(f".{file}.json.*.tmp"))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder; InputError where there is none of ours, or one that is damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["kind"] != KIND or manifest["schema_version"] != 1:
            raise ValueError("of another kind")
        shards = manifest["shards"]
        if not _has(manifest, _OF_MANIFEST) or not all(_has(s, _OF_SHARD) for s in shards):
            raise ValueError("something is missing in it")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            "This is no manifest of protected features", where=f"{path}: {error}",
            todo="If it was damaged, remove it and run the same command again: "
            "finished shards are kept",
        ) from error  # fmt: skip
    return dict(manifest)


_OF_RECORD: Mapping[str, type] = {
    "job": str, "sha256": str, "rows": int, "failures": list, "source": str, "sums": dict,
    "machine": dict,
}  # fmt: skip
_OF_SHARD: Mapping[str, type] = {"file": str, "sha256": str, "rows": int}
_OF_MANIFEST: Mapping[str, type] = {"made_with": dict, "shards": list, "rows": int}


def _has(table: Any, fields: Mapping[str, type]) -> bool:
    """Whether a table read from a file has these fields, each of its type."""
    return isinstance(table, dict) and all(
        isinstance(table.get(name), kind) for name, kind in fields.items()
    )


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Which facts differ, by their path, with both values."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = sorted({*before, *now})
        return [
            line
            for key in keys
            for line in _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if before == now else [f"{name} was {_short(before)} and is {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:16] + "..." + text[-4:]


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
