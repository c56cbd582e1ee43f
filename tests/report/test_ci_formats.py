import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from leakaudit.cli.outputs import KINDS, SUMMARY_LIMIT, capped, for_log, renderer
from leakaudit.core.types import Doubt, GateResult, Suppression
from leakaudit.report import view, words
from leakaudit.report.console import print_result
from leakaudit.report.findings import findings
from report.format_rules import junit_problems, sarif_problems
from report.layered import layered_result
from report.random_results import random_result
from report.sample import HOSTILE, hostile_result, sample_result, tuned_result
from report.study_values import with_rows

BASE = sample_result("fail", gallery="none")
RESULTS = {
    "hostile": hostile_result,
    **{kind: lambda kind=kind: sample_result(kind) for kind in ("ungated", "pass", "fail")},
    "inconclusive": lambda: sample_result("inconclusive"),
    "layers": lambda: layered_result("none.worst.identification>0.97"),
    "hostile layers": lambda: layered_result("worst.identification>0.1", names=HOSTILE[:3]),
    "tuned, with a study": lambda: with_rows(tuned_result()),
    **{f"random {seed}": lambda seed=seed: random_result(seed) for seed in range(8)},
}
COMMANDS = (
    "::error file=x::taken over",
    "##[add-mask]a",
    "a ##vso[task.setvariable variable=b]c",
    "x\r\n::stop-commands::t\n##[error]y",
    "=cmd|' /C calc'!A0",
    "\ufffe\uffff\x00\x0b\x1b[2J\x9b\ud800",
    "]]><!--><![CDATA[<?pi ?>&amp;",
    '"\\"} 1\n# EOF\n',
    "{0} [a](javascript:b) \\[",
)


@pytest.fixture(params=RESULTS, ids=list(RESULTS))
def result(request):
    return RESULTS[request.param]()


def samples(text):
    """(name, labels, value) of each line of OpenMetrics text, by the grammar of its standard."""
    label = r'[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"'
    pattern = re.compile(rf"([a-z_]+)(?:\{{({label}(?:,{label})*)\}})? (-?[0-9.e+-]+)")
    found, family, seen = [], None, set()
    lines = text.split("\n")
    assert lines[-2:] == ["# EOF", ""]
    for line in lines[:-2]:
        if line.startswith("# TYPE "):
            family = line.split()[2]
            assert family not in seen, "families may not interleave"
            seen.add(family)
        elif not line.startswith("# HELP "):
            match = pattern.fullmatch(line)
            assert match, line
            assert match[1] in (family, f"{family}_info")
            found.append((match[1], match[2] or "", float(match[3])))
    return found


def test_junit_keeps_to_its_schema(result):
    text = renderer("junit")(result)
    assert junit_problems(text) == []
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    for holder in (root, root[0]):
        counted = {kind: len(root.findall(f".//testcase/{kind}")) for kind in ("failure", "error")}
        assert holder.get("tests") == str(len(root.findall(".//testcase")))
        assert holder.get("failures") == str(counted["failure"])
        assert holder.get("errors") == str(counted["error"])


def test_sarif_keeps_to_its_schema(result):
    log = json.loads(renderer("sarif")(result))
    assert sarif_problems(log) == []
    run = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    for row in run["results"]:
        assert rules[row["ruleIndex"]] == row["ruleId"]


@pytest.mark.parametrize(
    "bad",
    [
        "<testsuites x='1'/>",
        "<testsuites><testcase name='a'/></testsuites>",
        "<testsuite name='a' tests='1' failures='0' errors='0'><testcase/></testsuite>",
    ],
)
def test_the_schema_of_junit_can_object(bad):
    assert junit_problems(bad)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("runs", 0, "results", 0, "level"), "fatal"),
        (("runs", 0, "results", 0, "ruleIndex"), -2),
        (("runs", 0, "tool", "driver", "colour"), "red"),
        (("runs", 0, "results", 0, "locations", 0, "physicalLocation", "region", "startLine"), 0),
        (("version",), "2.0.0"),
    ],
)
def test_the_schema_of_sarif_can_object(path, value):
    log = json.loads(renderer("sarif")(sample_result("fail")))
    place = log
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert sarif_problems(log)


def test_gitlab_gets_what_it_reads_and_each_fingerprint_once(result):
    rows = json.loads(renderer("gitlab")(result))
    for row in rows:
        assert set(row) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert row["severity"] in ("info", "minor", "major", "critical", "blocker")
        assert row["location"]["lines"]["begin"] >= 1
        assert not row["location"]["path"].startswith(("/", "./"))
    assert len({row["fingerprint"] for row in rows}) == len(rows)


def test_openmetrics_keeps_to_its_grammar_and_repeats_no_series(result):
    found = samples(renderer("openmetrics")(result))
    assert len({place[:2] for place in found}) == len(found)
    code = next(value for name, _, value in found if name == "leakaudit_exit_code")
    assert code == result.verdict.exit_code


def test_openmetrics_tells_values_and_leaves_out_what_was_not_measured():
    found = samples(renderer("openmetrics")(sample_result("pass")))
    place = 'defence="crafter:beta=2",attack="worst",metric="identification",bound="value"'
    assert ("leakaudit_score", place, 0.2343) in found
    assert not [labels for _, labels, _ in found if 'metric="lpips"' in labels]


def test_a_gate_that_does_not_count_is_skipped_but_told():
    known = Suppression("new camera", "ada", "2030-01-01", True)
    gate = replace(sample_result("fail").gates[1], suppressed=known)
    result = replace(sample_result("pass"), gates=(gate,))
    case = ET.fromstring(renderer("junit")(result)).find(".//testcase")
    assert [child.tag for child in case] == ["skipped", "system-out"]
    row = json.loads(renderer("sarif")(result))["runs"][0]["results"][0]
    assert row["level"] == "note"
    assert row["suppressions"][0]["justification"] == "new camera (owner ada, until 2030-01-01)"
    assert json.loads(renderer("gitlab")(result))[0]["severity"] == "info"
    assert 'suppressed="yes"' in renderer("openmetrics")(result)


def test_a_finding_stands_at_the_line_of_its_policy():
    gate = replace(sample_result("fail").gates[1], file="ci/a policy.toml", line=7)
    row = json.loads(renderer("sarif")(replace(sample_result("fail"), gates=(gate,))))
    place = row["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "ci/a%20policy.toml"
    assert place["region"]["startLine"] == 7


def test_a_finding_keeps_its_fingerprint_when_numbers_and_lines_change():
    one = sample_result("fail")
    moved = tuple(replace(gate, value=0.9, reason="other", line=3) for gate in one.gates)
    same = [f.fingerprint for f in findings(replace(one, gates=moved))]
    assert same == [f.fingerprint for f in findings(one)]
    renamed = tuple(replace(gate, defence="none") for gate in one.gates)
    assert same != [f.fingerprint for f in findings(replace(one, gates=renamed))]


def test_one_doubt_about_two_defences_is_told_of_each():
    doubt = Doubt("static-only", "serious", "no attack adapts", "", "Adapt")
    one = replace(sample_result("fail"), gates=(), doubts=tuple(
        replace(doubt, rows=((name, "*"),)) for name in ("a", "b", "*")
    ))  # fmt: skip
    found = findings(one)
    assert len({f.fingerprint for f in found}) == 3
    assert [f.name for f in found] == ["static-only [a]", "static-only [b]", "static-only"]


def test_serious_doubts_stand_beside_the_gates_that_they_bear_on():
    root = ET.fromstring(renderer("junit")(sample_result("inconclusive")))
    case = next(c for c in root.iter("testcase") if c.find("error") is not None)
    assert "serious doubt (not-converged)" in case.find("system-out").text


def active(html):
    """Elements and attributes of a page that could act: scripts, handlers, addresses of scripts."""
    found = []
    reader = HTMLParser()

    def start(tag, attributes):
        found.extend([tag] if tag in ("script", "iframe", "img") else [])
        found.extend(
            name
            for name, value in attributes
            if name.startswith("on") or (value or "").startswith("javascript:")
        )

    reader.handle_starttag = start
    reader.feed(html)
    return found


SLOW = (HOSTILE[0], COMMANDS[3])  # HTML has hostile tests of its own


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, name) for k in KINDS for name in (SLOW if k == "html" else (*HOSTILE, *COMMANDS))],
)
def test_a_hostile_name_is_inert_in_every_format(kind, name):
    base = BASE
    known = Suppression(name, name, name, True)
    gates = tuple(
        GateResult(name, 0.3, 0.4, 0.1, status, name, name, name, name, id=name, file=name,
                   suppressed=suppressed)
        for status in ("pass", "fail", "inconclusive") for suppressed in (None, known)
    )  # fmt: skip
    result = replace(
        base,
        gates=gates,
        doubts=(Doubt(name, "serious", name, name, name, ((name, name),)),),
        verdict=replace(base.verdict, reason=name),
        scores=tuple(replace(row, defence=row.defence + name) for row in base.scores),
        utility=tuple(replace(row, defence=row.defence + name) for row in base.utility),
    )
    written = renderer(kind)(result)
    text = for_log(kind, written)
    command = re.compile(r"^\s*::|##\[|##vso\[", re.MULTILINE)
    assert not command.search(text), "a workflow command"
    if kind in ("junit", "sarif", "gitlab", "openmetrics"):  # a job may show the file in its log
        assert not command.search(written)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    if kind != "html":  # style sheets begin lines so
        assert not re.search(r"^[ \t]*[=@]", text, re.MULTILINE), "a formula, in a spreadsheet"
    text.encode("utf-8")
    if kind in ("json", "sarif", "gitlab"):
        assert json.loads(text) == json.loads(renderer(kind)(result))
    elif kind == "junit":
        assert junit_problems(text) == []
    elif kind == "openmetrics":
        samples(text)
    else:
        page, plain = (
            MarkdownIt("gfm-like", {"linkify": False}).render(t) if kind == "markdown" else t
            for t in (text, renderer(kind)(BASE))
        )
        assert active(page) == active(plain)


def test_sarif_makes_no_links_or_placeholders_of_names():
    gate = replace(sample_result("fail").gates[1], reason="[a](http://b) {0}")
    log = json.loads(renderer("sarif")(replace(sample_result("fail"), gates=(gate,))))
    assert log["runs"][0]["results"][0]["message"]["text"].endswith(r"\[a\](http://b) {{0}}")


def test_a_summary_that_is_too_long_is_cut_at_a_line_and_says_so():
    text = "## verdict\n" + "| é |\n" * 300_000
    short = capped(text, SUMMARY_LIMIT)
    assert len(short.encode()) <= SUMMARY_LIMIT
    assert short.startswith("## verdict\n| é |\n")
    assert short.split("\n\n")[0].endswith("| é |")
    assert "Cut here" in short
    assert capped(text, 100_000_000) == text
    assert capped(text, 20) == ""


# agreement: one verdict in every format


def by_junit(text):
    root = ET.fromstring(text)
    assert root.find(".//property[@name='exit_code']") is not None
    return 1 if root.get("failures") != "0" else 3 if root.get("errors") != "0" else 0


def by_sarif(text):
    run = json.loads(text)["runs"][0]
    levels = [
        (row["level"], row["ruleId"]) for row in run["results"] if "gate-" in row["ruleId"][:5]
    ]
    told = 1 if ("error", "gate-breached") in levels else 0
    told = told or (3 if ("warning", "gate-undecided") in levels else 0)
    assert run["invocations"][0]["exitCode"] == told
    return told


def by_gitlab(text):
    found = {row["severity"] for row in json.loads(text)}
    return 1 if "blocker" in found else 3 if "critical" in found else 0


def by_openmetrics(text):
    found = samples(text)
    code = next(value for name, _, value in found if name == "leakaudit_exit_code")
    counts = [
        labels
        for name, labels, _ in found
        if name == "leakaudit_gate" and 'severity="fail",suppressed="no"' in labels
    ]
    told = 1 if any('status="fail"' in c for c in counts) else 0
    told = told or (3 if any('status="inconclusive"' in c for c in counts) else 0)
    assert told == code
    return told


def by_json(text):
    return json.loads(text)["verdict"]["exit_code"]


def by_words(text):
    told = re.search(r"leakaudit: (Pass|Fail|Inconclusive|Measured)|<h1[^>]*>.*?</h1>", text, re.S)
    word = re.search("Pass|Fail|Inconclusive|Measured", told.group()).group()
    return {"Pass": 0, "Measured": 0, "Fail": 1, "Inconclusive": 3}[word]


READERS = {
    "json": by_json,
    "html": by_words,
    "markdown": by_words,
    "junit": by_junit,
    "sarif": by_sarif,
    "gitlab": by_gitlab,
    "openmetrics": by_openmetrics,
    "dpia": by_words,
}


def test_every_kind_of_output_has_a_reader_here():
    assert set(READERS) == set(KINDS)


LAYERED = {  # expressions and the share of each layer: what the joined verdict is
    "all hold": (("none.worst.identification>1",), (0.5, 0.4, 0.3), 0),
    "a deep one is breached": (("none.worst.identification>0.9",), (0.3, 0.4, 1.0), 1),
    "one is undecided": (("none.worst.identificaton>0.9",), (0.5, 0.4, 0.3), 3),
    "a breach and an undecided": (
        ("none.worst.identification>0.9", "none.worst.nothing>0.9"), (0.3, 1.0, 0.2), 1,
    ),
    "nothing asked": ((), (1.0, 1.0, 1.0), 0),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYERED)
def test_all_formats_agree_on_several_layers(case):
    exprs, shares, code = LAYERED[case]
    result = layered_result(*exprs, shares=shares)
    assert result.verdict.exit_code == code
    agree(result)


@pytest.mark.parametrize("seed", range(30))
def test_all_formats_agree_with_the_exit_code(seed):
    agree(random_result(seed))


def agree(result):
    """Every format and the terminal tell the one exit code."""
    told = {kind: READERS[kind](renderer(kind)(result)) for kind in KINDS}
    stream = io.StringIO()
    print_result(result, Console(file=stream, width=100))
    last = stream.getvalue().splitlines()[-1]
    told["terminal"] = {"FAIL": 1, "INCONCLUSIVE": 3}.get(last.partition(":")[0], 0)
    assert set(told.values()) == {result.verdict.exit_code}, told


@pytest.mark.parametrize("seed", range(30))
def test_every_format_tells_of_each_gate_how_it_ended(seed):
    """What doesn't hold is told with its weight: never as a plain failure beside a pass."""
    result = random_result(seed)
    asked = view.gates(result)
    told = [words.gate_told(gate) for gate in asked]
    page = renderer("html")(result)
    rows = re.findall(r'<td role="cell" class="ended">.*?<span>([^<]*)</span></span>', page, re.S)
    assert rows == told
    summary = renderer("markdown")(result)
    signs = re.findall(r"^\| [✅❌❔🔕] ([^|]+?) \|", summary, re.MULTILINE)
    assert signs == told
    stream = io.StringIO()
    print_result(result, Console(file=stream, width=100))
    lines = re.findall(r"^gate ([a-z, ]+):", stream.getvalue(), re.MULTILINE)
    assert lines == [text.lower() for text in told]
    for gate, text in zip(asked, told, strict=True):
        assert ("suppressed" in text) == (gate.status != "pass" and gate.is_suppressed)
        assert (", " in text) == view.is_loose(gate)
    loose = [text for text in told if ", " in text]
    firm = [text for text in told if ", " not in text]
    assert [t for t in told if t != "Pass"][: len([t for t in firm if t != "Pass"])] == [
        text for text in firm if text != "Pass"
    ], "what counts stands above what doesn't"
    assert bool(loose) == ("Not counted" in result.verdict.reason)


def test_the_random_results_reach_every_verdict():
    assert {random_result(seed).verdict.status for seed in range(30)} == {
        "pass", "fail", "inconclusive", "ungated",
    }  # fmt: skip
