"""Leakage by depth in the reports: the answer in words, picture and table, in every output."""

import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import jsonschema  # type: ignore[import-untyped]
import pytest
from rich.console import Console

from leakaudit.audit.by_layer import joined, without_pictures
from leakaudit.cli.outputs import KINDS, for_log, renderer
from leakaudit.core.by_layer import layer_of, parts
from leakaudit.core.errors import InputError
from leakaudit.core.types import Doubt, Suppression
from leakaudit.report import depth
from leakaudit.report.console import print_result
from leakaudit.report.depth_figure import by_depth
from leakaudit.report.html import render_html
from leakaudit.report.json import SCHEMA_PATH, parse_result, result_text
from leakaudit.report.markdown import render_markdown
from leakaudit.report.where import safety, where_to_split
from report.layered import layered_result
from report.random_results import random_result
from report.sample import HOSTILE, sample_result
from report.test_ci_formats import COMMANDS, READERS, active, junit_problems, samples
from report.test_html import Page

LEAKY = "none.worst.identification>0.9"
SCHEMA = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))


def terminal(result, width=100):
    stream = io.StringIO()
    print_result(result, Console(file=stream, width=width))
    return stream.getvalue()


# the answer


@pytest.mark.parametrize(
    ("exprs", "at", "said"),
    [
        ((LEAKY,), "layer2", "All gates hold at layer2 and layer3"),
        (("none.worst.identification>0.4",), "layer3", "breached at layer1 and layer2"),
        (("none.worst.identification>0.01",), None, "No layer that was asked for is safe."),
        (("none.worst.lpips>0.1",), None, "Undecided, which is not safe, at layer1, layer2 and"),
        ((LEAKY, "none.utility.auc<0.1"), "layer2", "breached at layer1"),
        (("none.utility.auc<0.1",), None, "so no layer is called safe"),
        (("none.worst.identification<0.1",), None, "so no layer is called safe"),
        (("none.original.identification<0.1",), None, "so no layer is called safe"),
        (("none.control-mean.identification>0.5",), None, "so no layer is called safe"),
        (("none.worst.identification>1",), None, "so no layer is called safe"),
        (("none.worst.identification>=1",), "layer1", "All gates hold at layer1"),
        ((), None, "fewest are named at worst at layer3 (25.0%), most at layer1 (98.4%)"),
    ],
)
def test_one_may_split_where_gates_on_privacy_hold(exprs, at, said):
    answer = where_to_split(layered_result(*exprs))
    assert answer.at == at
    assert said in f"{answer.short} {answer.full}"


def test_a_deeper_layer_is_not_taken_for_safe():
    answer = where_to_split(layered_result(LEAKY, shares=(0.2, 1.0, 0.3)))
    assert answer.at == "layer1"
    assert "Deeper is not safer here by itself: layer2 lies behind layer1" in answer.full


def test_what_is_only_hushed_is_not_safe():
    result = layered_result(LEAKY)
    known = Suppression("later", "team", "2031-01-01", True)
    hushed = tuple(replace(gate, suppressed=known) for gate in result.gates)
    found = {layer_of(p): safety(p) for p in parts(replace(result, gates=hushed))}
    assert found == {"layer1": "breached", "layer2": "unasked", "layer3": "unasked"}


# the table and the picture


def test_rows_go_from_shallow_to_deep_with_their_facts():
    rows = depth.rows(layered_result(LEAKY, order=(2, 0, 1)))
    assert [row.layer for row in rows] == ["layer1", "layer2", "layer3"]
    assert rows[0].told == "depth 0.26 · 64×16×16 · 0.0655 MB a face"
    assert [row.safety for row in rows] == ["breached", "safe", "safe"]
    assert rows[1].cells[0].worst.value == pytest.approx(0.6875)
    assert rows[0].cells[0].best.attack == "blackbox-decoder"
    assert depth.rows(sample_result("fail")) == ()


def relabelled(*renamed):
    """The layers' results with other labels of defences, as a search at each layer chooses them."""
    made = []
    for part, names in zip(parts(layered_result()), renamed, strict=True):

        def name(row, names=names):
            return replace(row, defence=names.get(row.defence, row.defence))

        fields = ("scores", "utility", "wins", "comparisons", "convergence")
        rows = {field: tuple(map(name, getattr(part, field))) for field in fields}
        made.append(replace(part, layers=(), **rows))
    return joined(made)


BETAS = ("12", "7.5", "3")
TUNED = [{"crafter:beta=2": f"crafter:beta={beta},outer_steps=4"} for beta in BETAS]


def test_a_defence_that_was_tuned_at_each_layer_has_one_column_with_its_setting_in_the_cell():
    whole = layered_result()
    columns = depth.defences(whole)
    assert "crafter:beta=2" in columns
    result = relabelled(*TUNED)
    headings = depth.defences(result)
    assert len(headings) == len(columns)
    place = headings.index("crafter:beta=…,outer_steps=4")
    rows = depth.rows(result)
    assert [row.cells[place].chosen for row in rows] == [f"beta={beta}" for beta in BETAS]
    assert [row.cells[place].defence for row in rows] == [t["crafter:beta=2"] for t in TUNED]
    others = [cell for row in rows for k, cell in enumerate(row.cells) if k != place]
    assert {cell.chosen for cell in others} == {""}
    before = [[cell.worst.value for cell in row.cells] for row in depth.rows(whole)]
    assert [[cell.worst.value for cell in row.cells] for row in rows] == before
    html, note = render_html(result), render_markdown(result)
    table = html[html.index('class="matrix stacked depth many"') :].partition("</table>")[0]
    for beta in BETAS:
        assert f">beta={beta}</small>" in table
        assert f" at `beta={beta}`" in note
    assert table.count("–<span") == 0  # no column that only one layer fills
    assert f"`beta={BETAS[0]}`" not in render_markdown(whole)


def test_settings_of_unlike_shape_and_foreign_layers_are_still_told():
    unlike = [TUNED[0], {"crafter:beta=2": "crafter"}, TUNED[2]]
    result = relabelled(*unlike)
    place = depth.defences(result).index("crafter:…")
    told = [row.cells[place].chosen for row in depth.rows(result)]
    assert told == ["beta=12,outer_steps=4", "", "beta=3,outer_steps=4"]
    other = [{}, {"crafter:beta=2": "gaussian:sigma=9"}, {}]
    result = relabelled(*other)
    assert {"crafter:beta=2", "gaussian:sigma=9"} < set(depth.defences(result))
    assert None in depth.rows(result)[0].cells


def test_the_picture_has_a_mark_and_a_whisker_for_each_number_of_its_table():
    result = layered_result(LEAKY)
    html = render_html(result)
    section = html[html.index('id="depth"') : html.index('id="identification"')]
    picture = section[: section.index("</svg>")]
    assert [picture.count(f'class="mark m{k}"') for k in range(3)] == [3, 3, 3]
    assert picture.count('class="whisker') == 9
    assert 'class="floor"' in picture
    assert 'class="ceiling"' in picture
    assert "gate 90.0%" in picture
    table = section[section.index("<table") :]
    for part in parts(result):
        for score in part.scores:
            if (score.attack, score.metric) == ("worst", "identification"):
                assert f"{100 * score.value:.1f}%" in table
                assert f"{100 * score.low:.1f} to {100 * score.high:.1f}" in table
    assert all(f"depth {d} " in table.replace(" ·", " ") for d in ("0.26", "0.51", "0.75"))


def marks(svg):
    found = re.findall(r'class="mark m0" cx="([\d.]+)" cy="([\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in found]


def test_marks_stand_at_their_depth_and_higher_where_more_are_named():
    (a, b, c) = marks(by_depth(depth.rows(layered_result()), ("none",), limit=None))
    assert (b[0] - a[0]) / (c[0] - a[0]) == pytest.approx((0.51 - 0.26) / (0.75 - 0.26), abs=0.01)
    assert a[1] < b[1] < c[1]  # down the page: fewer


def test_layers_of_unknown_depth_stand_side_by_side_in_their_order():
    rows = depth.rows(layered_result(order=(1, 0, 2), depths=False))
    assert [row.layer for row in rows] == ["layer2", "layer1", "layer3"]
    svg = by_depth(rows, ("none",), limit=None)
    (a, b, c) = marks(svg)
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.2)
    assert "multiply-adds" not in svg


def test_names_of_crowded_layers_stand_on_lines_of_their_own():
    names = tuple(f"features.{k}.block.conv" for k in range(3))
    svg = by_depth(depth.rows(layered_result(names=names, depths=False)), ("none",), limit=None)
    lines = set(re.findall(r'y="([\d.]+)" text-anchor="middle"[^>]*>…', svg))
    assert len(lines) == 2  # three long names in two lines


def test_a_report_of_several_layers_says_which_one_its_sections_are_of():
    html = render_html(layered_result(order=(1, 0, 2)))
    Page(html)
    assert "Who is named at <code>layer2</code>" in html
    assert 'href="#depth"' in html
    assert "report-layer1.html" in "".join(Page(html).text)
    assert 'id="depth"' not in render_html(sample_result("fail"))


def test_a_report_of_many_layers_stays_under_a_megabyte():
    assert len(render_html(without_pictures(layered_result(LEAKY)))) < 1_000_000


def test_a_defence_that_was_run_at_one_layer_only_is_left_open_at_the_others():
    first, *others = parts(layered_result())
    kept = tuple(s for s in first.scores if s.defence == "none")
    utility = tuple(u for u in first.utility if u.defence == "none")
    result = joined([replace(first, scores=kept, utility=utility), *others])
    Page(render_html(result))
    assert depth.rows(result)[0].cells[1] is None
    assert "| – |" in render_markdown(result)
    terminal(result)


# the other outputs


def test_every_format_names_the_layer_of_a_gate():
    result = layered_result(LEAKY)
    root = ET.fromstring(renderer("junit")(result))
    names = [case.get("name") for case in root.iter("testcase")]
    assert names == [f"{LEAKY} [layer{k}, none]" for k in (1, 2, 3)]
    log = json.loads(renderer("sarif")(result))["runs"][0]["results"]
    assert [row["message"]["text"].split(":")[0] for row in log] == [f"{LEAKY} \\[layer1, none\\]"]
    (row,) = json.loads(renderer("gitlab")(result))
    assert "[layer1, none]" in row["description"]
    labels = [told for name, told, _ in samples(renderer("openmetrics")(result))
              if name in ("leakaudit_gate", "leakaudit_score", "leakaudit_utility")]  # fmt: skip
    assert all(re.search(r'layer="layer[123]"', told) for told in labels)
    assert "| ❌ Fail | `layer1` |" in render_markdown(result)
    assert "gate fail: none.worst.identification>0.9 - at layer1" in terminal(result, 200)


def test_a_gate_of_each_layer_has_a_fingerprint_of_its_own():
    rows = json.loads(renderer("gitlab")(layered_result("none.worst.identification>0.01")))
    assert len({row["fingerprint"] for row in rows}) == 3


def test_one_layer_has_no_label_of_its_layer():
    told = samples(renderer("openmetrics")(sample_result("fail")))
    assert all("layer=" not in labels for name, labels, _ in told if name != "leakaudit_run_info")
    data = sample_result("fail").to_json()
    assert "layers" not in data
    assert all("layer" not in gate for gate in data["gates"])


def test_a_doubt_speaks_of_its_own_layer_only():
    first, second, third = parts(layered_result(LEAKY))
    doubt = Doubt("no-power", "serious", "nothing is seen", "why", "do more")
    result = joined([first, replace(second, doubts=(doubt,)), third])
    root = ET.fromstring(renderer("junit")(result))
    said = [case.find("system-out").text for case in root.iter("testcase")]
    assert ["no-power" in text for text in said] == [False, True, False]
    assert "doubt" in json.dumps(json.loads(renderer("sarif")(result))["runs"][0]["results"])
    assert "at layer2, nothing is seen (no-power)" in terminal(result)
    assert "Serious doubt** at `layer2`" in render_markdown(result)


@pytest.mark.parametrize("seed", range(12))
def test_all_formats_agree_on_one_verdict_over_random_layers(seed):
    drawn = [random_result(31 * seed + k) for k in range(3)]
    result = joined([
        replace(one, subject={**one.subject, "layer": f"layer{k}", "depth": k / 4})
        for k, one in enumerate(drawn)
    ])  # fmt: skip
    told = {kind: READERS[kind](renderer(kind)(result)) for kind in KINDS if kind != "html"}
    last = terminal(result).splitlines()[-1]
    told["terminal"] = {"FAIL": 1, "INCONCLUSIVE": 3}.get(last.partition(":")[0], 0)
    if seed == 0:
        told["html"] = READERS["html"](render_html(result))
    assert set(told.values()) == {result.verdict.exit_code}, told
    codes = [one.verdict.exit_code for one in drawn]
    assert result.verdict.exit_code == (1 if 1 in codes else max(codes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [HOSTILE[0], HOSTILE[3], COMMANDS[3], COMMANDS[7]])
def test_a_hostile_layer_is_inert_in_every_format(kind, name):
    result = layered_result(LEAKY, names=(name, "layer2", name * 3))
    text = for_log(kind, renderer(kind)(result))
    assert not re.search(r"^\s*::|##\[|##vso\[", text, re.MULTILINE), "a workflow command"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    text.encode("utf-8")
    if kind == "html":
        Page(text)
        assert active(text) == active(render_html(layered_result(LEAKY)))
    elif kind == "junit":
        assert junit_problems(ET.fromstring(text)) == []
    elif kind == "openmetrics":
        samples(text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x80-\x9f]", terminal(result))


def test_the_files_of_layers_have_plain_names_that_differ():
    names = ("../a/b", "..\x00-a-b", HOSTILE[0])
    result = layered_result(names=names)
    files = [depth.report_name(result, name) for name in names]
    assert len(set(files)) == 3
    assert all(re.fullmatch(r"report-[A-Za-z0-9._-]+\.html", name) for name in files)


# result.json


def test_layers_read_back_equal_and_are_what_the_schema_says():
    result = layered_result(LEAKY)
    checker = jsonschema.Draft202012Validator(SCHEMA)
    assert list(checker.iter_errors(result.to_json())) == []
    assert parse_result(result_text(result), where="here") == result


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["layers"][0].update(layers=[]), r"\$\.layers\[0\]\.layers: a layer .* holds"),
        (lambda d: d["layers"][0].pop("scores"), r"\$\.layers\[0\]\.scores: is missing"),
        (lambda d: d["layers"][1].update(schema_version=2), r"\$\.layers\[1\]\.schema_version: is"),
        (lambda d: d["layers"].append(3), r"\$\.layers\[2\]: expected an object"),
        (lambda d: d.update(layers={}), r"\$\.layers: expected an array"),
        (lambda d: d["layers"][1]["subject"].update(layer="layer1"), "two results are of the"),
        (lambda d: d["layers"][1].update(subject=None), r"\$\.layers\[1\]\.subject: expected"),
        (lambda d: d["gates"][0].update(layer=2), r"\$\.gates\[0\]\.layer: expected a string"),
    ],
)  # fmt: skip
def test_layers_that_make_no_sense_are_refused_by_their_path(change, said):
    data = layered_result(LEAKY).to_json()
    change(data)
    with pytest.raises(InputError, match=said):
        parse_result(json.dumps(data), where="here")


def test_the_schema_refuses_layers_within_layers():
    data = layered_result().to_json()
    data["layers"][0]["layers"] = []
    assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(data))
