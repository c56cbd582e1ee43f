"""What the bits of a computation rest on beside its inputs: processor, library, threads."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from leakaudit.models.devices import CPU, told


def machine(device: torch.device = CPU) -> dict[str, Any]:
    """Machine type, processor, vector instructions, torch's version and its number of threads.

    A GPU that did the work is named beside them. Where all of them are the same on a CPU, the same
    picture and key are released as the same bits.
    """
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **({} if device == CPU else {"device": told(device)}),
    }


@lru_cache(maxsize=1)
def _processor() -> str:
    """The processor's model; Linux keeps it in a file, others tell it themselves."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
