"""What commands that attack share: the run folder, the plan, the command as it goes to a result."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from leakaudit.core.errors import UsageError

if TYPE_CHECKING:
    from leakaudit.audit.plan import Plan
    from leakaudit.audit.store import RunStore
    from leakaudit.cli.progress import Reporter
    from leakaudit.core.types import Result
    from leakaudit.models.devices import Device
    from leakaudit.models.subject import Subject


WITH_STUDY = "result-study.json"
"""A result with the answers of its study, beside the result itself."""


class GalleryMode(StrEnum):
    """Whether the report shows faces."""

    none = "none"
    redacted = "redacted"
    full = "full"


def gallery_mode(asked: GalleryMode | None) -> str:
    """The gallery of real faces: none in CI, else redacted, unless it was said."""
    if asked is not None:
        return asked.value
    return "none" if os.environ.get("CI") else "redacted"


def new_run_dir() -> Path:
    """A folder name that no other run has."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return Path("leakaudit-runs") / f"{stamp}-{secrets.token_hex(3)}"


@contextlib.contextmanager
def session(
    run_dir: Path | None, *, resume: bool, offline: bool, quiet: bool, verbose: bool,
    to_stdout: bool, device: Device | None = None, most: int | None = None,
) -> Iterator[tuple[RunStore, Reporter]]:  # fmt: skip
    """A run folder and a reporter, in force while a command attacks.

    ``device`` computes with full precision meanwhile, and ``most`` bounds how many faces go through
    a network at once. Raises UsageError for options that contradict, or a run to resume that isn't
    there; RunError where the folder can't be written.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose at once", todo="Give one of them")
    if resume and run_dir is not None and not run_dir.is_dir():
        raise UsageError("There is no such run to resume", where=f"--run-dir {run_dir}")
    if resume and run_dir is None:
        raise UsageError("--resume needs the --run-dir of the interrupted run")
    from leakaudit.audit.store import RunStore
    from leakaudit.cli.progress import Reporter
    from leakaudit.core.cache import no_network
    from leakaudit.maths.chunks import at_most
    from leakaudit.models.devices import CPU, full_precision

    with (
        no_network(offline),
        full_precision(device or CPU),
        at_most(most),
        contextlib.ExitStack() as leave,
        warnings.catch_warnings(),
        Reporter(quiet=quiet, verbose=verbose, to_stdout=to_stdout) as say,
    ):
        warnings.simplefilter("ignore")  # libraries' warnings aren't findings; doubts are
        folder = run_dir or new_run_dir()
        store = RunStore(folder, resume=resume)  # before any work: it may not be writable
        say.run_folder = folder
        if not resume and (folder / "result.json").is_file():
            say.line(f"The result of an earlier run in {folder} will be replaced.")
        leave.callback(store.discard_if_empty)
        yield store, say


def paths_of(outputs: Sequence[tuple[str, str]]) -> list[str]:
    """The paths of the outputs."""
    return [path for _, path in outputs]


def plan_for(
    subject: Subject, *, preset: str, defences: Sequence[str], attacks: Sequence[str] | None,
    seed: int,
) -> Plan:  # fmt: skip
    """The plan of these names, as far as the subject has what they need."""
    from leakaudit.audit.plan import make_plan

    return make_plan(
        preset=preset, defences=defences, attacks=attacks, seed=seed,
        has_prior=subject.prior is not None, has_head=subject.head is not None,
        has_gradients=getattr(subject.encoder, "differentiable", True),
    )  # fmt: skip


def check_names(
    *, preset: str, attacks: Sequence[str] | None, defences: Sequence[str] = ()
) -> None:
    """Raises UsageError for a name or setting that no plan could hold, before any work is done."""
    from leakaudit.audit.knobs import is_auto, knob_of, split_targets
    from leakaudit.audit.plan import make_plan

    if attacks is None and not defences:
        return
    for spec in filter(is_auto, defences):
        knob_of(split_targets(spec)[0], preset=preset)
    make_plan(
        preset=preset, defences=[spec for spec in defences if not is_auto(spec)], attacks=attacks,
        seed=0, has_prior=True, has_head=True, has_gradients=True,
    )  # fmt: skip


def finish(
    result: Result, store: RunStore, outputs: Sequence[tuple[str, str]], say: Reporter
) -> int:
    """Writes the result and the report, clears the stages, writes outputs; gives the exit code."""
    from leakaudit.audit.by_layer import without_pictures
    from leakaudit.cli.outputs import (
        ended,
        write_all,
        write_layers,
        write_outputs,
        write_step_summary,
    )
    from leakaudit.core.by_layer import parts
    from leakaudit.report.console import print_result

    say.done()
    folder = store.folder
    own = write_layers(result, folder)
    result = without_pictures(result)
    page = folder / "report.html"
    written = write_outputs(result, [("json", str(folder / "result.json")), ("html", str(page))])
    store.clear()
    _forget_earlier(store, [*own, *written])
    extra, failed = write_all(result, outputs)
    write_step_summary(result)
    print_result(result, say.out)
    seconds = sum(part.seconds["scan"] for part in parts(result))
    spent = sum(row.encoder_passes for part in parts(result) for row in part.convergence)
    say.line(f"{seconds:.0f} s of scanning, {spent:,} encoder passes. Result: {written[0]}")
    for path in (*own, *extra):
        say.line(f"Written: {path}")
    if say.verbose:
        _say_seconds(result, say)
    say.line(f"Report: {written[1]}")
    return ended(result.verdict.exit_code, failed)


def _forget_earlier(store: RunStore, written: Sequence[str]) -> None:
    """Takes away what an earlier run left in the folder: it would be taken for this one's.

    That are reports of single layers, faces kept for a study, and a study's result.
    """
    from leakaudit.audit.study_file import FILE

    folder = store.folder
    for path in (*folder.glob("report-*.html"), folder / FILE, folder / WITH_STUDY):
        with contextlib.suppress(OSError):
            if str(path) not in written and path.stat().st_mtime < store.began:
                path.unlink()


def _say_seconds(result: Result, say: Reporter) -> None:
    """What each stage took, layer by layer where several were scanned."""
    from leakaudit.core.by_layer import layer_of, parts

    several = parts(result)
    for part in several:
        if len(several) > 1:
            say.line(f"At {layer_of(part)}:")
        for stage, took in part.seconds.items():
            say.line(f"{took:8.1f} s  {stage}")


def command_line() -> str:
    """The command as typed, with folders and files by their last name only."""
    told, of_path = ["leakaudit"], False
    for word in sys.argv[1:]:
        flag, equals, value = word.partition("=")
        if of_path:
            told.append(Path(word).name)
        elif equals and flag in _PATHS:
            told.append(f"{flag}={Path(value).name}")
        else:
            told.append(_without_folders(word))
        of_path = not of_path and word in _PATHS
    return shlex.join(told)


_PATHS = frozenset(
    f"--{name}"
    for name in (
        "attributes", "head-weights", "images", "labels", "oracle-weights", "pairs", "policy",
        "prior-weights", "public", "run-dir", "weights",
    )
)  # fmt: skip
"""Options whose whole value is a path; folders may be called anything."""
_APART = re.compile(r"[,:=]")


def _without_folders(word: str) -> str:
    """Specs, lists and settings with what looks like a path in them by its last part only.

    A comma, colon or equals sign stands between parts where what is before it has no folder, or
    what is after it begins like a path or has none; else it belongs to a folder's name.
    """
    kept, rest = "", word
    while os.sep in rest:
        ends = [found.start() for found in _APART.finditer(rest)]
        end = next((k for k in ends if _is_apart(rest, k)), len(rest))
        kept += rest[:end].rpartition(os.sep)[2] + rest[end : end + 1]
        rest = rest[end + 1 :]
    return kept + rest


def _is_apart(text: str, place: int) -> bool:
    after = text[place + 1 :]
    following = _APART.split(after, maxsplit=1)[0]
    return (
        os.sep not in text[:place]
        or os.sep not in following
        or after.startswith((os.sep, f".{os.sep}", f"..{os.sep}", "~"))
    )
