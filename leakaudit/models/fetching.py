"""Downloads of published weights: asked for by name, verified, whole or not at all.

Only ``leakaudit fetch`` comes here. A download that breaks off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakaudit.core.cache import is_offline
from leakaudit.core.errors import RunError, UsageError
from leakaudit.core.files import atomic_write, sha256_of_file
from leakaudit.models.catalogue import Weights, note_of, noted

Report = Callable[[int, int | None], None]
"""Told how many bytes there are and how many there will be, where that is known."""

TIMEOUT = 30.0
_CHUNK = 1 << 18
_TOO_LARGE = 1.25  # times the size that the publisher tells
_CLIMB = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """Where the file lies, its hash, and how that was checked.

    ``checked`` is ``known`` (against the catalogue), ``given`` (against the user's), ``noted``
    (against the hash of an earlier fetch) or ``first``: nothing to check against, noted now.
    ``made`` is False where it had been there already.
    """

    path: Path
    sha256: str
    checked: str
    made: bool


def fetch(
    weights: Weights,
    folder: Path,
    *,
    source: str | None = None,
    sha256: str | None = None,
    report: Report = lambda done, whole: None,
) -> Fetched:
    """The file of these weights in ``folder``, downloaded where it isn't there yet.

    ``source`` is another URL or a file to take it from; ``sha256`` the hash that the user expects.
    The file appears whole and verified or not at all; one with the wrong hash is deleted. Raises
    RunError for a network, server or disk that fails and for a wrong hash, UsageError for what was
    asked wrongly, and where ``LEAKAUDIT_OFFLINE`` forbids the network.
    """
    target = folder / weights.file
    wanted, checked = _wanted(weights, target, sha256)
    if target.is_file() and source is None:
        found = sha256_of_file(target)
        if wanted is None or found == wanted:
            _note(target, found)
            return Fetched(target, found, checked, made=False)
        raise RunError(
            f"The file that is there has another hash: {found[:12]}..., not {wanted[:12]}...",
            where=str(target),
            todo="Delete it and fetch again",
        )
    url = source or weights.url
    part = target.with_name(f".{target.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _is_url(url):
            _refuse_offline(url, target)
            # Without a hash nothing would tell two files that were joined.
            if wanted is None:
                part.unlink(missing_ok=True)
            _download(url, part, limit=_limit(weights, source), report=report, by_hand=target)
        else:
            _copy(Path(url), part)
        found = _verified(part, wanted, weights, url)
        os.replace(part, target)
    except OSError as error:
        raise RunError(
            f"The weights can't be written: {error.strerror or error}", where=str(target)
        ) from error
    _note(target, found)
    return Fetched(target, found, checked, made=True)


def _wanted(weights: Weights, target: Path, given: str | None) -> tuple[str | None, str]:
    """The hash that the file must have, and where it is from."""
    if given is not None:
        given = given.strip().lower()
        if not re.fullmatch(r"[0-9a-f]{64}", given):
            raise UsageError("A SHA-256 has 64 hexadecimal digits", where=f"--sha256 {given}")
        if weights.sha256 is not None and given != weights.sha256:
            raise UsageError(
                f"Another SHA-256 is known for {weights.name}: {weights.sha256}", where="--sha256"
            )
        return given, "given"
    if weights.sha256 is not None:
        return weights.sha256, "known"
    earlier = noted(target)
    return (earlier, "noted") if earlier is not None else (None, "first")


def _limit(weights: Weights, source: str | None) -> int | None:
    """How many bytes are too many; a file of a source that the user names may be any."""
    return None if source is not None else int(_TOO_LARGE * weights.mebibytes * 2**20) + _CLIMB


def _is_url(text: str) -> bool:
    kind = urllib.parse.urlsplit(text).scheme
    if kind in ("http", "https", "file"):
        return True
    if "://" in text:
        raise UsageError(f"'{kind}' is not fetched", where=text, todo="Give http, https or a file")
    return False


def _refuse_offline(url: str, target: Path) -> None:
    if is_offline() and not url.startswith("file:"):
        raise UsageError(
            "LEAKAUDIT_OFFLINE forbids the network",
            where=url,
            todo=f"Unset it, or bring the file by hand to {target}",
        )


def _copy(source: Path, part: Path) -> None:
    try:
        with source.open("rb") as file, part.open("wb") as out:
            while chunk := file.read(_CHUNK):
                out.write(chunk)
    except FileNotFoundError as error:
        raise UsageError("There is no such file", where=f"--from {source}") from error
    except IsADirectoryError as error:
        raise UsageError("This is a folder, not a file", where=f"--from {source}") from error


def _download(url: str, part: Path, *, limit: int | None, report: Report, by_hand: Path) -> None:
    """Everything of ``url`` in ``part``, beginning where an earlier try stopped."""
    there = part.stat().st_size if part.is_file() else 0
    with _answered(url, there, by_hand) as answer:
        _refuse_downgrade(url, answer.geturl())
        if there and not _goes_on(answer, there):
            there = 0
        length = answer.headers.get("Content-Length")
        whole = there + int(length) if length and length.isdigit() else None
        with part.open("ab" if there else "wb") as out:
            _read(answer, out, there, whole, limit, report, url)


def _read(
    answer: Any, out: Any, there: int, whole: int | None, limit: int | None, report: Report,
    url: str,
) -> None:  # fmt: skip
    report(there, whole)
    while True:
        if limit is not None and max(there, whole or 0) > limit:
            raise RunError("The server sends far more than this file's size", where=url)
        try:
            chunk = answer.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _broken_off(there, whole, url) from error
        if not chunk:
            break
        out.write(chunk)
        there += len(chunk)
        report(there, whole)
    if whole is not None and there < whole:
        raise _broken_off(there, whole, url)


def _broken_off(there: int, whole: int | None, url: str) -> RunError:
    of = "" if whole is None else f" of {whole:,}"
    return RunError(
        f"The connection broke off after {there:,}{of} bytes",
        where=url,
        todo="Type the same again: it goes on where it stopped, where the server can",
    )


@contextmanager
def _answered(url: str, there: int, by_hand: Path) -> Iterator[Any]:
    """The server's answer, of what comes after ``there`` bytes if it can; begins anew if not."""
    try:
        answer = _ask(url, there)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and there:  # all of it is there already, or the file has changed
            answer = _asked_anew(url, by_hand)
        else:
            raise _unreachable(url, f"answered {error.code} {error.reason}", by_hand) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, f"can't be reached: {_reason(error)}", by_hand) from error
    with answer:
        yield answer


def _asked_anew(url: str, by_hand: Path) -> Any:
    try:
        return _ask(url, 0)
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, f"can't be reached: {_reason(error)}", by_hand) from error


def _ask(url: str, there: int) -> Any:
    headers = {"User-Agent": "leakaudit", "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def _goes_on(answer: Any, there: int) -> bool:
    """Whether the answer begins where the file ends; a server may send all of it instead."""
    told = str(answer.headers.get("Content-Range") or "")
    return getattr(answer, "status", None) == 206 and told.startswith(f"bytes {there}-")


def _refuse_downgrade(asked: str, got: str) -> None:
    if asked.startswith("https:") and not got.startswith("https:"):
        raise RunError("The server leads to an address that isn't encrypted", where=got)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:160] or type(error).__name__


def _unreachable(url: str, why: str, by_hand: Path) -> RunError:
    return RunError(
        f"The server {why}",
        where=url,
        todo=f"Try again, or fetch it where there is a network and bring the file to {by_hand}",
    )


def _verified(part: Path, wanted: str | None, weights: Weights, url: str) -> str:
    """The hash of the file, which is deleted where it isn't the wanted one or can't be weights."""
    found = sha256_of_file(part)
    why = None
    if wanted is not None and found != wanted:
        why = f"has the SHA-256 {found}, not {wanted}"
    elif wanted is None and part.stat().st_size < weights.mebibytes * 2**20 / _TOO_LARGE:
        why = f"is {part.stat().st_size:,} bytes, not about {weights.mebibytes:g} MiB"
    if why is not None:
        with part.open("rb") as file:
            page = file.read(64).lstrip().startswith(b"<")
        with contextlib.suppress(OSError):
            part.unlink()
        raise RunError(
            f"What came {why}{', and is a web page' if page else ''}; it was deleted",
            where=url,
            todo="Try again, or another source with --from",
        )
    return found


def _note(path: Path, sha256: str) -> None:
    if noted(path) != sha256:
        atomic_write(note_of(path), f"{sha256}  {path.name}\n")
