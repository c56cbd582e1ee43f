"""The report under axe in a real browser; skipped where there is no Chromium."""

import pytest

from leakaudit.report.html import render_html
from report.axe import axe_source, checked
from report.browser import chromium
from report.layered import layered_result
from report.sample import KINDS, adaptive_result, hostile_result, sample_result, tuned_result
from report.study_values import with_rows

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium on the path to open a report with"),
    pytest.mark.skipif(axe_source() is None, reason="axe-core-python is missing (extra 'test')"),
]
RESULTS = {
    **{kind: lambda kind=kind: sample_result(kind) for kind in KINDS},
    "many attacks": adaptive_result,
    "hostile": hostile_result,
    "layers": lambda: layered_result("none.worst.identification>0.97"),
    "tuned, with a study": lambda: with_rows(tuned_result()),
    "withheld": lambda: sample_result("fail", gallery="redacted"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width"),
    [
        *((name, 1280) for name in RESULTS),
        ("fail", 390),
        ("many attacks", 390),
        ("layers", 390),
        ("tuned, with a study", 390),
    ],
)
def test_axe_finds_nothing_in_any_report_light_or_dark(name, width, tmp_path):
    for scheme, found in checked(render_html(RESULTS[name]()), tmp_path, width=width).items():
        assert found["violations"] == [], scheme
        needed = {"color-contrast"}
        if scheme == "light":
            needed |= {"document-title", "heading-order", "list"}
            if width < 400:  # where tables scroll, one must be able to scroll them by keyboard
                needed.add("scrollable-region-focusable")
        assert needed <= set(found["passed"])
        assert found["wide"] <= 0, f"{scheme}: the page scrolls sideways"


@pytest.mark.slow
def test_axe_finds_what_is_wrong_with_a_page_that_was_spoilt(tmp_path):
    page = render_html(sample_result("fail"))
    spoilt = (
        page.replace('<html lang="en">', "<html>")
        .replace("--soft: #545c64", "--soft: #c9c9c9")
        .replace('tabindex="0"', "")
        .replace(' alt="Original', ' title="Original')
    )
    found = checked(spoilt, tmp_path, width=390)["light"]["violations"]
    rules = {text.split()[0] for text in found}
    assert {"html-has-lang", "color-contrast", "scrollable-region-focusable"} <= rules
