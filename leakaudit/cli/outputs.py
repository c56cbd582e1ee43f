"""Output files: ``[KIND:]PATH``, written whole; ``-`` is standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.files import atomic_write
from leakaudit.core.types import Result

EXTENSIONS = {".html": "html", ".htm": "html", ".json": "json", ".md": "markdown"}


def _renderers() -> dict[str, Callable[[Result], str]]:
    from leakaudit.report.html import render_html
    from leakaudit.report.json import result_text
    from leakaudit.report.markdown import render_markdown

    return {"html": render_html, "json": result_text, "markdown": render_markdown}


def parse_output(text: str, kind: str | None = None) -> tuple[str, str]:
    """The kind and path of one ``-o``; by extension unless the kind is said."""
    head, colon, tail = text.partition(":")
    kinds = sorted(set(EXTENSIONS.values()))
    if kind is not None and kind not in kinds:
        raise UnknownNameError("output kind", kind, kinds, where=f"--format {kind}")
    if colon and tail and len(head) > 1 and "/" not in head and "." not in head:
        if head not in kinds:
            raise UnknownNameError("output kind", head, kinds, where=f"-o {text}")
        return head, tail
    if text == "-":
        return kind or "json", text
    found = kind or EXTENSIONS.get(Path(text).suffix.lower())
    if found is None:
        raise UsageError(
            "The kind of this output isn't known", where=f"-o {text}",
            todo=f"End it with {', '.join(EXTENSIONS)} or write KIND:PATH ({', '.join(kinds)})",
        )  # fmt: skip
    if not text:
        raise UsageError("An empty output path", where="-o")
    return found, text


def write_outputs(result: Result, outputs: list[tuple[str, str]]) -> list[str]:
    """Writes each output; returns the paths of those that are files."""
    renderers = _renderers()
    written = []
    for kind, path in outputs:
        text = renderers[kind](result)
        if path == "-":
            sys.stdout.write(text if text.endswith("\n") else text + "\n")
        else:
            written.append(str(atomic_write(path, text)))
    return written


def write_step_summary(result: Result) -> None:
    """Appends the summary to GitHub's step summary where its variable is set."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(_renderers()["markdown"](result) + "\n")
    except OSError:
        sys.stderr.write("The step summary can't be written.\n")
