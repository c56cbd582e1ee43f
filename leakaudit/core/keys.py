"""The secret key of a deployment: made once, kept private, and told apart by an identifier."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from leakaudit.core.errors import InputError, UsageError
from leakaudit.core.files import write_new
from leakaudit.core.rng import Rng

LENGTH = 32
_HEAD = "leakaudit-key-1:"


def new_key() -> bytes:
    """32 random bytes of the operating system."""
    return secrets.token_bytes(LENGTH)


def seed_key(seed: int) -> bytes:
    """The key of a seed, which is no secret: for demonstrations and tests."""
    return hashlib.sha256(f"leakaudit-seed:{seed}".encode()).digest()


def key_id(key: bytes) -> str:
    """Which key it is, in 16 hexadecimal digits that tell nothing else of it."""
    return hashlib.sha256(b"leakaudit-key-id" + key).hexdigest()[:16]


def pseudonym(key: bytes, name: str) -> str:
    """The name that stands for ``name``, 32 hexadecimal digits; without the key it can't be found.

    Source: HMAC-SHA256 (RFC 2104).
    """
    return keyed_hash(key, "name", name.encode("utf-8", "surrogatepass"))[:32]


def keyed_hash(key: bytes, what: str, content: bytes) -> str:
    """A hash of content that nobody can try candidates against who hasn't got the key."""
    return hmac.new(key, what.encode() + b"\0" + content, hashlib.sha256).hexdigest()


def keyed_rng(key: bytes, what: str, content: bytes = b"") -> Rng:
    """The secret stream that this key gives to this content, the same whenever it is asked for."""
    return Rng(int(keyed_hash(key, what, content), 16), ("keyed", what), secret=True)


def own_key(key: bytes, what: str) -> bytes:
    """The key (32 bytes) that this one gives to one purpose, unlike that of any other."""
    return bytes.fromhex(keyed_hash(key, "own", what.encode()))


def secret_key(path: str | Path) -> bytes:
    """The key of this file, made now with mode 0600 where there is none; keep it apart and safe."""
    return read_or_make_key(Path(path))[0]


def read_or_make_key(path: Path) -> tuple[bytes, bool]:
    """The key of this file, and whether it was made just now because there was no such file.

    A new one is written with mode 0600. Raises InputError for a file that is no key, UsageError for
    one that others may read.
    """
    made = not path.exists() and _make(path)
    return read_key(path), made


def _make(path: Path) -> bool:
    """Whether this very call made the file: of processes that begin together only one does."""
    return write_new(path, f"{_HEAD}{new_key().hex()}\n", mode=0o600)


def read_key(path: Path) -> bytes:
    """The key of this file; raises as ``read_or_make_key`` does, and where there is none."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise InputError(
                "This is a folder, and a key is a file", where=f"--key {path}",
                todo="Name a file in it that isn't there yet, and a key is made",
            )  # fmt: skip
        text = path.read_text(encoding="ascii").strip() if stat.S_ISREG(info.st_mode) else ""
    except UnicodeDecodeError:
        text = ""
    except OSError as error:
        raise InputError(
            f"The key can't be read: {error.strerror}", where=str(path), todo="Check --key"
        ) from error
    if os.name == "posix" and info.st_mode & 0o077:
        raise UsageError(
            "Others than its owner may use this key",
            where=f"--key {path}, mode {stat.S_IMODE(info.st_mode):04o}",
            todo=f"Say chmod 600 {path}; if somebody may have read it, make a new one",
        )
    digits = text.removeprefix(_HEAD)
    if not text.startswith(_HEAD) or len(digits) != 2 * LENGTH or set(digits) - set(_HEX):
        raise InputError(
            "This file is not a leakaudit key",
            where=f"--key {path}",
            todo="Name a file that isn't there yet, and a key is made",
        )
    return bytes.fromhex(digits)


_HEX = "0123456789abcdef"
