"""What commands that attack share: the run folder, the plan, the command as it goes to a result."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leakaudit.audit.plan import Plan
    from leakaudit.audit.store import RunStore
    from leakaudit.cli.progress import Reporter
    from leakaudit.core.types import Result
    from leakaudit.models.subject import Subject


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


def finish(
    result: Result, store: RunStore, outputs: Sequence[tuple[str, str]], say: Reporter
) -> int:
    """Writes the result and the report, clears the stages, writes outputs; gives the exit code."""
    from leakaudit.audit.by_layer import without_pictures
    from leakaudit.cli.outputs import write_layers, write_outputs, write_step_summary
    from leakaudit.core.by_layer import parts
    from leakaudit.report.console import print_result

    say.done()
    folder = store.folder
    own = write_layers(result, folder)
    result = without_pictures(result)
    written = write_outputs(
        result, [("json", str(folder / "result.json")), ("html", str(folder / "report.html"))]
    )
    store.clear()
    extra = write_outputs(result, list(outputs))
    write_step_summary(result)
    print_result(result, say.out)
    seconds = sum(part.seconds["scan"] for part in parts(result))
    spent = sum(row.encoder_passes for part in parts(result) for row in part.convergence)
    say.line(f"{seconds:.0f} s of scanning, {spent:,} encoder passes. Result: {written[0]}")
    for path in (*own, *extra):
        say.line(f"Written: {path}")
    if say.verbose:
        for stage, took in result.seconds.items():
            say.line(f"{took:8.1f} s  {stage}")
    say.line(f"Report: {written[1]}")
    return result.verdict.exit_code


def command_line() -> str:
    """The command as typed, with folders and files by their last name only."""
    return shlex.join(["leakaudit", *(_FOLDERS.sub("", word) for word in sys.argv[1:])])


_FOLDERS = re.compile(rf"[^,:=\s]*{re.escape(os.sep)}")
"""What stands before the last separator of a path, within lists and settings too."""
