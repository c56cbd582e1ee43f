import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakaudit.audit.gates import conclude, judge, parse_gate, remark, rows_of
from leakaudit.core.errors import UsageError
from leakaudit.core.types import Doubt, Score, Utility

LABELS = ["none", "gaussian:sigma=.5", "crafter:beta=2", "crafter:beta=4"]


def score(defence="none", attack="worst", metric="identification", value=0.3, reach=0.1, **other):
    return Score(
        defence, attack, "worst", metric, value,
        None if value is None else value - reach, None if value is None else value + reach,
        40, "share", "up", **other,
    )  # fmt: skip


def doubt(*rows, severity="serious", name="too-few"):
    return Doubt(name, severity, "always", "why", "what", rows or (("*", "*"),))


def statuses(expr, scores, *, utility=(), doubts=(), labels=None):
    return [g.status for g in judge([expr], scores, utility, doubts, labels or ["none"])]


@pytest.mark.parametrize(
    ("expr", "parts"),
    [
        ("identification>0.2", (None, "worst", "identification", ">", 0.2, False)),
        (" chosen.ssim >= .3 ", (None, "chosen", "ssim", ">=", 0.3, False)),
        ("crafter.worst.psnr<10@value", ("crafter", "worst", "psnr", "<", 10, True)),
        ("utility.auc_drop>2e-2", (None, "utility", "auc_drop", ">", 0.02, False)),
        ("utility.auc:smile_drop>-.1", (None, "utility", "auc:smile_drop", ">", -0.1, False)),
        ('"crafter:beta=2".lpips<=+1', ("crafter:beta=2", "worst", "lpips", "<=", 1, False)),
        ("'a.b:c=1>2'.chosen.ssim>1", ("a.b:c=1>2", "chosen", "ssim", ">", 1, False)),
        ('"x:t=id<=0.1".ssim>0.3', ("x:t=id<=0.1", "worst", "ssim", ">", 0.3, False)),
        ('"x:t<=0.1".worst.ssim<=0', ("x:t<=0.1", "worst", "ssim", "<=", 0, False)),
    ],
)
def test_the_grammar_is_read(expr, parts):
    gate = parse_gate(expr)
    found = (gate.defence, gate.attack, gate.metric, gate.op, gate.threshold, gate.at_value)
    assert found == parts
    assert gate.quoted == (expr.strip()[0] in "\"'")
    assert gate.expr == expr.strip()


@pytest.mark.parametrize(
    "expr",
    [
        "", "identification", ">0.2", "identification>", "identification=0.2", "a>b",
        "identification>0.2@low", "a.b.c.d>1", "a..b>1", ".a>1", "a.>1", "two words>1", "a>1e",
        "a>1.2.3", "a>nan", "a>inf", "a>1e999", "a>-1e999", "a>0.2 b>0.3", '"a>1', '"a"b>1',
        '"a".>1', '"a".b.c.d>1', '"a">1', "a>>1", "a<>1", "identification > 20%",
    ],
)  # fmt: skip
def test_bad_syntax_is_a_usage_error_that_shows_the_gate(expr):
    with pytest.raises(UsageError) as caught:
        parse_gate(expr)
    assert caught.value.exit_code == 2
    assert "--fail-on" in str(caught.value)


@given(st.text(max_size=25))
def test_any_text_is_a_gate_or_a_usage_error(text):
    try:
        gate = parse_gate(text)
    except UsageError:
        return
    assert json.loads(json.dumps(gate.threshold, allow_nan=False)) == gate.threshold
    assert gate.metric


@pytest.mark.parametrize(
    ("expr", "status"),
    [
        ("identification>0.41", "pass"),
        ("identification>0.39", "fail"),
        ("identification>0.4", "pass"),
        ("identification>=0.4", "fail"),
        ("identification>0.31@value", "pass"),
        ("identification>0.29@value", "fail"),
        ("identification<0.21", "fail"),
        ("identification<0.19", "pass"),
        ("identification<=0.2", "fail"),
        ("identification<0.2", "pass"),
        ("identification<0.29@value", "pass"),
    ],
)
def test_the_unfavourable_end_of_the_interval_decides(expr, status):
    row = Score("none", "worst", "w", "identification", 0.3, 0.2, 0.4, 40, "share", "up")
    assert statuses(expr, [row]) == [status]


@pytest.mark.parametrize("expr", ["identification>20", "none.worst.identification_excess<=5"])
def test_a_share_beyond_one_was_meant_in_per_cent(expr):
    with pytest.raises(UsageError, match="never beyond 1") as refused:
        parse_gate(expr)
    assert refused.value.todo in ("Write 0.2 for 20 %", "Write 0.05 for 5 %")
    assert parse_gate("psnr>20").threshold == 20
    assert parse_gate("identification>1.1").threshold == 1.1  # never fails, and is meant so


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ("identification>1", "can't fail"),
        ("verification>=1.01", "can't fail"),
        ("chosen.ssim>30", "can't fail"),
        ("identification<=0.1", "did you mean >=?"),
        ("crafter.chosen.epsilon_rel<0.2", "did you mean >?"),
        ("lpips>0.3", "did you mean <?"),
        ("utility.auc>0.8", "did you mean <?"),
        ("utility.auc_drop<0.02", "did you mean >?"),
    ],
)
def test_a_gate_that_may_not_be_meant_so_is_remarked_on(expr, said):
    assert said in (remark(parse_gate(expr)) or "")


@pytest.mark.parametrize(
    "expr",
    [
        "identification>0.2", "identification>=1", "lpips<0.2", "utility.auc<0.8", "psnr>30",
        "utility.auc_drop>0.02", "none.worst.identification<0.5", "original.identification<0.9",
        "control-mean.identification<0.5", "mine<3", "mine>3",
    ],
)  # fmt: skip
def test_checks_of_the_audit_itself_and_unknown_metrics_are_left_alone(expr):
    assert remark(parse_gate(expr)) is None


@pytest.mark.parametrize(
    ("metric", "ceiling", "status"),
    [
        ("verification", 0.2, "inconclusive"),  # 15 of the 20 % that are verified at all
        ("verification-other", 0.2, "inconclusive"),
        ("verification", 0.0, "inconclusive"),
        ("verification", 0.8, "pass"),
        ("verification", 0.92, "pass"),
        ("identification", 0.2, "pass"),  # for which there is the doubt weak-oracle
        ("verification", None, "pass"),
    ],
)
def test_a_judge_that_misses_originals_cannot_pass_a_gate_by_it(metric, ceiling, status):
    row = Score("none", "worst", "w", metric, 0.1, 0.05, 0.15, 40, "share", "up", ceiling=ceiling)
    (gate,) = judge([f"{metric}>0.5"], [row], [], (), ["none"])
    assert gate.status == status
    (breached,) = judge([f"{metric}>0.12"], [row], [], (), ["none"])
    assert breached.status == "fail"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_decides_nothing(bad):
    row = Score("none", "worst", "w", "mine", bad, bad, bad, 40, "share", "up")
    (gate,) = judge(["mine>0.2"], [row], [], (), ["none"])
    assert (gate.status, gate.reason) == ("inconclusive", "it isn't a finite number")


def test_a_percent_sign_is_named_as_what_is_wrong():
    with pytest.raises(UsageError, match="is in per cent") as refused:
        parse_gate("identification>20%")
    assert "0.2 for 20 %" in (refused.value.todo or "")


def test_a_result_tells_the_row_the_bound_and_both_numbers():
    (gate,) = judge(["identification>0.2"], [score()], [], (), ["none"])
    assert (gate.defence, gate.attack, gate.metric) == ("none", "worst", "identification")
    assert gate.value == 0.3
    assert gate.bound == pytest.approx(0.4)
    assert gate.threshold == 0.2
    assert gate.reason == "none.worst.identification is 0.3 (0.2 to 0.4), the upper end > 0.2"


def test_a_gate_without_a_defence_reads_every_defended_row():
    rows = [
        score(label, value=value) for label, value in zip(LABELS, (1, 0.9, 0.1, 0.05), strict=True)
    ]
    gates = judge(["identification>0.5"], rows, [], (), LABELS)
    assert [(g.defence, g.status) for g in gates] == [
        (LABELS[1], "fail"), (LABELS[2], "pass"), (LABELS[3], "pass")
    ]  # fmt: skip


def test_a_gate_without_a_defence_reads_none_where_nothing_is_defended():
    assert statuses("identification>0.5", [score(value=0.9)]) == ["fail"]


@pytest.mark.parametrize(
    ("expr", "labels"),
    [
        ("crafter.worst.identification>0.5", LABELS[2:]),
        ('"crafter:beta=4".identification>0.5', LABELS[3:]),
        ("none.worst.identification>0.5", LABELS[:1]),
        ('"none".identification>0.5', LABELS[:1]),
    ],
)
def test_a_defence_is_the_part_before_the_colon_or_a_full_label(expr, labels):
    rows = [score(label) for label in LABELS]
    assert [g.defence for g in judge([expr], rows, [], (), LABELS)] == labels


def test_the_utility_is_an_attack_with_drops_of_its_own():
    row = Utility("crafter:beta=2", "auc", 0.9, 0.85, 0.95, 40, 0.05, 0.01, 0.09)
    labels = ["none", "crafter:beta=2"]
    for expr, status in [
        ("utility.auc_drop>0.08", "fail"),
        ("utility.auc_drop>0.1", "pass"),
        ("utility.auc_drop>0.06@value", "pass"),
        ("utility.auc<0.86", "fail"),
        ("utility.auc<0.8", "pass"),
    ]:
        assert statuses(expr, [], utility=[row], labels=labels) == [status], expr


@pytest.mark.parametrize(
    ("expr", "kind", "near"),
    [
        ("identificaton>0.2", "metric 'identificaton'", "identification"),
        ("blackbox-decodr.identification>0.2", "attack 'blackbox-decodr'", "blackbox-decoder"),
        ("craftr.worst.identification>0.2", "defence 'craftr'", "crafter:beta=2"),
        ('"crafter:beta=3".identification>0.2', "defence 'crafter:beta=3'", "crafter:beta=2"),
        ("utility.auc>0.2", "attack 'utility'", "Known"),
    ],
)
def test_what_was_not_measured_is_inconclusive_with_the_nearest_name(expr, kind, near):
    rows = [score(d, a) for d in LABELS for a in ("blackbox-decoder", "worst")]
    gates = judge([expr], rows, [], (), LABELS)
    assert {gate.status for gate in gates} == {"inconclusive"}
    assert f"{kind} was not measured" in gates[0].reason
    assert near in gates[0].reason
    assert conclude(gates, rows).exit_code == 3


def test_an_unavailable_metric_is_inconclusive_and_says_why():
    rows = [score(metric="lpips", value=None, note="unavailable: no trunk")]
    (gate,) = judge(["lpips<0.2"], rows, [], (), ["none"])
    assert (gate.status, gate.reason, gate.metric) == (
        "inconclusive", "unavailable: no trunk", "lpips"
    )  # fmt: skip


def test_a_serious_doubt_turns_a_pass_into_inconclusive_only_on_its_rows():
    rows = [score("gaussian:sigma=.5"), score("crafter:beta=2"), score("crafter:beta=2", "chosen")]
    labels = ["none", "gaussian:sigma=.5", "crafter:beta=2"]
    about = (doubt(("crafter:beta=2", "worst")),)
    assert statuses("identification>0.9", rows, doubts=about, labels=labels) == [
        "pass", "inconclusive"
    ]  # fmt: skip
    assert statuses("crafter.chosen.identification>0.9", rows, doubts=about, labels=labels) == [
        "pass"
    ]


@pytest.mark.parametrize("rows", [(("*", "worst"),), (("none", "*"),), (("*", "*"),)])
def test_a_star_of_a_doubt_is_every_row(rows):
    assert statuses("identification>0.9", [score()], doubts=(doubt(*rows),)) == ["inconclusive"]


def test_a_note_changes_no_gate():
    assert statuses("identification>0.9", [score()], doubts=(doubt(severity="note"),)) == ["pass"]


def test_the_doubts_that_decide_are_named_once():
    both = (doubt(), doubt(("none", "worst")), doubt(name="no-power"))
    (gate,) = judge(["identification>0.9"], [score()], [], both, ["none"])
    assert gate.reason.endswith("but in doubt: too-few, no-power")


def test_a_breach_stands_whatever_the_doubts():
    assert statuses("identification>0.1", [score()], doubts=(doubt(),)) == ["fail"]


def test_a_breach_outranks_what_is_inconclusive_which_outranks_a_pass():
    rows = [score()]
    order = ["identification>0.9", "unknown>0.9", "identification>0.1"]
    codes = [
        conclude(judge(order[:k], rows, [], (), ["none"]), rows).exit_code for k in range(1, 4)
    ]
    assert codes == [0, 3, 1]
    backwards = conclude(judge(order[::-1], rows, [], (), ["none"]), rows)
    assert (backwards.status, backwards.exit_code) == ("fail", 1)
    assert "identification>0.1" in backwards.reason


def test_without_a_gate_the_verdict_says_what_was_named():
    verdict = conclude((), [score(value=0.9, floor=0.1)])
    assert (verdict.status, verdict.exit_code) == ("ungated", 0)
    assert "none 90.0%" in verdict.reason
    assert "doubt" not in verdict.reason
    grave = Doubt("no-power", "serious", "", "", "")
    slight = Doubt("prior-shared", "note", "", "", "")
    doubted = conclude((), [score(value=0.9, floor=0.1)], doubts=[grave, slight, grave])
    assert doubted.reason.endswith(" In serious doubt: no-power.")
    assert doubted.exit_code == 0
    assert "10.0%" in verdict.reason


ATTACKS = st.sampled_from(["worst", "chosen", "utility", "nobody"])
METRICS = st.sampled_from(["identification", "ssim", "auc", "auc_drop", "unknown"])
NUMBERS = st.floats(-1, 1).map(lambda x: round(x, 2))
CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


@st.composite
def gates(draw):
    defence = draw(st.sampled_from([None, "none", "crafter", '"crafter:beta=4"', "gone"]))
    op, end = draw(st.sampled_from(["<", "<=", ">", ">="])), draw(st.sampled_from(["", "@value"]))
    path = f"{draw(ATTACKS)}.{draw(METRICS)}"
    return f"{path if defence is None else f'{defence}.{path}'}{op}{draw(NUMBERS)}{end}"


@st.composite
def scores(draw):
    rows = []
    for label in LABELS:
        for attack in ("worst", "chosen"):
            value = draw(st.one_of(st.none(), st.floats(0, 1)))
            rows.append(score(label, attack, "identification", value, draw(st.floats(0, 0.3))))
            rows.append(score(label, attack, "ssim", draw(st.floats(-1, 1)), 0.05))
    return rows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(gates(), max_size=5),
    scores(),
    st.lists(
        st.tuples(
            st.sampled_from(["*", *LABELS]),
            st.sampled_from(["*", "worst", "chosen"]),
            st.sampled_from(["serious", "note"]),
        ),
        max_size=3,
    ),
)
def test_gates_and_the_verdict_always_agree(exprs, rows, doubted):
    doubts = tuple(doubt((d, a), severity=s) for d, a, s in doubted)
    drops = [Utility(label, "auc", 0.8, 0.7, 0.9, 40, 0.1, 0.0, 0.2) for label in LABELS]
    results = judge(exprs, rows, drops, doubts, LABELS)
    verdict = conclude(results, rows)
    found = {result.status for result in results}
    worst = next((s for s in ("fail", "inconclusive", "pass") if s in found), "ungated")
    assert verdict.status == worst
    assert verdict.exit_code == CODES.get(worst, 0)
    assert (not exprs) == (verdict.status == "ungated")
    assert {result.expr for result in results} == set(exprs)
    for result in results:
        grave = any(
            d.severity == "serious" and d.bears_on(result.defence, result.attack)
            for d in doubts
            if result.defence is not None and result.attack is not None
        )
        assert not (grave and result.status == "pass")
        assert (result.value is None) <= (result.status == "inconclusive")


def test_the_verdict_never_rounds_a_few_to_nobody_nor_floors_to_one():
    rows = [
        score(value=249 / 250, floor=0.024),
        score("crafter", value=1 / 2500, floor=0.033),
        score("gaussian", value=0.0, floor=0.033),
    ]
    reason = conclude((), rows).reason
    assert "none 99.6%, crafter under 0.1%, gaussian 0%" in reason
    assert "a blind adversary would name 2.4% to 3.3%" in reason


def test_a_threshold_beyond_all_numbers_is_refused():
    with pytest.raises(UsageError, match="larger than any metric"):
        parse_gate("psnr<1e200")


def above_floors(**values):
    """Rows of one defence's excess by attack, of 40 faces, each 0.1 to either side."""
    threats = {"blackbox-ridge": "BlackBox", "adaptive-ridge": "AdaptiveBlackBox",
               "linkage-gallery": "Informed", "control-prior": "NoFeature"}  # fmt: skip
    return [
        replace(
            score("crafter", name, "identification_excess", value), threat=threats.get(name, name)
        )
        for name, value in ((name.replace("_", "-"), v) for name, v in values.items())
    ]


@pytest.mark.parametrize(
    ("row", "statuses_"),
    [("worst", "fail"), ("worst-adaptive", "fail"), ("worst-static", "pass"), ("chosen", "pass")],
)
def test_attacks_that_find_nothing_take_nothing_from_a_worst_case(row, statuses_):
    """Their guesses raise its floor, so that its excess may fall below one of its attacks'."""
    rows = above_floors(
        worst=0.05, worst_static=0.01, worst_adaptive=0.06, chosen=0.02, blackbox_ridge=0.01,
        adaptive_ridge=0.12, linkage_gallery=0.9, control_prior=0.8,
    )  # fmt: skip
    (found,) = judge([f"{row}.identification_excess>0.1@value"], rows, (), (), ["none", "crafter"])
    assert found.status == statuses_
    assert ("as much as adaptive-ridge names by itself" in found.reason) == (statuses_ == "fail")
    (found,) = judge([f"{row}.identification_excess>0.2"], rows, (), (), ["none", "crafter"])
    assert found.status == statuses_
    # In a rate the worst case holds all that its attacks name.
    assert rows_of(rows, ())[0].value == 0.12 and rows_of(rows, ())[3].value == 0.02


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(-0.5, 1))
def test_another_attack_never_lowers_what_a_gate_on_the_worst_case_reads(values, worst):
    def read(shown):
        rows = above_floors(worst=worst)
        rows += [
            replace(score("crafter", f"a{k}", "identification_excess", v), threat="BlackBox")
            for k, v in enumerate(shown)
        ]
        return rows_of(rows, ())[0]

    fewer, more = read(values[:-1]), read(values)
    assert fewer.value <= more.value and fewer.low <= more.low and fewer.high <= more.high
    assert more.value >= max(values) and more.low <= more.value <= more.high
