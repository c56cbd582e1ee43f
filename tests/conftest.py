"""One thread, and tests that need what isn't at hand are skipped with the reason said."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections import Counter

import pytest

# Before torch is imported: tests share two cores, and sums over one thread have one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# Registered before any backward pass: the engine counts devices once, and some modules
# differentiate while they are collected.
import simulated  # noqa: F401

# No test may take a prior from the user's own cache, nor leave one there.
os.environ["LEAKAUDIT_CACHE"] = tempfile.mkdtemp(prefix="leakaudit-tests-")
atexit.register(shutil.rmtree, os.environ["LEAKAUDIT_CACHE"], ignore_errors=True)


@pytest.hookimpl(tryfirst=True)  # before slow tests are left out: their files come first anyway
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if not os.environ.get("LEAKAUDIT_DATA"):
        reasons["realdata"] = "LEAKAUDIT_DATA doesn't name a folder of real faces"
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        reasons["gpu"] = "there is no CUDA device"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    if hasattr(config, "workerinput"):
        _long_files_first(items)


def _long_files_first(items: list[pytest.Item]) -> None:
    """Files with slow tests, then those with many: no worker shall end with a long one alone.

    Workers are given files in this order; files of one size, and tests in a file, stay shuffled.
    """
    count = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, -count[item.path]))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
