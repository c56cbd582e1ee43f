"""Where the shipped templates and presets lie: in a wheel, an editable install or a checkout."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from leakaudit.core.errors import RunError, UnknownNameError, UsageError

ResourceKind = Literal["templates", "presets"]

_PACKAGE = Path(__file__).resolve().parents[1]


def resource_dir(kind: ResourceKind, *, package: Path = _PACKAGE) -> Path:
    """The folder of these resources.

    A wheel carries it inside ``leakaudit/``. In a checkout (and so in an editable install) it is a
    neighbour of ``leakaudit/``, which is believed only if the ``pyproject.toml`` there names
    leakaudit: any other folder could hold somebody else's templates. ``package`` is the folder of
    the installed package. Raises ``RunError`` where neither is there.
    """
    inside = package / kind
    if inside.is_dir():
        return inside
    beside = package.parent / kind
    if beside.is_dir() and _is_checkout(package.parent):
        return beside
    raise RunError(
        f"The {kind} that ship with leakaudit are missing",
        where=str(inside),
        todo="Install leakaudit again, from a wheel or from its whole checkout",
    )


def resource(kind: ResourceKind, name: str, *, package: Path = _PACKAGE) -> Path:
    """The file of this name among the resources.

    Raises ``UsageError`` for a name that would leave the folder, ``UnknownNameError`` (with the
    nearest names) for one that isn't there.
    """
    folder = resource_dir(kind, package=package)
    if not name or name in (".", "..") or any(mark in name for mark in ("/", "\\", "\0", ":")):
        raise UsageError(
            f"{name!r} is not a name among the {kind}",
            where=str(folder),
            todo="Give a bare file name, without folders",
        )
    path = folder / name
    if not path.is_file():
        known = [entry.name for entry in folder.iterdir() if entry.is_file()]
        raise UnknownNameError(kind.removesuffix("s"), name, known, where=str(folder))
    return path


def _is_checkout(folder: Path) -> bool:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
    table = project.get("project")
    return isinstance(table, dict) and table.get("name") == "leakaudit"
