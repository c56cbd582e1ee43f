"""What a result says of the tool itself: its version and those of the libraries it rests on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("torch", "torchvision", "numpy", "POT", "scikit-image", "lpips", "pillow")


def tool_version() -> str:
    """The installed version of leakaudit."""
    try:
        return version("leakaudit")
    except PackageNotFoundError:  # a checkout that isn't installed
        return "0+checkout"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries whose numbers a scan rests on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
