"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from leakaudit.core.errors import InputError, RunError, UsageError


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes in hex; a file that can't be read is an ``InputError``."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"The file can't be read: {error.strerror}", where=str(path)) from error


def overlap(one: Path, other: Path) -> bool:
    """Whether two folders are the same, or one lies in the other."""
    a, b = one.resolve(), other.resolve()
    return a == b or a in b.parents or b in a.parents


def refuse_file(folder: Path, flag: str) -> None:
    """UsageError where the folder that ``flag`` names is a file."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            "This is a file, and a folder is needed", where=f"{flag} {folder}",
            todo="Name a new or empty folder",
        )  # fmt: skip


def refuse_unwritable(path: Path, flag: str) -> None:
    """UsageError where a file can't come to stand at the path, as far as can be told before."""
    if path.is_dir():
        raise UsageError("This is a folder, and a file is needed", where=f"{flag} {path}")
    folder = next((p for p in path.absolute().parents if p.exists()), Path("/"))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"Nothing can be written in {folder}", where=f"{flag} {path}",
            todo="Name a file in a folder of your own",
        )  # fmt: skip


def atomic_write(path: str | os.PathLike[str], content: bytes | str, *, mode: int = 0o666) -> Path:
    """The written file: ``content`` (text as UTF-8) stands at ``path`` whole, or not at all.

    Missing folders are made; a link is followed and stays a link; a pipe or device is written to
    directly. The file's permissions are ``mode`` less the umask. Any failure of the file system is
    a ``RunError`` that names the path.
    """
    target = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    with _told_of(path):
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_bytes(data)  # /dev/stdout and its kind can't be replaced by a file
            return target
        target = target.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES - 1):
            # Who writes here on another machine may take our beginning for a rest: once more.
            with contextlib.suppress(_SweptError):
                return _replace(target, data, mode)
        return _replace(target, data, mode)


@contextlib.contextmanager
def _told_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """A failure of the file system as a ``RunError`` that names the path."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Can't write the file: {error.strerror or error}",
            where=str(path),
            todo=_advice(error),
        ) from error


_TRIES = 5


class _SweptError(FileNotFoundError):
    """What was written beside the target has gone before it could take its place."""


def _replace(target: Path, data: bytes, mode: int) -> Path:
    """Write beside the target, then rename, which is atomic within one file system."""
    with _beside(target, data, mode) as beside:
        try:
            os.replace(beside, target)
        except FileNotFoundError as error:
            raise _SweptError(*error.args) from error
    return target


@contextlib.contextmanager
def _beside(target: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A whole file of this content beside the target; what is left of it goes in the end."""
    beside = target.with_name(f".{target.name[:100]}.{_token()}.tmp")
    try:  # an interruption must not leave a partial file either
        _write_exclusively(beside, data, mode)
        yield beside
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside)


def _write_exclusively(path: Path, data: bytes, mode: int) -> None:
    # Mode 666 less the umask, as for any file of the user's; tempfile would force 600.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_new(path: Path, content: bytes | str, *, mode: int = 0o666) -> bool:
    """Whether this very call wrote the file, only where there was nothing; missing folders too.

    Of processes that begin together one does. It is written whole, or where the file system has no
    links at least by one only. A failure of the file system is a ``RunError``.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with _told_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _beside(path, data, mode) as beside:
                try:
                    os.link(beside, path)  # unlike a rename it never replaces what is there
                except FileExistsError:
                    raise
                except OSError:  # a file system without links
                    _write_exclusively(path, data, mode)
        except FileExistsError:
            return False
    return True


_BESIDE = re.compile(r"\..*\.(?:[0-9a-f]{12}|([0-9a-f]{6})([0-9a-f]{8})[0-9a-f]{6})\.tmp")
"""What is written beside a target: by whom (machine and process), and something random."""
_LONG = 24 * 3600
"""Seconds after which nobody writes at a file any more."""


def _token() -> str:
    return f"{_machine()}{os.getpid():08x}{secrets.token_hex(3)}"


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def is_abandoned(path: Path) -> bool:
    """Whether what was begun beside a target was left by a writer that isn't there any more.

    One of this machine is asked whether it lives; of others nothing is known for a day.
    """
    found = _BESIDE.fullmatch(path.name)
    if found is None or found[1] is None:
        return True
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime >= _LONG:
            return True
    if found[1] != _machine() or os.name != "posix":
        return False
    try:
        os.kill(int(found[2], 16), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def sweep(folder: Path, *, older_than: float = 0.0, named: str = "") -> None:
    """Remove what writers that were killed left in the folder, older than so many seconds.

    ``named`` is what the files that they wrote begin with.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            stale = _BESIDE.fullmatch(path.name) and path.name.startswith(f".{named}")
            old = stale and time.time() - path.stat().st_mtime >= older_than
            if old and is_abandoned(path):
                path.unlink()


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space or choose another folder, then write it again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose a folder that you may write to"
    if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)):
        return "Name a file in a folder; a part of this path is of the other kind"
    return "Check the path or choose another one"
