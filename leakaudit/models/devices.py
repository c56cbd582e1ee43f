"""Where networks run: the processor, or an NVIDIA GPU that was asked for by its name."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from leakaudit.core.errors import UsageError

Device = torch.device
"""For rooms that don't import torch."""

CPU: Final = torch.device("cpu")
_CUDA: Final = re.compile(r"cuda(?::(\d{1,3}))?")


def device_of(asked: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means on this machine.

    ``auto`` is the CPU as long as nobody has held a GPU's results against the CPU's. Raises
    UsageError for a device that isn't there, with those that are, and for another kind.
    """
    text = asked.strip().lower()
    if text in ("auto", "cpu"):
        return CPU
    found = _CUDA.fullmatch(text)
    if found is None:
        raise UsageError(
            f"Audits run on cpu, cuda or cuda:N, not on '{asked}'",
            where="--device",
            todo=f"Use {' or '.join(present())}",
        )
    place = int(found[1] or 0)
    if f"cuda:{place}" not in present():
        raise UsageError(
            f"torch finds no device '{asked}' here",
            where="--device",
            todo=f"Use {' or '.join(present())}, or a torch that is built for your GPU and driver",
        )
    return torch.device("cuda", place)


def present() -> tuple[str, ...]:
    """What ``--device`` may name on this machine."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ("cpu", *(f"cuda:{k}" for k in range(count)))


def told(device: torch.device) -> str:
    """A device for a record, with the model of a GPU: results may differ by it in rounding."""
    if device.type != "cuda":
        return str(device)
    return f"{device} {torch.cuda.get_device_name(device)}"


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No short cuts of a GPU's convolutions while this holds; nothing changes on the CPU.

    TensorFloat-32 keeps 10 bits of each number, which an inversion's small gradients don't survive,
    and kernels that are chosen by timing give other bits from run to run.
    """
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


def half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 convolutions where the device has them, else float32; weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_half(device))


@functools.cache
def has_half(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 are quicker than in float32 there.

    A processor without AVX-512 (or ARM's bf16), as many laptops and servers have it, takes ten
    times as long for them; a GPU before Ampere has none of its own.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return True
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False


def settle(device: torch.device) -> None:
    """Wait until a GPU has done what it was told, so that a clock says how long that took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
