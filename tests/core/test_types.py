import json
import math
from dataclasses import replace

import pytest
from report.sample import KINDS, sample_result

from leakaudit.core.types import Result, out_of_reach


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_comes_back_from_json_as_it_was(kind):
    result = sample_result(kind)
    text = json.dumps(result.to_json(), allow_nan=False)
    assert Result.from_json(json.loads(text)) == result


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_from_before_comparisons_still_loads(kind):
    result = sample_result(kind)
    data = result.to_json()
    del data["comparisons"], data["wins"], data["maps"]
    for row in data["convergence"]:
        del row["queries"]
    older = Result.from_json(json.loads(json.dumps(data)))
    bare = tuple(replace(row, queries=0) for row in result.convergence)
    assert older == replace(result, comparisons=(), wins=(), maps=(), convergence=bare)


def test_the_keys_stand_in_the_order_of_the_schema():
    keys = list(sample_result().to_json())
    assert keys[:4] == ["schema_version", "tool", "created", "command"]
    assert keys.index("scores") < keys.index("utility") < keys.index("verdict")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_hold_becomes_null(value):
    base = sample_result()
    odd = replace(base.scores[0], value=value, per_face=(0.5, value))
    data = replace(base, scores=(odd,), seconds={"total": value}).to_json()
    assert data["scores"][0]["value"] is None
    assert data["scores"][0]["per_face"] == [0.5, None]
    assert data["seconds"] == {"total": None}


def test_a_score_is_found_by_its_row_and_absent_rows_are_none():
    result = sample_result()
    found = result.score("none", "blackbox-decoder", "identification")
    assert found is not None
    assert found.value == pytest.approx(0.953)
    assert result.score("none", "no-such-attack", "identification") is None


@pytest.mark.parametrize(
    ("asked", "end"),
    [
        (("identification", ">", 1.0), "above 1"),
        (("identification", ">=", 1.0), None),
        (("identification", ">=", 1.1), "above 1"),
        (("identification_excess", "<", 0.0), None),
        (("identification", "<", 0.0), "below 0"),
        (("identification", "<=", 0.0), None),
        (("lpips", "<", 0.0), "below 0"),
        (("lpips", ">", 1.0), None),
        (("psnr", "<=", -1.0), "below 0"),
        (("feature_similarity", "<", 0.0), None),
        (("ssim", ">", 1.0), "above 1"),
    ],
)
def test_thresholds_that_no_value_reaches(asked, end):
    assert out_of_reach(*asked) == end
