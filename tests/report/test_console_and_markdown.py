import io
import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from leakaudit.report.console import print_result
from leakaudit.report.markdown import code, render_markdown, text
from report.sample import HOSTILE, KINDS, adaptive_result, hostile_result, sample_result


def _printed(result, *, width=80, terminal=False, **more):
    stream = io.StringIO()
    print_result(result, Console(file=stream, width=width, force_terminal=terminal, **more))
    return stream.getvalue()


@pytest.mark.parametrize("make", [sample_result, adaptive_result])
def test_forty_columns_still_name_the_defences(make):
    lines = _printed(make("fail"), width=40).splitlines()
    assert all(len(line) <= 40 for line in lines[:-1])
    table = " ".join(line[:20] for line in lines)
    assert "crafter:" in table and "none" in table


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("make", [sample_result, adaptive_result])
@pytest.mark.parametrize("kind", KINDS)
def test_a_piped_table_is_plain_and_fits(kind, make, width):
    lines = _printed(make(kind), width=width).splitlines()
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
    rest = [line for line in lines if line.startswith(("DOUBT", "note", "gate"))]
    starts = [line.split(":")[0] for line in rest]
    assert starts[:2] == ["DOUBT", "note"]
    assert starts[2].startswith("gate inconclusive")


def test_a_serious_doubt_is_told_with_its_figures_for_each_defence():
    result = sample_result("inconclusive")
    doubt = next(doubt for doubt in result.doubts if doubt.severity == "serious")
    more = [replace(doubt, why=f"Seen behind defence {k}.") for k in range(5)]
    printed = " ".join(_printed(replace(result, doubts=(*more, *more)), width=100).split())
    assert printed.count(f"DOUBT: {doubt.raised_if}") == 1
    shown = "Seen behind defence 0. Seen behind defence 1. Seen behind defence 2. And 2 more"
    assert shown in printed and "defence 3" not in printed


def test_false_security_and_the_winners_are_told():
    printed = _printed(adaptive_result(), width=120)
    row = next(line for line in printed.splitlines() if "+39.1" in line).split()
    assert row[:5] == ["crafter:beta=2", "23.4%", "56.2%", "+39.1", "[+25.0,"]
    assert "-60.0 [-72.0, -48.0]" in printed, "what the defence takes off the undefended"
    told = " ".join(printed.split())
    assert (
        "named most, crafter:beta=2: adaptive-linkage 34, adaptive-ridge 28 (2 by no other)" in told
    )
    assert "chosen minus whitebox-latent: -1.6 points [-8.0, +5.0]" in told
    assert "False security" not in _printed(sample_result(), width=120)


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


def test_the_summary_says_false_security_winners_and_differences():
    summary = render_markdown(adaptive_result())
    html = MarkdownIt("commonmark").enable("table").render(summary)
    assert html.count("<table>") == 5
    assert "+39.1 (+25.0 to +51.0)" in html
    assert "False security: some faces that look hidden" in html
    assert "28 (2; 16)" in html
    assert "crafter:beta=2 minus none, both worst" in html


def test_attacks_that_the_summary_leaves_out_are_counted():
    result = adaptive_result()
    shown = render_markdown(result)
    left = [win for win in result.wins if win.only or win.chosen]
    others = {win.attack for win in result.wins} - {win.attack for win in left}
    assert others and f"{len(others)} more attacks named no face alone" in shown
    assert "more attack" not in render_markdown(replace(result, wins=tuple(left)))


def test_a_setting_of_ones_own_makes_no_emoji_in_markdown():
    assert text("my.py:factory:x=2") == "my.py:\u2060factory:x=2"
    assert text("a: b") == "a: b"


def test_hostile_names_are_inert_in_markdown():
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    html = parser.render(render_markdown(hostile_result()))
    for bad in ("<script", "<img", "<svg", "<a ", "<b>", "\x1b"):
        assert bad not in html
        # gates, worst, gap, winners, differences, settings
        cells = 5 + 3 * 5 + 1 * 6 + 1 * (1 + 3) + 6 * 3 + 2 * 4
    assert html.count("<td") == cells, "no bar of a name may open a new cell"


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
