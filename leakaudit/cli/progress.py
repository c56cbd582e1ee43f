"""Progress on stderr: a bar with an estimate for people, a line every half minute for logs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from leakaudit.report.words import clean

QUIET_SECONDS = 30.0


class Reporter:
    """Says what is going on, unless ``quiet``; results go to ``out`` (stdout unless taken).

    ``verbose`` says each step in a line of its own, and takes the bar's place.
    """

    def __init__(self, *, quiet: bool, to_stdout: bool, verbose: bool = False) -> None:
        self.out = Console() if to_stdout else Console(stderr=True)
        self.run_folder: Path | None = None
        self.quiet = quiet
        self._err = Console(stderr=True, highlight=False)
        self.verbose = verbose and not quiet
        bar = self._err.is_terminal and not os.environ.get("CI")
        self._live = bar and not quiet and not self.verbose
        self._bar: Progress | None = None
        self._task = None
        self._last = -QUIET_SECONDS

    def __enter__(self) -> Reporter:
        if self._live:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._err,
                transient=True,
            )
            self._task = self._bar.add_task("starting", total=1.0)  # type: ignore[assignment]
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.done()
        if kind is not None and self.run_folder is not None and issubclass(kind, KeyboardInterrupt):
            self._err.print(
                Text(f"Finished stages are kept; go on with --resume --run-dir {self.run_folder}")
            )

    def step(self, what: str) -> None:
        """A step of the preparation, without a share of the whole."""
        self.progress(what, None)

    def progress(self, what: str, share: float | None) -> None:
        """A step, and which share of the plan is finished."""
        what = clean(what)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what, completed=share)
            return
        now = time.monotonic()
        if self.verbose or (not self.quiet and now - self._last >= QUIET_SECONDS):
            self._last = now
            told = "" if share is None else f" ({share:.0%})"
            sys.stderr.write(f"{what}{told}\n")
            sys.stderr.flush()

    def line(self, text: str) -> None:
        """One line that stays."""
        if not self.quiet:
            self._err.print(Text(clean(text)), soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that is said even where ``quiet``."""
        self._err.print(Text(f"Warning: {clean(text)}"), soft_wrap=True)

    def done(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
