"""A shard's bytes: features with the names of their rows, the same bytes for the same content."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leakaudit.core.errors import InputError, UnknownNameError, UsageError
from leakaudit.models.weights import safetensors_bytes

FORMATS = ("safetensors", "parquet", "npz")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive knows: a shard tells nothing of when it was made."""


def check_format(name: str) -> str:
    """The format of this name; UnknownNameError, or UsageError where its library is missing."""
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS, where="--format")
    if name == "parquet":
        _arrow()
    return name


def shard_bytes(kind: str, features: Tensor, names: Sequence[str]) -> bytes:
    """A shard of features (N, ...) in float32 and the names of its N rows."""
    if len(features) != len(names):
        raise ValueError("one name a row")
    features = features.detach().cpu().float().contiguous()
    if kind == "safetensors":
        return safetensors_bytes(
            {"features": features}, {"names": json.dumps(list(names), ensure_ascii=True)}
        )
    if kind == "npz":
        return _npz({"features": features.numpy(), "names": np.array(list(names), dtype=np.str_)})
    return _parquet(features, names)


def read_shard(kind: str, path: Path) -> tuple[Tensor, list[str]]:
    """Features (N, ...) and names of a shard; InputError for one that can't be read."""
    try:
        data = path.read_bytes()
        if kind == "safetensors":
            return _read_safetensors(data)
        if kind == "npz":
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                return torch.from_numpy(file["features"]), [str(n) for n in file["names"]]
        return _read_parquet(data)
    except UsageError:
        raise
    except Exception as error:
        raise InputError(
            f"The shard can't be read: {type(error).__name__}: {error}", where=path.name
        ) from error


def _read_safetensors(data: bytes) -> tuple[Tensor, list[str]]:
    from safetensors.torch import load

    length = int.from_bytes(data[:8], "little")
    told = json.loads(data[8 : 8 + length])["__metadata__"]
    return load(data)["features"], list(json.loads(told["names"]))


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """What numpy.savez writes, but for the time, which would differ from run to run."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            inner = io.BytesIO()
            np.lib.format.write_array(inner, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), inner.getvalue())
    return out.getvalue()


def _parquet(features: Tensor, names: Sequence[str]) -> bytes:
    """Columns ``name`` and ``feature`` (a fixed-size list); the shape is in the schema."""
    arrow, parquet = _arrow()
    flat = features.flatten(1)
    width = int(flat.shape[1])
    column = arrow.FixedSizeListArray.from_arrays(
        arrow.array(flat.reshape(-1).numpy(), type=arrow.float32()), width
    )
    schema = arrow.schema(
        [("name", arrow.string()), ("feature", arrow.list_(arrow.float32(), width))],
        metadata={"leakaudit.shape": json.dumps(list(features.shape[1:]))},
    )
    table = arrow.table([arrow.array(list(names), type=arrow.string()), column], schema=schema)
    out = io.BytesIO()
    parquet.write_table(table, out, compression="none", use_dictionary=False)
    return out.getvalue()


def _read_parquet(data: bytes) -> tuple[Tensor, list[str]]:
    _, parquet = _arrow()
    table = parquet.read_table(io.BytesIO(data))
    shape = json.loads(table.schema.metadata[b"leakaudit.shape"])
    values = table.column("feature").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(values.copy()).view(-1, *shape), table.column("name").to_pylist()


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "Parquet needs the library pyarrow, which isn't installed",
            where="--format parquet",
            todo="Say pip install 'pyarrow>=14', or take safetensors or npz",
        ) from None
    return pyarrow, pyarrow.parquet
