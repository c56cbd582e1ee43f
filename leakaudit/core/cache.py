"""What is kept between runs, private, and the promise that a run reaches no network."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leakaudit.core.errors import RunError, UsageError

OFFLINE = "LEAKAUDIT_OFFLINE"
VARIABLE = "LEAKAUDIT_CACHE"
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def cache_dir() -> Path:
    """``LEAKAUDIT_CACHE``, or the platform's folder for caches; it need not be there yet."""
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(base) / "leakaudit" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "leakaudit"
    said = os.environ.get("XDG_CACHE_HOME", "")  # which must be absolute, or is ignored
    return (Path(said) if os.path.isabs(said) else Path.home() / ".cache") / "leakaudit"


def cache_folder(kind: str) -> Path:
    """The folder for this kind of thing, made with mode 0700 where it isn't there.

    RunError where it can't be made.
    """
    folder = cache_dir() / kind
    try:
        cache_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise RunError(
            "The cache folder can't be made",
            where=f"{folder}: {error.strerror or error}",
            todo=f"Name another one with {VARIABLE}",
        ) from error
    return folder


def is_offline() -> bool:
    """Whether ``LEAKAUDIT_OFFLINE`` says so; UsageError for neither yes nor no."""
    said = os.environ.get(OFFLINE, "").strip().lower()
    if said not in (*_YES, *_NO):
        raise UsageError(f"'{said}' is neither 1 nor 0", where=OFFLINE)
    return said in _YES


class OfflineError(UsageError, ConnectionError):
    """Something wanted the network while ``--offline`` forbids it; libraries see no connection."""


@contextmanager
def no_network(active: bool = True) -> Iterator[None]:
    """While it lasts, Python's sockets connect to nothing outside of this machine's own pipes.

    Asking for an address or a connection raises `OfflineError`, for a user's own code as well, and
    libraries that know a switch for it are told. Code that opens sockets without Python's module
    isn't held.
    """
    if not active:
        yield
        return
    # The class is patched, so that whoever has imported it already is held too.
    names = ("connect", "connect_ex", "sendto")
    kept = {name: getattr(socket.socket, name) for name in names}
    asked = socket.getaddrinfo
    switches = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    try:
        for name, real in kept.items():
            setattr(socket.socket, name, _only_local(real))
        socket.getaddrinfo = _refuse
        os.environ.update(dict.fromkeys(switches, "1"))
        yield
    finally:
        for name, real in kept.items():
            setattr(socket.socket, name, real)
        socket.getaddrinfo = asked
        for name, value in switches.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _only_local(real: Any) -> Any:
    def guarded(self: socket.socket, *arguments: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse(arguments[-1] if arguments else "")
        return real(self, *arguments)

    return guarded


def _refuse(host: Any = "", *_: Any, **__: Any) -> Any:
    name = host[0] if isinstance(host, tuple) and host else host
    raise OfflineError(
        f"Something tried to reach '{name}' on the network, and --offline forbids that",
        todo="Provide the file (leakaudit fetch, or by hand), or leave out --offline",
    )
