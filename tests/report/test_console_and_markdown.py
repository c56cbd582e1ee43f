import io
import re

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from leakaudit.report.console import print_result
from leakaudit.report.markdown import code, render_markdown, text
from report.sample import HOSTILE, KINDS, hostile_result, sample_result


def _printed(result, *, width=80, terminal=False, **more):
    stream = io.StringIO()
    print_result(result, Console(file=stream, width=width, force_terminal=terminal, **more))
    return stream.getvalue()


@pytest.mark.parametrize("width", [60, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_a_piped_table_is_plain_and_fits(kind, width):
    lines = _printed(sample_result(kind), width=width).splitlines()
    assert all(len(line) <= width for line in lines[:-1])
    assert not re.search("[\x1b\u2500-\u257f]", "\n".join(lines))


@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_is_the_last_line_and_unbroken(kind):
    result = sample_result(kind)
    last = _printed(result, width=40).splitlines()[-1]
    assert last.endswith(result.verdict.reason)
    assert last.split(":")[0].isupper()


def test_numbers_intervals_and_bounds_stand_in_the_table():
    printed = _printed(sample_result("fail"), width=100)
    for shown in ("crafter:beta=2", "23.4% [14.7, 35.1]", "3.1%", "98.4%", "0.041 [0.027, 0.055]"):
        assert shown in printed


def test_gates_and_serious_doubts_are_told_before_the_verdict():
    lines = _printed(sample_result("inconclusive"), width=100).splitlines()
    starts = [line.split(":")[0] for line in lines[4:]]
    assert starts[:2] == ["DOUBT", "note"]
    assert starts[2].startswith("gate inconclusive")


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    printed = _printed(sample_result("fail"), terminal=True)
    assert not re.search("\x1b\\[[0-9;]*3[0-7]", printed)


def test_hostile_names_cannot_steer_the_terminal():
    printed = _printed(hostile_result())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", printed)
    assert "[x](javascript:alert(4))" in printed.replace("\n", "")


@pytest.mark.parametrize("kind", KINDS)
def test_the_summary_says_verdict_table_and_gates(kind):
    result = sample_result(kind)
    html = MarkdownIt("commonmark").enable("table").render(render_markdown(result))
    assert "<code>crafter:beta=2</code>" in html
    assert "23.4% (14.7 to 35.1)" in html
    assert ("--fail-on" in html) == (kind == "ungated")


def test_hostile_names_are_inert_in_markdown():
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    html = parser.render(render_markdown(hostile_result()))
    for bad in ("<script", "<img", "<svg", "<a ", "<b>", "\x1b"):
        assert bad not in html
    assert html.count("<td") == 5 + 3 * 5, "no bar of a name may open a new cell"


@pytest.mark.parametrize(
    "name", [*HOSTILE, "- item", "1. item", "+ item", "=== x", "# x", "> x", "a\\|b", "@somebody"]
)
def test_running_text_is_read_back_literally(name):
    parser = MarkdownIt("commonmark", {"html": True})
    html = parser.render(text(name))
    assert html.startswith("<p>")
    assert html.count("<") == 2, "a paragraph and nothing in it"
    assert not re.search(r"@[A-Za-z]", html)


@pytest.mark.parametrize("name", ["a`b", "``", "`x`", "", "a|b"])
def test_code_spans_hold_back_ticks(name):
    html = MarkdownIt("commonmark").render(code(name))
    assert html.startswith("<p><code>")
    assert html.count("<code>") == 1
    assert name.strip("`").replace("`", "") in html.replace("`", "")
