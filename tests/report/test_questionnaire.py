"""The questionnaire page: what may run in it, who can use it, and what it saves."""

import base64
import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from leakaudit.core.study import CHOICES, Question, Questionnaire
from leakaudit.report.questionnaire import render_questionnaire
from report.browser import browser, chromium
from report.sample import noise_picture
from report.test_html import Page

needs_browser = pytest.mark.skipif(chromium() is None, reason="no Chromium here")
PAGE = Questionnaire(
    "feed",
    tuple(
        Question(
            f"q{n}",
            noise_picture(16, seed=n),
            tuple(noise_picture(16, seed=10 * n + k) for k in range(4)),
        )
        for n in range(1, 4)
    ),
)
HTML = render_questionnaire(PAGE)


def policy() -> dict[str, str]:
    content = re.search(r'Content-Security-Policy" content="([^"]*)"', HTML)[1].replace(
        "&#39;", "'"
    )
    return dict(part.strip().split(" ", 1) for part in content.split(";"))


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else():
    rules = policy()
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", HTML, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert "http:" not in HTML
    assert "https:" not in HTML


def test_every_picture_has_words_that_give_nothing_away_and_every_control_a_name():
    page = Page(HTML)
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert len(alts) == 15
    assert set(alts) == {"The picture in question", *(f"Person {c}" for c in "ABCD")}
    values = [attrs["value"] for tag, attrs in page.tags if tag == "input"]
    assert values == list(CHOICES) * 3
    assert not any("checked" in attrs or "style" in attrs for _, attrs in page.tags)
    assert page.count("legend") == page.count("fieldset") == 3


def test_hostile_ids_are_text():
    page = Questionnaire('"><script>', (Question("'><img onerror=1>", "data:x", ("d",) * 4),))
    assert render_questionnaire(page).count("<script>") == 1


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    (folder / "page.html").write_text(HTML, encoding="utf-8")
    with browser(folder / "profile") as found:
        found.open(folder / "page.html", width=390, height=844)
        yield found


@needs_browser
def test_a_participant_can_answer_by_keyboard_and_gets_a_csv(tab):
    shown = "Array.from(document.querySelectorAll('fieldset')).map(f => f.offsetParent !== null)"
    assert tab.ask(shown) == [True, False, False]
    assert tab.ask("document.documentElement.scrollWidth") <= 390
    tab.ask("document.getElementById('next').click()")
    assert tab.ask(shown) == [True, False, False]  # nothing chosen yet
    assert "first" in tab.ask("document.getElementById('alert').textContent")
    assert tab.ask("document.activeElement.value") == "A"
    tab.press(" ", 32, " ")
    tab.press("ArrowDown", 40)
    tab.press("Enter", 13, "\r")
    assert tab.ask(shown) == [False, True, False]
    tab.ask("document.querySelector('#q2 input[value=none]').click()")
    tab.ask("document.getElementById('back').click()")
    tab.ask("document.getElementById('next').click()")
    tab.ask("document.getElementById('next').click()")
    tab.ask("document.querySelector('#q3 input[value=D]').click()")
    tab.ask("document.getElementById('next').click()")
    assert tab.ask("document.getElementById('form').hidden")
    head, *rows = tab.ask("document.getElementById('csv').value").splitlines()
    assert head == "questionnaire,participant,question,choice,seconds"
    cells = [row.split(",") for row in rows]
    assert [(c[0], c[2], c[3]) for c in cells] == [
        ("feed", "q1", "B"), ("feed", "q2", "none"), ("feed", "q3", "D"),
    ]  # fmt: skip
    assert len({c[1] for c in cells}) == 1
    assert re.fullmatch("[0-9a-f]{16}", cells[0][1])
    assert all(float(c[4]) >= 0 for c in cells)


@needs_browser
def test_nothing_was_refused_by_the_policy_and_axe_finds_no_fault(tmp_path):
    (tmp_path / "page.html").write_text(HTML, encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(tmp_path / "page.html", width=390, height=844)
        assert tab.said == []
        tab.ask("fetch('https://example.org/').catch(() => 1)")
        assert any("Content Security Policy" in line for line in tab.said), "the log is deaf"
        spec = find_spec("axe_core_python")
        if spec is None or not spec.submodule_search_locations:
            pytest.skip("axe-core isn't installed")
        (script,) = Path(next(iter(spec.submodule_search_locations))).glob("axe*.js")
        tab.ask(script.read_text(encoding="utf-8") + "; 1")
        found = tab.ask("axe.run().then(r => r.violations.map(v => v.id + ': ' + v.help))")
        assert found == []
