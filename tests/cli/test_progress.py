"""Progress tells names of strangers: of layers, files and people."""

import io
import re

import pytest

from leakaudit.cli.progress import Reporter

NAMES = ("::error::x", "##[group]y", "[/closed] [link=http://x]z[/link]", "\x1b[2Jw", "a\nb")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("live", [False, True])
def test_a_hostile_name_steers_neither_terminal_nor_runner(name, live, monkeypatch, capsys):
    if live:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with Reporter(quiet=False, to_stdout=False, verbose=not live) as say:
        shown = io.StringIO()
        if live:
            say._err.file = shown
        say.step(name)
        say.progress(f"{name}: attacking", 0.5)
        if say._bar is not None:
            say._bar.refresh()
        say.line(name)
    text = shown.getvalue() + capsys.readouterr().err
    words = re.sub(r"[^a-z]", "", name.lower())[-1]
    assert words in text
    assert not re.search(r"^\s*::|##\[|\x1b\[2J\S*w", text, re.MULTILINE)
