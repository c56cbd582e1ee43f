import json
import os
from dataclasses import fields, replace

import jsonschema  # type: ignore[import-untyped]
import pytest

from leakaudit.core import study, types
from leakaudit.core.errors import InputError, RunError
from leakaudit.core.types import Verdict
from leakaudit.report.json import (
    SCHEMA_PATH,
    check_numbers,
    parse_result,
    read_result,
    result_text,
    write_result,
)
from report.sample import HOSTILE, KINDS, hostile_result, sample_result, tuned_result

SCHEMA = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
LATER = {
    None: {"comparisons", "wins", "tuning", "study", "maps", "layers"},
    "convergence": {"queries"},
    "doubt": {"metrics"},
    "gate": {"id", "severity", "suppressed", "file", "line", "layer"},
}  # older results lack them


def _problems(data):
    checker = jsonschema.Draft202012Validator(SCHEMA)
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(data)]


def _broken(path, value):
    """A good result's data with ``value`` put at ``path`` (keys and indices); ... removes it."""
    data = json.loads(result_text(sample_result("fail")))
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("gallery", ["none", "redacted", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_result_gives_is_what_the_schema_says(kind, gallery):
    assert _problems(sample_result(kind, gallery=gallery).to_json()) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("score", types.Score),
        ("utility", types.Utility),
        ("convergence", types.Convergence),
        ("comparison", types.Comparison),
        ("win", types.Win),
        ("latent_map", types.LatentMap),
        ("map_group", types.MapGroup),
        ("doubt", types.Doubt),
        ("gate", types.GateResult),
        ("suppression", types.Suppression),
        ("verdict", types.Verdict),
        ("adversary", types.Adversary),
        ("picture", types.Picture),
        ("gallery_row", types.GalleryRow),
        ("study", study.Study),
        ("study_row", study.StudyRow),
        ("study_choice", study.StudyChoice),
        ("estimate", study.Estimate),
        (None, types.Result),
    ],
)
def test_the_schema_names_each_field_and_no_other(name, kind):
    part = SCHEMA if name is None else SCHEMA["$defs"][name]
    assert set(part["properties"]) == {field.name for field in fields(kind)}
    assert set(part["required"]) == set(part["properties"]) - LATER.get(name, set())
    assert part["additionalProperties"] is False


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_result_reads_back_equal(tmp_path, kind):
    result = sample_result(kind)
    path = write_result(result, tmp_path / "result.json")
    assert read_result(path) == result


def test_hostile_names_survive_the_way_to_the_file_and_back(tmp_path):
    result = replace(sample_result("fail"), command=" ".join(HOSTILE), device=HOSTILE[3])
    path = write_result(result, tmp_path / "result.json")
    assert path.read_bytes().isascii()
    assert read_result(path) == result


def test_a_file_that_cannot_be_written_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match=r"result\.json"):
        write_result(sample_result(), tmp_path / ("x" * 300) / "result.json")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["schema_version"], 2, r"\$\.schema_version: is 2, but this leakaudit reads 1"),
        (["schema_version"], ..., r"\$\.schema_version: is missing, so this is no result"),
        (["schema_version"], True, r"\$\.schema_version: is True"),
        (["scores"], ..., r"\$\.scores: is missing"),
        (["gallery"], ..., r"\$\.gallery: is missing"),
        (["scores"], {}, r"\$\.scores: expected an array, found an object"),
        (["scores", 2, "value"], "0.3", r"\$\.scores\[2\]\.value: expected a number, found the st"),
        (["scores", 0, "value"], True, r"\$\.scores\[0\]\.value: expected a number, found a boo"),
        (["scores", 0, "n"], 1.5, r"\$\.scores\[0\]\.n: expected a whole number, found the numb"),
        (["scores", 0, "leak_grows"], "left", r"leak_grows: expected one of up, down, neither"),
        (["scores", 0, "defence"], ..., r"\$\.scores\[0\]\.defence: is missing"),
        (["scores", 0, "valeu"], 1, r"\$\.scores\[0\]\.valeu: is not a key of this object"),
        (["doubts", 0, "rows", 0], ["none"], r"rows\[0\]: expected 2 items, found 1"),
        (["verdict"], "fail", r"\$\.verdict: expected an object, found the string 'fail'"),
        (["verdict", "status"], "good", r"\$\.verdict\.status: expected one of pass, fail"),
        (["versions", "torch"], 2, r"\$\.versions\.torch: expected a string, found the number 2"),
        (["gates", 0, "threshold"], None, r"\$\.gates\[0\]\.threshold: expected a number, fo"),
        (
            ["gallery", 0, "pictures", 0, "png"],
            "https://evil.example/x.png",
            r"pictures\[0\]\.png: expected a PNG as data:image/png",
        ),
        (["wins", 0, "only"], 1.5, r"\$\.wins\[0\]\.only: expected a whole number"),
        (["comparisons", 0, "kind"], "x", r"\$\.comparisons\[0\]\.kind: expected one of false-sec"),
        (["extra"], 1, r"\$\.extra: is not a key of this object"),
        (["tuning"], {}, r"\$\.tuning: expected an array"),
        (["study"], [], r"\$\.study: expected an object"),
        (["maps"], [1], r"\$\.maps\[0\]: expected an object"),
        (["maps", 0, "groups", 0, "points"], [[0.5]], r"points\[0\]: expected 2 items, found 1"),
        (["layers"], "layer1", r"\$\.layers: expected an array"),
        (["layers"], [{}], r"\$\.layers\[0\]\.schema_version: is missing"),
    ],
)
def test_a_wrong_shape_is_told_with_its_json_path(tmp_path, path, value, said):
    data = _broken(path, value)
    file = tmp_path / "result.json"
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=said) as caught:
        read_result(file)
    assert caught.value.where == str(file)
    assert caught.value.exit_code == 2
    assert _problems(data) != [], "the schema must refuse it too"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Not JSON: .* at line 1, column 1"),
        ('{"schema_version": 1,\n oops', "Not JSON: .* at line 2"),
        ("[]", r"\$: expected an object, found an array"),
        ('{"schema_version": NaN}', "NaN is not a number that JSON can hold"),
        ("[" * 200_000, "Not (strict )?JSON"),
    ],
)
def test_text_that_is_no_result_is_told_clearly(text, said):
    with pytest.raises(InputError, match=said):
        parse_result(text, where="result.json")


def test_an_infinity_by_overflow_is_refused():
    text = json.dumps(_broken(["seconds", "total"], 0.123456789)).replace("0.123456789", "1e999")
    with pytest.raises(InputError, match=r"\$\.seconds\.total: expected a finite number"):
        parse_result(text, where="result.json")


@pytest.mark.parametrize("number", [1e308, -1e101, 10**400])
def test_a_number_that_no_figure_can_reckon_with_is_refused(number):
    for path in (["maps", 0, "groups", 0, "spread"], ["scores", 0, "value"], ["subject", "depth"]):
        with pytest.raises(InputError, match="is larger than any number of a result"):
            parse_result(json.dumps(_broken(path, number)), where="-")


@pytest.mark.parametrize("value", [None, 3, "none", [None]])
def test_a_plan_that_names_its_defences_by_nothing_is_refused(value):
    with pytest.raises(InputError, match=r"\$\.plan\.defences: expected an object"):
        parse_result(json.dumps(_broken(["plan", "defences"], value)), where="-")


def test_what_is_nested_without_end_is_refused():
    deep = json.loads("[" * 300 + "]" * 300)
    with pytest.raises(InputError, match="nested in more than"):
        parse_result(json.dumps(_broken(["plan", "deep"], deep)), where="-")


def test_a_setting_that_lacks_a_figure_of_a_target_is_refused():
    data = json.loads(result_text(tuned_result()))
    data["tuning"][0]["tried"][1]["figures"] = []
    with pytest.raises(InputError, match=r"tried\[1\]\.figures: expected 1 items, one a target"):
        parse_result(json.dumps(data), where="-")


def test_fields_with_a_default_may_be_left_out_of_a_row():
    data = _broken(["scores", 0, "note"], ...)
    assert parse_result(json.dumps(data), where="-") == sample_result("fail")


def test_a_result_from_before_comparisons_is_read_and_fits_the_schema():
    data = _broken(["comparisons"], ...)
    del data["wins"], data["maps"]
    for row in data["convergence"]:
        del row["queries"]
    assert _problems(data) == []
    read = parse_result(json.dumps(data), where="-")
    assert (read.comparisons, read.wins, read.maps) == ((), (), ())
    assert {row.queries for row in read.convergence} == {0}


def test_a_missing_file_and_one_that_is_not_text_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="Can't read the result"):
        read_result(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_result(tmp_path / "binary.json")


def test_the_hostile_pictures_do_not_pass_the_door():
    with pytest.raises(InputError, match="png"):
        parse_result(result_text(hostile_result()), where=os.devnull)


def _with_rows(**changes):
    """The sample with its first row of a defence's worst case changed."""
    result = sample_result("fail")
    at = next(
        k for k, s in enumerate(result.scores)
        if (s.attack, s.metric) == ("worst", "identification") and s.defence != "none"
    )  # fmt: skip
    rows = list(result.scores)
    rows[at] = replace(rows[at], **changes)
    return replace(result, scores=tuple(rows))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"value": 0.9, "low": 0.0, "high": 0.05}, "aren't in order: 0, 0, 0.9, 0.05, 1"),
        ({"value": 0.02, "low": 0.3, "high": 0.01}, "aren't in order"),
        ({"value": -5.0, "low": -6.0, "high": -4.0}, "aren't in order"),
        ({"n": 0}, "was measured on 0 faces"),
    ],
)
def test_numbers_that_contradict_each_other_decide_nothing(changes, told):
    check_numbers(sample_result("fail"), where="r.json")
    with pytest.raises(InputError, match=rf"contradicts itself.*worst\.identification.*{told}"):
        check_numbers(_with_rows(**changes), where="r.json")


def test_a_row_that_stands_twice_decides_nothing():
    result = sample_result("fail")
    twice = replace(result, scores=(replace(result.scores[0], value=0.0), *result.scores))
    with pytest.raises(InputError, match="has 2 rows"):
        check_numbers(twice, where="r.json")


def test_a_pass_beside_a_failed_gate_is_no_result():
    result = sample_result("fail")
    passing = replace(result, verdict=Verdict("pass", "All is well.", 0))
    with pytest.raises(InputError, match="is pass, though a gate that counts failed"):
        parse_result(result_text(passing), where="r.json")
