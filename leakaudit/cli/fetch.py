"""``leakaudit fetch``: published weights, downloaded once and verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakaudit.cli import options as opt
from leakaudit.cli.app import app
from leakaudit.cli.listing import columns
from leakaudit.core.errors import UsageError

if TYPE_CHECKING:
    from leakaudit.cli.progress import Reporter
    from leakaudit.models.catalogue import Weights
    from leakaudit.models.fetching import Fetched

_CHECKED = {
    "known": "the SHA-256 is the known one",
    "given": "the SHA-256 is the one you gave",
    "noted": "the SHA-256 is the one of the first fetch",
    "first": "no SHA-256 is known for this file; this one is noted and held against it from now on",
}


@app.command("fetch")
def fetch_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Such as facenet:vggface2; see --list."),
    ] = None,
    show: Annotated[bool, opt.option("--list", "Show what can be fetched.")] = False,
    folder: Annotated[Path | None, opt.option("--dir", "Another folder than the cache.")] = None,
    sha256: Annotated[
        str | None, opt.option("--sha256", "The hash you expect, for one name.")
    ] = None,
    source: Annotated[
        str | None, opt.option("--from", "Another URL or a file, for one name.")
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Download published weights once, verified; nothing else ever downloads.

    Without names it lists. What goes wrong on the way ends with 4, a wrong name with 2.
    """
    from leakaudit.cli.progress import Reporter
    from leakaudit.models.catalogue import known, weights_dir
    from leakaudit.models.fetching import fetch

    chosen = [known(name) for name in dict.fromkeys(names or [])]
    if show or not chosen:
        if chosen or sha256 or source:
            raise UsageError("--list goes alone", todo="Leave out the names, or --list")
        typer.echo("\n".join(_listing()))
        return
    if len(chosen) > 1 and (sha256 or source):
        raise UsageError("--sha256 and --from are about one file", todo="Fetch one name at a time")
    with Reporter(quiet=quiet, to_stdout=True) as say:
        for weights in chosen:
            say.line(f"{weights.name}: {weights.file}, {weights.mebibytes:g} MiB")
            say.line(f"  {source or weights.url}")
            say.line(f"  licence: {weights.licence}")
            got = fetch(
                weights, folder or weights_dir(), source=source, sha256=sha256,
                report=_progress(say, weights),
            )  # fmt: skip
            typer.echo(str(got.path))
            say.line(f"  {_told(got)}")


def _progress(say: Reporter, weights: Weights):  # type: ignore[no-untyped-def]
    def report(done: int, whole: int | None) -> None:
        told = f"fetching {weights.file}: {done / 2**20:.1f} MiB"
        say.progress(told, done / whole if whole else None)

    return report


def _told(got: Fetched) -> str:
    there = "" if got.made else "it was there already; "
    return f"{there}{_CHECKED[got.checked]} ({got.sha256})"


def _listing() -> list[str]:
    from leakaudit.models.catalogue import KNOWN, places, weights_dir

    rows = [("name", "MiB", "there", "verified by", "file")]
    for weights in KNOWN.values():
        there = any(path.is_file() for path in places(weights))
        by = "SHA-256" if weights.sha256 else "its first fetch"
        rows.append(
            (weights.name, f"{weights.mebibytes:g}", "yes" if there else "no", by, weights.file)
        )
    licences = dict.fromkeys(weights.licence for weights in KNOWN.values())
    return [*columns(rows, right=(1,)), "", *licences, f"Folder: {weights_dir()}"]
