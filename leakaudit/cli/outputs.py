"""Output files: ``[KIND:]PATH``, written whole; ``-`` is standard output."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from leakaudit.core.errors import LeakauditError, UnknownNameError, UsageError
from leakaudit.core.files import atomic_write, refuse_unwritable
from leakaudit.core.types import Result
from leakaudit.report.words import clean

EXTENSIONS: Mapping[str, str] = MappingProxyType(
    {
        ".html": "html",
        ".htm": "html",
        ".json": "json",
        ".md": "markdown",
        ".xml": "junit",
        ".sarif": "sarif",
        ".prom": "openmetrics",
    }
)
KINDS = (*dict.fromkeys(EXTENSIONS.values()), "gitlab", "dpia")
SUMMARY_LIMIT = 1_000_000
"""Bytes of a step summary; GitHub takes 1 MiB a step and shows nothing of a longer one."""

_COMMAND = re.compile(r"^([ \t]*:)(?=:)|(##)(?=\[|vso\[)", re.MULTILINE)
_CUT = "\n\n*Cut here, as the summary would be too long; the whole of it is in the report.*\n"


def renderer(kind: str) -> Callable[[Result], str]:
    """What makes this kind of text of a result; imported when it is asked for."""
    if kind == "html":
        from leakaudit.report.html import render_html as render
    elif kind == "json":
        from leakaudit.report.json import result_text as render
    elif kind == "markdown":
        from leakaudit.report.markdown import render_markdown as render
    elif kind == "junit":
        from leakaudit.report.junit import render_junit as render
    elif kind == "sarif":
        from leakaudit.report.sarif import render_sarif as render
    elif kind == "gitlab":
        from leakaudit.report.gitlab import render_gitlab as render
    elif kind == "openmetrics":
        from leakaudit.report.openmetrics import render_openmetrics as render
    elif kind == "dpia":
        from leakaudit.report.dpia import render_dpia as render
    else:
        raise UnknownNameError("output kind", kind, KINDS)
    return render


def parse_output(text: str, kind: str | None = None) -> tuple[str, str]:
    """The kind and path of one ``-o``; by extension unless the kind is said.

    UsageError for what has no kind, and for a path that can't be written.
    """
    kind, path = _kind_and_path(text, kind)
    if path != "-":
        refuse_unwritable(Path(path), "-o")
    return kind, path


def parse_outputs(
    texts: Sequence[str] | None, kind: str | None = None, *, reads: Path | None = None
) -> list[tuple[str, str]]:
    """Kinds and paths of all ``-o``; ``kind`` is that of ``-``, and ``reads`` the result read.

    UsageError as `parse_output` raises it, and where one output would replace another one, or a
    page the result that it was made from.
    """
    outputs = [parse_output(text, kind if text == "-" else None) for text in texts or ()]
    places = [path if path == "-" else os.path.realpath(path) for _, path in outputs]
    for place, (_, path) in zip(places, outputs, strict=True):
        if places.count(place) > 1 and path != os.devnull:
            raise UsageError("Two outputs at one place", where=f"-o {path}", todo="Name another")
    read = reads / "result.json" if reads is not None and reads.is_dir() else reads
    source = None if read is None else os.path.realpath(read)
    for place, (what, path) in zip(places, outputs, strict=True):
        if place == source and what != "json":
            raise UsageError(
                "This would replace the result that is read", where=f"-o {path}",
                todo="Name another file",
            )  # fmt: skip
    return outputs


def _kind_and_path(text: str, kind: str | None = None) -> tuple[str, str]:
    head, colon, tail = text.partition(":")
    if kind is not None and kind not in KINDS:
        raise UnknownNameError("output kind", kind, KINDS, where=f"--format {kind}")
    if colon and tail and len(head) > 1 and "/" not in head and "." not in head:
        if head not in KINDS:
            raise UnknownNameError("output kind", head, KINDS, where=f"-o {text}")
        return head, tail
    if text == "-":
        return kind or "json", text
    found = kind or _by_extension(text.lower())
    if found is None:
        raise UsageError(
            "The kind of this output isn't known", where=f"-o {text}",
            todo=f"End it with {', '.join(EXTENSIONS)} or write KIND:PATH ({', '.join(KINDS)})",
        )  # fmt: skip
    if not text:
        raise UsageError("An empty output path", where="-o")
    return found, text


def _by_extension(name: str) -> str | None:
    if name.endswith(".sarif.json"):
        return "sarif"
    return EXTENSIONS.get(Path(name).suffix)


def write_all(
    result: Result, outputs: Sequence[tuple[str, str]]
) -> tuple[list[str], LeakauditError | None]:
    """Writes what can be written; the paths of files, and the first failure where there is one."""
    written: list[str] = []
    failed: LeakauditError | None = None
    for output in outputs:
        try:
            written += write_outputs(result, [output])
        except LeakauditError as error:
            failed = failed or error
    return written, failed


def ended(code: int, failed: LeakauditError | None) -> int:
    """The exit code of a verdict: a breach outranks an output that couldn't be written."""
    if failed is None:
        return code
    if code != 1:
        raise failed
    sys.stderr.write(f"Error: {clean(str(failed))}\n")
    return code


def write_outputs(result: Result, outputs: list[tuple[str, str]]) -> list[str]:
    """Writes each output; returns the paths of those that are files."""
    written = []
    for kind, path in outputs:
        text = renderer(kind)(result)
        if path == "-":
            shown = for_log(kind, text)
            sys.stdout.write(shown if shown.endswith("\n") else shown + "\n")
        else:
            written.append(str(atomic_write(path, text)))
    return written


def write_layers(result: Result, folder: Path) -> list[str]:
    """Each layer's own whole report beside the one of all, where several were scanned."""
    from leakaudit.audit.by_layer import concluded
    from leakaudit.core.by_layer import layer_of
    from leakaudit.report.depth import report_name

    written: list[str] = []
    for part in concluded(result) if result.layers else ():
        page = folder / report_name(result, layer_of(part))
        written += write_outputs(part, [("html", str(page))])
    return written


def for_log(kind: str, text: str) -> str:
    """``text`` as it may stand in the log of a CI job, whose runner obeys lines of some forms.

    GitHub's takes ``::name::`` at the start of a line, and ``##[name]`` anywhere, for a command.
    JSON stays the same document; elsewhere an invisible joiner is set between the signs.
    """
    if kind in ("json", "sarif", "gitlab"):
        return text.replace("##", "#\\u0023")
    return _COMMAND.sub(lambda found: f"{found[1]}\u2060" if found[1] else "#\u2060#", text)


def write_step_summary(result: Result) -> None:
    """Appends the summary to GitHub's step summary where its variable is set."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        there = os.path.getsize(path) if os.path.exists(path) else 0
        text = capped(renderer("markdown")(result) + "\n", SUMMARY_LIMIT - there)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError:
        sys.stderr.write("The step summary can't be written.\n")


def capped(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` bytes of UTF-8: whole lines, and a note where some are cut."""
    if len(text.encode("utf-8")) <= limit:
        return text
    room = limit - len(_CUT.encode("utf-8"))
    kept, used = [], 0
    for line in text.splitlines(keepends=True):
        used += len(line.encode("utf-8"))
        if used > room:
            break
        kept.append(line)
    return "".join(kept).rstrip("\n") + _CUT if kept else ""
