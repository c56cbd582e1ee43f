"""Protected features on disk: sharded, atomic, resumable, the same bytes however it is run.

A folder holds ``manifest.json``, shard files, and in ``records/`` one small file for each finished
shard. A shard is written first and its record second, so that a shard without a record is made
again, with the same bytes. Nothing written tells the time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from leakaudit.audit.about import tool_version
from leakaudit.audit.edge import Protected
from leakaudit.audit.machine import machine
from leakaudit.audit.out_folder import OutFolder
from leakaudit.audit.recipe import Kit
from leakaudit.audit.shards import check_format, shard_bytes
from leakaudit.audit.sources import Source
from leakaudit.core.errors import InputError, UsageError
from leakaudit.core.keys import keyed_hash, pseudonym
from leakaudit.models.pictures import UnusableError

Progress = Callable[[str, float], None]
SHARD_SIZE = 128


@dataclass(frozen=True)
class ExportOptions:
    """How protected features are laid out; ``shard`` is (I, N), this process's part of N.

    ``shard_size`` pictures go into a file. With ``keep_names`` rows carry their file names, else
    pseudonyms.
    """

    format: str = "safetensors"
    shard: tuple[int, int] = (1, 1)
    shard_size: int = SHARD_SIZE
    keep_names: bool = False

    def __post_init__(self) -> None:
        check_format(self.format)
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise UsageError(
                f"'{part}/{parts}' is no part of a whole",
                where="--shard",
                todo="Write I/N with I from 1 to N",
            )
        if self.shard_size < 1:
            raise UsageError("A shard holds at least one picture", where="--shard-size")


def export(
    kit: Kit, source: Source, out: Path, options: ExportOptions | None = None, *,
    progress: Progress = lambda what, share: None, note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:  # fmt: skip
    """Protects every picture of ``source`` into the folder ``out``; gives the manifest.

    What is finished there already is taken as it stands. Raises UsageError where the folder was
    made with another encoder, other pictures, settings or another key, and says what differs;
    InputError where no picture can be protected; RunError where the disk can't take it.
    """
    options = options or ExportOptions()
    job = _Job(kit, source, options)
    folder = OutFolder(out)
    folder.open(job.facts, job.id)
    folder.begin(job.manifest(folder))
    mine = [k for k in range(job.files) if k % options.shard[1] == options.shard[0] - 1]
    waiting = []
    for k in mine:
        progress(f"looking at shard {k + 1} of {job.files}", 0.0)
        if not job.is_done(folder, k):
            waiting.append(k)
    if len(waiting) < len(mine):
        note(f"{len(mine) - len(waiting)} of {len(mine)} shards are there already")
    for turn, k in enumerate(waiting):
        job.make(folder, k, lambda share, turn=turn: progress(  # type: ignore[misc]
            f"protecting, shard {turn + 1} of {len(waiting)}", (turn + share) / len(waiting)
        ))  # fmt: skip
    manifest = folder.settle(job.manifest)
    if manifest["complete"] and not manifest["rows"]:
        raise InputError(
            "None of the pictures could be protected", where=str(out),
            todo="The manifest lists the reasons",
        )  # fmt: skip
    return manifest


@final
class _Job:
    """What one call is about to do: the fixed partition, and the facts that identify it."""

    def __init__(self, kit: Kit, source: Source, options: ExportOptions) -> None:
        self._kit, self._source, self._options = kit, source, options
        self._key = kit.edge.key
        self._names = source.names
        if not options.keep_names:  # the place of a row in a sorted list would tell whose it is
            self._names = tuple(sorted(source.names, key=self._shown))
        self.files = math.ceil(len(self._names) / options.shard_size)
        self._shape = kit.edge.feature_shape()
        names = "\0".join(source.names).encode("utf-8", "surrogatepass")
        facts = {
            "tool": {"name": "leakaudit", "version": tool_version()},
            **kit.facts,
            "feature_shape": list(self._shape),
            "dtype": "float32",
            "format": options.format,
            "shard_size": options.shard_size,
            "names": "kept" if options.keep_names else "pseudonyms",
            "order": "by name" if options.keep_names else "by pseudonym",
            "pictures": {
                "count": len(source.names), "names_id": keyed_hash(self._key, "list", names)[:32]
            },
        }  # fmt: skip
        self.facts: dict[str, Any] = json.loads(json.dumps(facts))
        self.id = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    def file(self, k: int) -> str:
        """The name of the k-th shard file."""
        return f"shard-{k:05d}-of-{self.files:05d}.{self._options.format}"

    def names(self, k: int) -> tuple[str, ...]:
        """The pictures of the k-th shard: a stretch of the list, by the names that are shown."""
        size = self._options.shard_size
        return self._names[k * size : (k + 1) * size]

    def is_done(self, folder: OutFolder, k: int) -> bool:
        """Whether the k-th shard stands as its record says; UsageError where pictures changed."""
        record = folder.record(self.file(k))
        if record is None or record.get("job") != self.id:
            return False
        if folder.sha256(self.file(k)) != record["sha256"]:
            return False
        if record["source"] != self._stamp(k):
            raise UsageError(
                f"Pictures of {self.file(k)} have changed since it was made",
                where=f"--out {folder.path}",
                todo="Write into another folder, or remove this one",
            )
        return True

    def make(self, folder: OutFolder, k: int, tick: Callable[[float], None]) -> None:
        """Writes the k-th shard, then its record."""
        stamp, names = self._stamp(k), self.names(k)
        pictures, used, failures = [], [], []
        for name in names:
            try:
                pictures.append(self._source.read(name))
                used.append(name)
            except UnusableError as reason:
                failures.append({"name": self._shown(name), "reason": str(reason)})
        features = torch.zeros(0, *self._shape)
        losses: dict[str, list[float]] = {}
        if pictures:
            made = self._protected(torch.stack(pictures), tick)
            good = [row for row in range(len(used)) if row not in made.faults]
            failures += [
                {"name": self._shown(used[row]), "reason": why} for row, why in made.faults.items()
            ]
            features, used = made.features[good], [used[row] for row in good]
            losses = {name: values[good].tolist() for name, values in made.losses.items()}
            losses = {name: [v for v in told if math.isfinite(v)] for name, told in losses.items()}
        data = shard_bytes(self._options.format, features, [self._shown(name) for name in used])
        folder.write(self.file(k), data)
        folder.write_record(self.file(k), {
            "job": self.id, "sha256": hashlib.sha256(data).hexdigest(), "rows": len(used),
            "failures": sorted(failures, key=lambda f: f["name"]), "source": stamp,
            "sums": {name: [math.fsum(told), len(told)] for name, told in losses.items()},
            "machine": machine(self._kit.edge.device),
        })  # fmt: skip

    def _protected(self, images: Tensor, tick: Callable[[float], None]) -> Protected:
        """``Edge.protect``, block by block, so that a long shard tells how far it is."""
        block, parts = self._kit.edge.block, []
        for start in range(0, len(images), block):
            tick(start / len(images))
            parts.append(self._kit.edge.protect(images[start : start + block]))
        return Protected.joined(parts)

    def manifest(self, folder: OutFolder) -> dict[str, Any]:
        """What the folder holds now, put together from the records."""
        found = [(k, folder.record(self.file(k))) for k in range(self.files)]
        done = [(k, r) for k, r in found if r is not None and r.get("job") == self.id]
        rows = sum(record["rows"] for _, record in done)
        skipped = [{"name": self._shown(name), "reason": why} for name, why in self._source.skipped]
        skipped.sort(key=lambda one: one["name"])
        machines: list[Mapping[str, Any]] = []
        for _, record in done:
            machines += [record["machine"]] if record["machine"] not in machines else []
        return {
            "kind": "leakaudit-protected",
            "schema_version": 1,
            "complete": len(done) == self.files,
            "made_with": self.facts,
            "machines": machines,
            "rows": rows,
            "losses": _means([record["sums"] for _, record in done]),
            "failures": [*skipped, *(f for _, record in done for f in record["failures"])],
            "shards": [
                {
                    "file": self.file(k), "sha256": record["sha256"], "rows": record["rows"],
                    "failures": len(record["failures"]),
                    "machine": machines.index(record["machine"]),
                }
                for k, record in done
            ],
        }  # fmt: skip

    def _shown(self, name: str) -> str:
        return name if self._options.keep_names else pseudonym(self._key, name)

    def _stamp(self, k: int) -> str:
        """A keyed hash of the pictures' bytes, which tells whether they are still the same."""
        stamps = b"".join(self._source.stamp(name) for name in self.names(k))
        return keyed_hash(self._key, "pictures", stamps)[:32]


def row_name(kit: Kit, name: str, *, keep: bool) -> str:
    """The name of a picture's row in a shard."""
    return name if keep else pseudonym(kit.edge.key, name)


def _means(shards: list[Mapping[str, list[float]]]) -> dict[str, float]:
    """Each loss's mean over the rows that told it, from its sum and their number in each shard."""
    means = {}
    for name in sorted({name for losses in shards for name in losses}):
        told = [losses[name] for losses in shards if name in losses]
        count = sum(int(rows) for _, rows in told)
        if count:
            means[name] = math.fsum(total for total, _ in told) / count
    return means


def parts_of(text: str) -> tuple[int, int]:
    """(I, N) of ``I/N``; UsageError for anything else."""
    head, slash, tail = text.partition("/")
    counts = [part.strip() for part in (head, tail)]
    if not (slash and all(count.isdecimal() and len(count) < 10 for count in counts)):
        raise UsageError(f"'{text}' is not I/N", where="--shard", todo="Write it as 1/4")
    return int(head), int(tail)
