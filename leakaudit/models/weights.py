"""Weights on disk: read without running anybody's code, fitted strictly, written atomically.

A file is judged by its first bytes: safetensors, or a torch file whose pickle holds nothing but
tensors. Everything else is refused with a `WeightsError` that says what it is.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leakaudit.core.errors import WeightsError
from leakaudit.core.files import atomic_write

# What training scripts call the part of a checkpoint that holds the network, best known first;
# where a file holds both, the plain weights are read, not their moving average, and that is said.
_WRAPPERS = (
    "state_dict", "model_state_dict", "model", "state_dict_ema", "net", "network", "module",
    "encoder", "backbone", "teacher", "student", "ema", "model_ema", "ema_state_dict", "params",
    "weights",
)  # fmt: skip
# What wrappers such as DataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "encoder.", "net.", "network.")
_SHOWN = 5
_RESAVE = "Save it again as torch.save(model.state_dict(), FILE) or as safetensors"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes in hex; a file that can't be read is a `WeightsError`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def sha256_of_state(module: nn.Module) -> str:
    """The SHA-256 of a module's parameters and buffers: names, kinds, shapes and bytes, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_state(
    path: Path, *, trust: bool = False, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Tensor]:
    """The named tensors of a weights file, on the CPU, every floating number finite.

    Reads safetensors and torch files (``weights_only=True``), unwraps checkpoints (``state_dict``,
    ``model``, ``ema``, ...) and takes off prefixes that all names share (``module.``,
    ``_orig_mod.``, ``backbone.``, ...). With ``trust`` a full pickle is run and loaded as well.
    Where the file holds several networks, ``tell`` is told which one was read. Raises
    `WeightsError` for a file that is missing, truncated, of another kind, unsafe, empty of
    tensors or not finite.
    """
    if path.is_dir():
        raise WeightsError("This is a folder, not a weights file", where=path.name)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not head:
        raise WeightsError("The weights file is empty", where=path.name, todo="Fetch it again")
    raw = _read_safetensors(path) if _is_safetensors(head) else _read_torch(path, head, trust)
    state = _without_shared_prefixes(_tensors_of(raw, path, tell))
    _refuse_non_finite(state, path)
    return state


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    where: str,
    ignore_prefixes: Sequence[str] = (),
) -> tuple[str, ...]:
    """Put the tensors into the module, all or none; gives notes on what was left alone.

    Strict: names that are missing or unexpected and shapes that differ are a `WeightsError` that
    lists the first five of each, and the module stays as it was. Exempt are names that are, or
    begin with, one of ``ignore_prefixes`` (parts that are never run; what happened to them is in
    the notes, and what the file hasn't got of them is zeros, so that equal files give equal
    networks) and batch norm's ``num_batches_tracked``, which evaluation doesn't read. Where the
    file wraps the network (``backbone.conv1.weight``), that part is taken and the rest is noted.
    """
    wanted = module.state_dict()
    given, outside = _aligned(state, wanted.keys())

    def ignored(name: str) -> bool:
        return any(name == prefix or name.startswith(prefix) for prefix in ignore_prefixes)

    shapes = {
        name: f"{name} is {_shape(given[name])} in the file, {_shape(wanted[name])} in the network"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    }
    whole = [
        (name, f"{name} ({str(given[name].dtype).removeprefix('torch.')})")
        for name in wanted
        if name in given
        and wanted[name].is_floating_point()
        and not given[name].is_floating_point()
    ]
    tied = {_place(wanted[name]) for name in given if name in wanted}  # one tensor, many names
    missing = [
        name
        for name in wanted
        if name not in given
        and not name.endswith("num_batches_tracked")
        and _place(wanted[name]) not in tied
    ]
    unexpected = [name for name in given if name not in wanted]
    faults = [
        _listed(label, [text for name, text in items if not ignored(name)])
        for label, items in (
            ("missing in the file", [(name, name) for name in missing]),
            ("unknown to the network", [(name, name) for name in unexpected]),
            ("of another shape", list(shapes.items())),
            ("whole numbers where the network computes with fractions (quantised?)", whole),
        )
    ]
    if any(faults):
        raise WeightsError(
            "The weights don't fit the network: " + "; ".join(fault for fault in faults if fault),
            where=where,
            todo="Give the weights of this very network, or a factory that builds the network "
            "the weights belong to; nothing was loaded",
        )
    fitting = {n: t for n, t in given.items() if n in wanted and n not in shapes}
    module.load_state_dict(fitting, strict=False)
    given_to = {wanted[name].untyped_storage().data_ptr() for name in fitting}
    for name in {*missing, *shapes}:
        if wanted[name].untyped_storage().data_ptr() not in given_to:  # tied to nothing that is run
            wanted[name].zero_()
    left = sorted({*missing, *unexpected, *shapes})
    notes = []
    if left:
        notes.append(_listed("not loaded, because the audit never runs it", left))
    if outside:
        notes.append(_listed("not loaded, because it lies outside the network", outside))
    return tuple(notes)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for two tensors that are the same numbers in memory."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.numel() or id(tensor)


def save_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, *,
    mode: int = 0o666,
) -> None:  # fmt: skip
    """Write the tensors and text metadata; the file appears whole or not at all.

    ``mode`` are its permissions, less the umask. The same tensors and metadata give the same
    bytes. A full or read-only disk is a `RunError`.
    """
    atomic_write(path, safetensors_bytes(tensors, metadata), mode=mode)


def safetensors_bytes(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> bytes:
    """What ``save_safetensors`` writes."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return _with_metadata(save(plain), dict(metadata or {}))


def _with_metadata(payload: bytes, metadata: dict[str, str]) -> bytes:
    # The library writes metadata in the order of a hash map that changes from process to process,
    # so that equal weights would have unequal hashes; here the header is written in sorted order.
    if not metadata:
        return payload
    length = struct.unpack("<Q", payload[:8])[0]
    header = json.loads(payload[8 : 8 + length])
    ordered = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(ordered, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for data that starts at a multiple of 8
    return struct.pack("<Q", len(text)) + text + payload[8 + length :]


def _is_safetensors(head: bytes) -> bool:
    # Eight bytes of length, of which the upper four are zero in any sane file, then JSON.
    return head[4:9] == b"\0\0\0\0{"


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise WeightsError(
            f"The safetensors file is damaged or truncated: {_first_line(error)}",
            where=path.name,
            todo="Fetch or save it again",
        ) from error


def _read_torch(path: Path, head: bytes, trust: bool) -> Any:
    _refuse_other_kinds(path, head)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about pickle protocols and old formats
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise _unsafe_or_damaged(path, error) from error
    except Exception as error:
        raise WeightsError(
            f"The weights file is damaged or truncated: {_first_line(error)}",
            where=path.name,
            todo="Fetch or save it again",
        ) from error


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    kind = None
    if head.startswith(b"version https://git-lfs"):
        kind = "a Git LFS pointer, and the weights themselves were not fetched (git lfs pull)"
    elif head.lstrip()[:1] == b"<":
        kind = "a web page, so the download went wrong"
    elif head.startswith(b"PK"):
        kind = _kind_of_zip(path)
    elif head[:1] != b"\x80":  # every pickle that torch wrote begins so
        kind = "neither safetensors nor a torch file"
    if kind:
        raise WeightsError(
            f"The weights file is {kind}",
            where=path.name,
            todo="Give a .safetensors file or a state dict saved by torch.save",
        )


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "a torch file that is damaged or truncated; fetch or save it again"
    if any(name.endswith("constants.pkl") for name in names):
        return "a TorchScript program; name it FILE.ts and give it as --encoder FILE.ts"
    if any(name.endswith("data.pkl") for name in names):
        return None
    return "an archive without weights in it"


def _unsafe_or_damaged(path: Path, error: Exception) -> WeightsError:
    text = str(error)
    if "Unsupported" not in text:
        what = "The weights file is damaged, truncated or of another kind"
        return WeightsError(what, where=path.name, todo=_RESAVE)
    found = re.search(r"(?:GLOBAL|class) `?([\w.]+)", text)
    names = f" ({found[1]})" if found else ""
    return WeightsError(
        f"The file is a full pickle that runs code{names} when it is opened, so it was not opened",
        where=path.name,
        todo=f"{_RESAVE}, where you trust it; or say --trust-encoder for an encoder's own weights",
    )


def _tensors_of(raw: Any, path: Path, tell: Callable[[str], None]) -> dict[str, Tensor]:
    """The innermost mapping of names to tensors in what a training script saved."""
    for _ in range(5):
        if isinstance(raw, nn.Module):
            raw = raw.state_dict()
        if not isinstance(raw, Mapping):
            break
        parts = [key for key in _WRAPPERS if isinstance(raw.get(key), (Mapping, nn.Module))]
        if not parts:
            break
        if further := [key for key in parts[1:] if _has_tensors(raw[key])]:
            others = ", ".join(f"'{key}'" for key in further)
            tell(
                f"{path.name} holds several networks: '{parts[0]}' was read, and not {others}. "
                "If another one is deployed, save it by itself"
            )
        raw = raw[parts[0]]
    tensors = (
        {str(name): value.detach() for name, value in raw.items() if isinstance(value, Tensor)}
        if isinstance(raw, Mapping)
        else {}
    )
    if not tensors:
        held = f"one {type(raw).__name__}"
        if isinstance(raw, Mapping):
            held = f"the keys {', '.join(map(str, raw))[:120]}" if raw else "an empty dictionary"
        raise WeightsError(
            f"The file holds no named tensors but {held}", where=path.name, todo=_RESAVE
        )
    return tensors


def _has_tensors(thing: Any) -> bool:
    """Whether tensors stand in this mapping, or in one inside it."""
    if isinstance(thing, nn.Module):
        return True
    inner = thing.values() if isinstance(thing, Mapping) else ()
    return any(isinstance(value, Tensor) or _has_tensors(value) for value in inner)


def _without_shared_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # torch.compile on a part leaves its prefix in the middle of a name too.
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    while shared := next((p for p in _PREFIXES if all(n.startswith(p) for n in state)), None):
        state = {name[len(shared) :]: tensor for name, tensor in state.items()}
    return state


def _aligned(
    state: Mapping[str, Tensor], wanted: Iterable[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The state under the names that match most of ``wanted``, and the names left outside."""
    names = set(wanted)
    best, outside, hits = dict(state), list[str](), len(names & state.keys())
    for prefix in _PREFIXES:
        inner = {n[len(prefix) :]: t for n, t in state.items() if n.startswith(prefix)}
        if len(names & inner.keys()) > hits:
            rest = [name for name in state if not name.startswith(prefix)]
            best, outside, hits = inner, rest, len(names & inner.keys())
        wrapped = {prefix + n: t for n, t in state.items()}  # load_state took it off
        if len(names & wrapped.keys()) > hits:
            best, outside, hits = wrapped, [], len(names & wrapped.keys())
    return best, outside


def _refuse_non_finite(state: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise WeightsError(
                f"The tensor '{name}' holds {bad} numbers that are NaN or infinite",
                where=path.name,
                todo="The training that made it diverged; give an earlier checkpoint",
            )


def _listed(label: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {label}: {', '.join(names[:_SHOWN])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def _first_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _unreadable(path: Path, error: OSError) -> WeightsError:
    if isinstance(error, FileNotFoundError):
        return WeightsError("There is no such weights file", where=str(path), todo="Check the path")
    return WeightsError(f"The weights file can't be read: {error.strerror}", where=str(path))
