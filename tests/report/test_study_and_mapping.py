"""The study in every report, the catalogues, and the annex for an impact assessment."""

import json
import re
from dataclasses import replace

import pytest

from leakaudit.report import mapping
from leakaudit.report.dpia import TO_FILL, render_dpia
from leakaudit.report.html import render_html
from leakaudit.report.json import parse_result, result_text
from leakaudit.report.markdown import render_markdown
from leakaudit.report.sarif import render_sarif
from report.layered import layered_result
from report.sample import HOSTILE, KINDS, adaptive_result, hostile_result, sample_result
from report.study_values import STUDY, with_rows
from report.test_html import Page
from report.test_json import _problems


def studied(kind="fail"):
    return with_rows(sample_result(kind))


def outside_code(markdown):
    """Markdown without its code spans, in which everything is literal."""
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", markdown)


def words_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_a_study_survives_the_way_to_the_file_and_fits_the_schema():
    result = studied()
    assert _problems(result.to_json()) == []
    assert parse_result(result_text(result), where="-") == result
    data = result.to_json()
    del data["study"]
    assert parse_result(json.dumps(data), where="-").study is None


def test_html_and_markdown_show_the_study_and_only_where_there_is_one():
    for told in (words_of(render_html(studied())), render_markdown(studied())):
        assert "0.910 (0.820 to 0.970)" in told
        assert "0.251 (0.180 to 0.330)" in told
        assert "7 participants" in told
    for told in (render_html(sample_result()), render_markdown(sample_result())):
        assert "0.251" not in told
        assert 'id="human"' not in told


def test_a_study_without_power_says_so_before_its_numbers():
    lost = replace(STUDY, status="no-power", reason="The study has no power: guessing.")
    html = words_of(render_html(replace(studied(), study=lost)))
    assert html.index("The study has no power") < html.index("0.251")


def test_people_are_no_attack_in_the_tables_of_attacks():
    html = render_html(studied())
    table = html[html.index('id="identification"') : html.index('id="adversary"')]
    assert "human" not in table
    assert "macro_f1" not in table


def test_hostile_words_of_a_study_are_inert():
    for name in HOSTILE:
        row = replace(STUDY.rows[0], defence=name, attack=name)
        study = replace(STUDY, rows=(row,), reason=name, notes=(name,), questionnaires=(name,))
        page = Page(render_html(replace(sample_result(), study=study)))
        assert page.count("script") == 0
        for text in (render_markdown, render_dpia):
            told = text(replace(sample_result(), study=study))
            assert "<script" not in outside_code(told)
            assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", told)


# catalogues


@pytest.mark.parametrize(
    ("metric", "attack", "tags"),
    [
        ("identification", "blackbox-decoder", {"irreversibility", "ml03", "atlas"}),
        ("identification", "adaptive-linkage", {"irreversibility", "ml03", "atlas", "unlink"}),
        ("identification", "worst", {"irreversibility", "ml03", "atlas", "unlink"}),
        ("macro_f1", "human", {"irreversibility", "ml03", "atlas"}),
        ("epsilon_pii", "worst", set()),
        ("auc_drop", "utility", set()),
        ("identification", "control-prior", set()),
        ("identification", "original", set()),
        ("verification", "blackbox-decoder", {"irreversibility", "ml03", "AML.T0024"}),
        (
            "identification-facenet-vggface2",
            "linkage",
            {"irreversibility", "unlinkability", "ml03", "AML.T0024"},
        ),
        ("epsilon_pii", "worst", set()),
        (None, None, set()),
    ],
)
def test_a_row_bears_on_the_entries_that_it_was_made_for(metric, attack, tags):
    found = mapping.tags(metric, attack)
    assert len(found) == len(set(found)) == len(tags)
    assert all(any(tag in name for name in found) for tag in tags)


def test_unlinkability_is_measured_by_linkage_alone_and_renewability_never():
    def of(result):
        return {row.reference.title: row.metrics for row in mapping.bearings(result)}

    assert of(sample_result())["Unlinkability"] == ()
    assert "identification" in of(adaptive_result())["Unlinkability"]
    assert of(adaptive_result())["Renewability"] == ()
    assert "macro_f1" in of(studied())["Irreversibility"]


def test_reports_name_every_entry_and_what_is_not_shown():
    html = words_of(render_html(sample_result()))
    annex = render_dpia(sample_result())
    for entry in mapping.REFERENCES:
        assert entry.title in html
        assert entry.not_shown.split(";")[0] in html.replace("&#39;", "'")
        assert entry.title.split(" ")[0] in annex
    assert "Renewability" in annex
    assert "not measured" in annex


def test_sarif_tags_breached_rows_of_people_and_none_of_utility():
    result = sample_result("fail")
    gate = next(g for g in result.gates if g.status == "fail")
    task = replace(gate, attack="utility", metric="auc_drop")
    named = replace(gate, attack="worst", metric="identification")
    rows = json.loads(render_sarif(replace(result, gates=(named, task), doubts=())))
    found = rows["runs"][0]["results"]
    assert "mitre-atlas/AML.T0024.001" in found[0]["properties"]["tags"]
    assert "properties" not in found[1]


# the annex


SECTIONS = (
    "## 1. Systematic description of the processing (Art. 35(7)(a))",
    "## 2. Necessity and proportionality (Art. 35(7)(b))",
    "## 3. Risks to the rights and freedoms of data subjects (Art. 35(7)(c))",
    "## 4. Measures envisaged (Art. 35(7)(d))",
    "## 5. Residual risk",
    "## 6. Evidence, limits and reproduction",
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_annex_has_the_sections_of_article_35_in_order(kind):
    annex = render_dpia(sample_result(kind))
    heads = [line for line in annex.splitlines() if line.startswith("## ")]
    assert heads == list(SECTIONS)
    parts = re.split(r"^## .*$", annex, flags=re.MULTILINE)[1:]
    assert all(TO_FILL in part for part in parts[:5])


def test_the_annex_carries_measured_figures_with_intervals():
    result = studied()
    annex = render_dpia(result).replace("\\", "")
    worst = result.score("crafter:beta=2", "worst", "identification")
    assert f"{100 * worst.value:.1f}% ({100 * worst.low:.1f} to {100 * worst.high:.1f})" in annex
    drop = next(u for u in result.utility if (u.defence, u.metric) == ("crafter:beta=2", "auc"))
    assert f"{drop.drop:.3f} ({drop.drop_low:.3f} to {drop.drop_high:.3f})" in annex
    assert "0.251 (0.180 to 0.330)" in annex
    assert "False security?" in render_dpia(adaptive_result())


def test_the_annex_tells_attacks_that_ran_from_those_that_had_nothing_to_do():
    result = adaptive_result()
    (name, *_) = result.adversaries[-1].attacks
    left = tuple(score for score in result.scores if score.attack != name)
    ran, idle = (render_dpia(r) for r in (result, replace(result, scores=left)))
    assert "without any figure" not in ran
    assert f"without any figure here: `{name}`." in idle
    (told,) = (line for line in idle.splitlines() if line.startswith("Attacks and controls"))
    assert f"`{name}`" not in told


@pytest.mark.parametrize("kind", KINDS)
def test_the_annex_tells_the_one_verdict_and_never_compliance(kind):
    result = sample_result(kind)
    annex = render_dpia(result)
    word = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive", "ungated": "Measured"}
    assert f"Verdict of leakaudit: {word[kind]}." in annex
    assert len(re.findall("Verdict of leakaudit", annex)) == 1
    for claim in ("complies", "is compliant", "fulfils", "in accordance with the Regulation"):
        assert claim not in annex
    assert "no statement of compliance" in " ".join(annex.split())
    if kind == "inconclusive":
        assert "unknown, not low" in annex


def test_an_annex_says_with_what_it_was_measured_and_why_there_are_doubts():
    base = sample_result()
    about = {**base.subject, "prior": "trained on the public pictures", "gallery": 321}
    about.pop("gallery_people", None)
    annex = render_dpia(replace(base, subject=about, plan={**base.plan, "preset": "thorough"}))
    assert "trained on the public pictures" in annex
    assert re.search(r"gallery people \| 321", annex)
    assert "Preset `thorough`" in annex
    assert base.doubts[0].why.split(":")[0] in annex.replace("\\", "")


def test_an_annex_of_hostile_names_keeps_its_tables_whole():
    annex = render_dpia(hostile_result())
    width = 0  # of the table that a line stands in
    for line in annex.splitlines():
        if line.startswith("|"):
            bars = len(re.findall(r"(?<!\\)\|", line))
            assert bars in (3, 4, 5, 6), line
            assert width in (0, bars), line
            width = bars
        else:
            width = 0
    annex = outside_code(annex)
    assert "<script" not in annex
    assert "](javascript" not in annex.replace("\\]", "")


def test_an_annex_of_almost_nothing_says_what_was_not_measured():
    bare = replace(
        sample_result(), scores=(), utility=(), gates=(), doubts=(), adversaries=(), plan={},
        subject={}, versions={}, comparisons=(), wins=(),
    )  # fmt: skip
    annex = render_dpia(bare)
    assert "Utility was not measured" in annex
    assert "No defence was measured" in annex
    assert "| |" not in annex


def test_the_annex_tells_every_layer():
    whole = layered_result("none.worst.identification>0.4")
    annex = render_dpia(whole)
    risks, rest = annex.split("## 4.")
    for name in ("layer1", "layer2", "layer3"):
        assert f"| {name} | none | " in risks.split("## 3.")[1]
        assert f"| {name} | none.worst.identification" in rest.replace("&gt;", ">")
    assert "layers, each by itself" in annex and "| Layer |" not in render_dpia(sample_result())


@pytest.mark.parametrize("status", ["pass", "ungated"])
def test_the_annex_tells_limits_that_were_set_aside(status):
    base = sample_result("fail")
    failed = next(gate for gate in base.gates if gate.status == "fail")
    loose = replace(failed, severity="warn")
    verdict = replace(base.verdict, status=status, exit_code=0)
    annex = render_dpia(replace(base, gates=(loose,), verdict=verdict))
    assert "1 limit doesn't hold" in annex and "Fail, warning only" in annex
    assert "No limit was asked for" not in annex
