"""What a machine has for an audit: versions, processor, and the files that are never downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from leakaudit.audit.about import tool_version, versions
from leakaudit.core.errors import WeightsError
from leakaudit.models.catalogue import KNOWN, LPIPS_TRUNK, Weights, at_hand
from leakaudit.models.devices import CPU, has_half, present, told

EXTRAS = {
    "facenet-pytorch": ("facenet:NAME encoders and judges", "'facenet-pytorch>=2.5.3,<2.6'"),
    "timm": ("timm:NAME encoders", "'timm>=1.0'"),
    "onnxruntime": ("FILE.onnx encoders", "'onnxruntime>=1.18'"),
}
"""What isn't needed by every audit: what it is for, and how to get it."""


@dataclass(frozen=True)
class Item:
    """One line about the machine; ``todo`` says how to get what is missing."""

    name: str
    found: str
    there: bool = True
    todo: str = ""


def environment() -> tuple[Item, ...]:
    """Versions, device, optional libraries, and weights that metrics need; nothing is fetched."""
    items = [Item("leakaudit", tool_version())]
    for name, found in versions().items():
        missing = found == "missing"
        items.append(Item(name, found, not missing, f"pip install {name}" if missing else ""))
    return (*items, *map(_extra, EXTRAS), *_devices(), _trunk(), *_weights())


def _extra(name: str) -> Item:
    use, source = EXTRAS[name]
    try:
        return Item(name, version(name))
    except PackageNotFoundError:
        return Item(name, f"not installed, so no {use}", False, f"pip install {source}")


def _devices() -> tuple[Item, ...]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    trained = "bfloat16" if has_half(CPU) else "float32"  # which machines' timings differ by
    threads = f"torch's threads: {torch.get_num_threads()}"
    processor = Item("processor", f"cores: {cores}, {threads}, trainings in {trained}")
    if not torch.cuda.is_available():
        return (processor, Item("GPU", "none that torch can use; audits run on the processor"))
    found = (Item("GPU", told(torch.device(name))) for name in present()[1:])
    return (processor, *found)


def _trunk() -> Item:
    path, wrong = _found(LPIPS_TRUNK)
    if path:
        return Item("LPIPS trunk", path)
    why = wrong or f"{LPIPS_TRUNK.file} isn't there, so LPIPS is unavailable"
    return Item("LPIPS trunk", why, False, LPIPS_TRUNK.fetch)


def _weights() -> tuple[Item, ...]:
    """The fetched weights, and files that have another hash than they should."""
    items = []
    for weights in KNOWN.values():
        path, wrong = _found(weights)
        if weights != LPIPS_TRUNK and (path or wrong):
            todo = "" if path else f"delete it, then {weights.fetch}"
            items.append(Item(weights.name, path or wrong, path != "", todo))
    return tuple(items)


def _found(weights: Weights) -> tuple[str, str]:
    """The file's name where it is there and right; else nothing, and what is wrong with it."""
    try:
        path = at_hand(weights)
    except WeightsError as error:
        return "", f"{error.what} ({error.where})"
    return ("" if path is None else path.name), ""
