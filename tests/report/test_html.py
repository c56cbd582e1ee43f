import functools
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from leakaudit.core.resources import resource
from leakaudit.report.html import label, plain, render_html, settings
from report.layered import layered_result
from report.sample import (
    KINDS,
    adaptive_result,
    hostile_result,
    noise_picture,
    sample_result,
    tuned_result,
)

VOID = {"meta", "link", "img", "br", "hr", "wbr", "input", "base", "col", "source"}
LOADING = {"src", "href", "action", "data", "poster", "srcset", "formaction", "background"}


class Page(HTMLParser):
    """A parsed page: fails on unbalanced tags, keeps tags and text."""

    def __init__(self, html: str, *, whole: bool = True) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert not whole or self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def _all_results():
    yield from (sample_result(kind) for kind in KINDS)
    yield from (sample_result("fail", gallery=mode) for mode in ("none", "redacted"))
    yield adaptive_result()
    yield tuned_result()
    yield hostile_result()


def test_every_report_is_balanced_and_asks_the_network_for_nothing():
    for result in _all_results():
        page = Page(render_html(result))
        assert page.count("script") == 0
        assert page.count("link") == page.count("iframe") == page.count("object") == 0
        for _, attrs in page.tags:
            assert not any(name.startswith("on") for name in attrs)
            for name in LOADING & set(attrs):
                assert (attrs[name] or "").startswith(("#", "data:image/png;base64,"))


def test_the_page_forbids_itself_scripts_and_the_network():
    page = Page(render_html(sample_result()))
    policies = [
        attrs["content"]
        for tag, attrs in page.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "url(" not in resource("templates", "report.css").read_text(encoding="utf-8")
    assert "@import" not in resource("templates", "report.css").read_text(encoding="utf-8")


def test_a_clean_report_names_no_address_of_the_web():
    html = render_html(sample_result("fail"))
    assert "http://" not in html
    assert "https://" not in html
    assert "<script" not in html


def test_hostile_names_are_text_and_nothing_else():
    html = render_html(hostile_result())
    page = Page(html)
    told = "".join(page.text)
    assert "<script>alert(1)</script>" in told, "the name must be readable as it is"
    assert "{{ 7*7 }}" in told, "the name must not be run as a template"
    assert page.count("b") > 0
    assert "<script" not in html
    assert "<svg onload" not in html
    assert "javascript:alert(5)" not in html, "only pictures in data: URIs are shown"
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", html)
    html.encode("utf-8")


def test_every_table_has_a_caption_and_every_heading_cell_a_scope():
    for result in _all_results():
        page = Page(render_html(result))
        assert page.count("table") == page.count("caption") > 0
        assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")


def test_landmarks_headings_and_pictures_are_named():
    page = Page(render_html(sample_result("fail")))
    assert page.count("main") == page.count("header") == page.count("footer") == 1
    assert page.count("h1") == 1
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    anchors = {(attrs["href"] or "")[1:] for tag, attrs in page.tags if tag == "a"}
    assert anchors <= set(ids)


def test_sections_stand_in_the_promised_order():
    html = render_html(sample_result("fail"))
    places = [
        html.index(f'<section id="{name}"')
        for name in ("gates", "identification", "adversary", "tradeoff", "tail", "gallery",
                     "utility", "next", "limits", "reproduce")
    ]  # fmt: skip
    assert places == sorted(places)
    assert html.index('class="verdict fail"') < places[0]


@pytest.mark.parametrize(
    ("kind", "word"),
    [("pass", "Pass"), ("fail", "Fail"), ("inconclusive", "Inconclusive"), ("ungated", "Measured")],
)
def test_the_verdict_is_told_by_word_icon_and_sentence(kind, word):
    result = sample_result(kind)
    html = render_html(result)
    band = html[html.index("<header") : html.index("</header>") + len("</header>")]
    assert f"<span>{word}</span></h1>" in band
    assert 'class="icon"' in band
    assert result.verdict.reason in "".join(Page(band).text)


@pytest.mark.parametrize("kind", KINDS)
def test_serious_doubts_stand_beside_the_verdict_and_notes_do_not(kind):
    result = sample_result(kind)
    html = render_html(result)
    band = html[html.index("<header") : html.index("</header>")]
    told = "".join(Page(band, whole=False).text)
    for doubt in result.doubts:
        assert (doubt.raised_if in told) == (doubt.severity == "serious")
    serious = sum(doubt.severity == "serious" for doubt in result.doubts)
    assert ('href="#doubts"' in band) == (f"{serious} serious doubt" in told) == (serious > 0)
    assert html.count('id="doubts"') == 1


def test_a_serious_doubt_of_another_layer_is_told_where_the_band_points():
    result = layered_result("none.worst.identification>0.97")
    (serious,) = (d for d in sample_result("inconclusive").doubts if d.severity == "serious")
    deeper = replace(result.layers[0], doubts=(serious,))
    html = render_html(replace(result, doubts=(), layers=(deeper, *result.layers[1:])))
    band = html[html.index("<header") : html.index("</header>")]
    start = html.index('<h3 id="doubts"')
    section = html[start : html.index("</section>", start)]
    for place in (band, section):
        told = " ".join("".join(Page(place, whole=False).text).split())
        assert f"layer2, {serious.raised_if}" in told
    assert serious.why in "".join(Page(section, whole=False).text)


def test_only_the_first_of_many_serious_doubts_are_told_beside_the_verdict():
    result = sample_result("inconclusive")
    first = next(doubt for doubt in result.doubts if doubt.severity == "serious")
    many = tuple(replace(first, id=f"d{k}", raised_if=f"reason <{k}>") for k in range(5))
    html = render_html(replace(result, doubts=many))
    told = "".join(Page(html[html.index("<header") : html.index("</header>")], whole=False).text)
    assert "5 serious doubts: reason <0>; reason <1>; reason <2>; and 2 more" in told


def test_failed_gates_come_first_and_an_ungated_report_says_how_to_ask():
    failed = render_html(sample_result("fail"))
    section = failed[failed.index('id="gates"') : failed.index('id="identification"')]
    assert section.index("status fail") < section.index("status pass")
    asked = "".join(Page(render_html(sample_result("ungated"))).text)
    assert '--fail-on "identification>0.1"' in asked


def test_numbers_carry_interval_floor_and_ceiling():
    html = render_html(sample_result())
    section = html[html.index('id="identification"') : html.index('id="adversary"')]
    for shown in ("<b>95.3%</b>", "87.1 to 98.4", "floor 1.6%", "ceiling 98.4%", "control-prior"):
        assert shown in section


def _told(html, start, end):
    """The text between two headings, on one line."""
    part = html[html.index(start) : html.index(end)]
    return " ".join("".join(Page(part, whole=False).text).split())


@functools.cache
def _adaptive():
    return render_html(adaptive_result())


def test_false_security_is_told_with_both_shares_the_gap_and_plain_words():
    html = _adaptive()
    told = _told(html, '<h3 id="false-security">', "<h3>Which attack won</h3>")
    assert "23.4%" in told
    assert "56.2%" in told
    assert "+39.1 +25.0 to +51.0" in told
    assert "False security: some faces that look hidden" in told
    assert "No false security seen" in told
    assert "9 guesses a face against 7" in told
    assert '<a href="#false-security">' in html
    band = html[html.index("<header") : html.index("</header>")]
    assert "23.4% by attacks that ignore the defence" in band


def test_a_report_without_adaptive_attacks_says_that_false_security_was_not_measured():
    assert "False security was not measured" in "".join(Page(render_html(sample_result())).text)
    base = sample_result()
    bare = replace(base, scores=tuple(s for s in base.scores if s.defence == "none"), utility=())
    assert "False security was not measured" not in "".join(Page(render_html(bare)).text)


def test_each_attack_tells_how_many_faces_it_won():
    told = _told(_adaptive(), "<h3>Which attack won</h3>", "<h3>Differences on")
    assert "adaptive-ridge – not run 55 only 2 · chosen 16 28 only 2 · chosen 16" in told
    assert "adaptive-prior – not run 49 18" in told


def test_differences_carry_their_interval_and_what_it_allows_for():
    html = _adaptive()
    told = _told(html, "<h3>Differences on the same faces</h3>", "<h3>The other metrics</h3>")
    assert "crafter:beta=2 minus none, both worst Identification -60.0 -72.0 to -48.0" in told
    assert "the best of 16 in hindsight" in told
    assert "98.33% (Bonferroni)" in told


def test_attacks_that_give_names_are_said_to_make_no_picture():
    html = _adaptive()
    told = _told(html, "<h3>The other metrics</h3>", "<h3>What the numbers mean</h3>")
    assert "linkage-gallery name people without making a picture" in told
    assert told.count("this attack names people without a picture") == 3 + 5 + 4, "once a row"


def test_queries_have_a_column_where_some_were_asked():
    asked = _adaptive()
    assert ">Queries</th>" in asked
    assert '<td class="num">640</td>' in asked
    assert ">Queries</th>" not in render_html(sample_result())


def test_attacks_that_had_not_converged_are_named_outside_the_long_table():
    html = _adaptive()
    told = _told(html, "<h3>Convergence</h3>", "<summary>How hard")
    assert "43 of 46 runs had converged; not so whitebox-dip on none" in told
    assert "<details><summary>How hard each attack worked" in html
    assert "<details open><summary>How hard each attack worked" in render_html(sample_result())


def test_worst_cases_stand_before_single_attacks_which_share_one_floor():
    html = _adaptive()
    told = _told(html, '<section id="identification"', '<h3 id="false-security">')
    titles = (
        "Worst case", "Attacks that ignore the defence", "Attacks that studied the defence",
        "With the people's other pictures", "Floor",
    )  # fmt: skip
    places = [told.index(f"{title}:") for title in titles]
    assert places == sorted(places)
    assert told.count("one guess a face: floor 1.6%, ceiling 98.4%") == 3


def test_each_cell_of_a_wide_table_knows_its_column():
    html = _adaptive()
    assert html.count('data-column="crafter:beta=2"') > 40


def test_an_unmeasured_metric_says_why_and_shows_no_number():
    told = " ".join("".join(Page(render_html(sample_result())).text).split())
    assert "LPIPS was not measured: the weights of its network are not on this machine" in told


@pytest.mark.parametrize("mode", ["none", "redacted"])
def test_withheld_faces_show_scores_and_no_picture(mode):
    result = sample_result("fail", gallery=mode)
    html = render_html(result)
    assert "<img" not in html
    assert "biometric data" in html
    assert ("similarity 0.44" in html) == (mode == "redacted")


def test_a_report_with_nine_pictures_stays_under_a_megabyte():
    base = sample_result("fail")
    gallery = tuple(
        replace(row, pictures=tuple(replace(p, png=noise_picture(112)) for p in row.pictures))
        for row in base.gallery
    )
    html = render_html(replace(base, gallery=gallery))
    assert html.count("<img") == 9
    assert len(html.encode("utf-8")) < 1_000_000


def test_an_empty_result_still_makes_a_report():
    bare = replace(
        sample_result(), scores=(), utility=(), convergence=(), doubts=(), adversaries=(),
        comparisons=(), wins=(), gallery=(), subject={}, plan={}, versions={}, seconds={},
    )  # fmt: skip
    page = Page(render_html(bare))
    assert page.count("table") == page.count("caption")


def test_the_person_tail_has_a_table_of_the_same_counts():
    html = render_html(sample_result())
    tail = html[html.index('<section id="tail"') : html.index('<section id="map"')]
    body = tail[tail.index("<tbody>") :]
    cells = [int(text) for text in re.findall(r'<td class="num">(\d+)</td>', body)]
    assert sum(cells) == 3 * 64, "each face of each defence once"


def test_names_break_after_punctuation_only_and_stay_escaped():
    assert label("crafter:beta=0.5") == "crafter:<wbr>beta=0.5"
    assert label("<b>") == "&lt;b<wbr>&gt;"


def test_settings_and_shapes_are_told_for_readers():
    assert plain([64, 16, 16]) == "64 × 16 × 16"
    assert plain(None) == "–"
    assert settings({"crafter": {"beta": 2.0, "on": True}}) == [("crafter", "beta = 2.0, on = yes")]


def _colours(css: str) -> list[dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return [dict(re.findall(r"--([a-z]+\d?): (#[0-9a-f]{3,6});", block)) for block in blocks]


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_has_the_contrast_that_wcag_aa_asks_for():
    css = resource("templates", "report.css").read_text(encoding="utf-8")
    schemes = _colours(css)
    assert len(schemes) == 3, "light, dark and print"
    for colours in schemes:
        for text in ("ink", "soft", "link", "good", "bad", "unsure", "plain"):
            for ground in ("page", "paper", "shade"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for band in set(re.findall(r"\.verdict[.a-z]* \{[^}]*background: (#[0-9a-f]{6})", css)):
        assert _contrast("#ffffff", band) >= 4.5, band


def test_text_on_the_hottest_cell_keeps_its_contrast():
    css = resource("templates", "report.css").read_text(encoding="utf-8")
    heats = re.findall(r"--heat-rgb: (\d+) (\d+) (\d+);", css)
    alpha = float(re.search(r"var\(--heat\) \* (\.\d+)", css)[1])  # type: ignore[index]
    for colours, heat in zip(_colours(css), heats, strict=True):
        paper = colours["paper"] if len(colours["paper"]) == 7 else "#ffffff"
        under = [int(paper[i : i + 2], 16) for i in (1, 3, 5)]
        mixed = [round(alpha * int(h) + (1 - alpha) * u) for h, u in zip(heat, under, strict=True)]
        ground = "#" + "".join(f"{channel:02x}" for channel in mixed)
        assert _contrast(colours["ink"], ground) >= 4.5


def test_a_tuned_report_draws_each_setting_and_tells_it_in_a_table():
    html = render_html(tuned_result())
    section = html[html.index('<section id="tuning"') : html.index('<section id="identification"')]
    assert section.count("Trade-off: worst.identification over the AUC lost") == 1
    assert "".join(Page(section).text).count("15.0% [5.0%, 25.0%]") == 1
    assert "surely not met at 2" in section
    assert "--defence crafter:beta=2" in section


def test_an_attack_that_never_ran_is_told_as_such():
    base = sample_result()
    asked = replace(base.adversaries[0], attacks=(*base.adversaries[0].attacks, "whitebox-dip"))
    told = render_html(replace(base, adversaries=(asked, *base.adversaries[1:])))
    assert "<code>whitebox-dip</code> (without a figure here)" in told
    assert told.count("without a figure here") == 1
