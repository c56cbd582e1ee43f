"""Scores of a human study against values by hand, and what its intervals and doubts say."""

import math

import pytest
import torch
from report.sample import sample_result

from leakaudit.audit.answers import Answer, match, read_answers
from leakaudit.audit.gates import judge
from leakaudit.audit.study_key import Key, KeyedQuestion, work_of
from leakaudit.audit.study_score import confusion, macro_f1, score_study, with_study
from leakaudit.core.errors import InputError
from leakaudit.core.rng import Rng
from leakaudit.core.study import CHOICES

FACES = "faces"
DEFENDED = "crafter:beta=2"
RESULT = sample_result("ungated")


def key(per_defence: int = 10, labels=("none", DEFENDED), name: str = "page") -> Key:
    rows = [
        KeyedQuestion(f"{name}-{label}-{n}", label, "decoder", CHOICES[n % 5])
        for label in labels
        for n in range(per_defence)
    ]
    return Key(name, FACES, tuple(rows))


def answered(the: Key, participant: str, choose) -> list[Answer]:
    """The answers of one participant, who chooses by ``choose(question, place)``."""
    return [
        Answer(the.questionnaire, participant, q.id, choose(q, n), 2.0)
        for n, q in enumerate(the.questions)
    ]


def scored(the: Key, answers):
    matched, notes = match(answers, [the])
    return score_study(matched, [the], notes, Rng(0))


def right(q, n):
    return q.right


def wrong(q, n):
    return CHOICES[(CHOICES.index(q.right) + 1) % 5]


def by_lot(seed: int):
    draws = torch.randint(5, (10_000,), generator=Rng(seed).torch()).tolist()
    return lambda q, n: CHOICES[draws[n]]


def test_macro_f1_of_a_confusion_matrix_by_hand():
    counts = torch.tensor(
        [[2, 1, 0, 0, 0], [0, 2, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 3], [1, 0, 0, 0, 2]]
    )
    # A: tp 2, fp 1, fn 1 -> 4/6; B: tp 2, fp 2, fn 0 -> 4/6; C: tp 1, fp 0, fn 1 -> 2/3;
    # D: never given -> 0; none: tp 2, fp 3, fn 1 -> 4/8
    assert macro_f1(counts) == pytest.approx((2 / 3 + 2 / 3 + 2 / 3 + 0 + 1 / 2) / 5)


def test_a_choice_that_was_neither_right_nor_given_is_left_out_of_the_mean():
    counts = torch.zeros(5, 5, dtype=torch.long)
    counts[0, 0] = counts[1, 1] = 3
    assert macro_f1(counts) == 1.0
    assert macro_f1(torch.zeros(5, 5, dtype=torch.long)) is None
    counts[2, 0] = 3  # right three times, never given: F1 of A 6/9, of B 1, of C 0
    assert macro_f1(counts) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_the_confusion_matrix_counts_rows_right_and_columns_given():
    counts = confusion(torch.tensor([0, 0, 4]), torch.tensor([0, 3, 4]))
    assert counts[0].tolist() == [1, 0, 0, 1, 0]
    assert counts[4].tolist() == [0, 0, 0, 0, 1]


def test_precision_and_recall_of_each_choice_by_hand():
    the = key(5, ("none",))
    chosen = dict(zip((q.id for q in the.questions), ["A", "A", "C", "D", "A"], strict=True))
    row = scored(the, answered(the, "p", lambda q, n: chosen[q.id])).rows[0]
    a, b, none = row.choices[0], row.choices[1], row.choices[4]
    assert (a.right, a.given, a.recall.value) == (1, 3, 1.0)
    assert a.precision.value == pytest.approx(1 / 3)
    assert a.f1.value == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))
    assert (b.right, b.given, b.recall.value, b.precision.value, b.f1.value) == (1, 0, 0, None, 0)
    assert (none.right, none.recall.value) == (1, 0.0)
    assert row.accuracy.value == pytest.approx(3 / 5)
    assert row.macro_f1.value == pytest.approx((0.5 + 0 + 1 + 1 + 0) / 5)


@pytest.mark.parametrize("people", [1, 8])
@pytest.mark.parametrize(("choose", "value"), [(right, 1.0), (wrong, 0.0)])
def test_intervals_are_open_where_all_is_right_or_wrong(people, choose, value):
    the = key(10)
    answers = [a for p in range(people) for a in answered(the, f"p{p}", choose)]
    for row in scored(the, answers).rows:
        for e in (row.macro_f1, row.accuracy):
            assert e.value == value
            assert 0 <= e.low <= e.value <= e.high <= 1
            assert e.high - e.low > 0.1
        for choice in row.choices:
            for e in (choice.precision, choice.recall, choice.f1):
                assert e.value is None or e.low <= e.value <= e.high


def test_perfect_participants_give_power_and_chance_gives_none():
    the = key(20)
    sure = scored(the, [a for p in range(6) for a in answered(the, f"p{p}", right)])
    assert (sure.status, sure.participants, sure.unit) == ("usable", 6, "participants")
    lost = scored(the, [a for p in range(6) for a in answered(the, f"p{p}", by_lot(p))])
    assert lost.status == "no-power"
    assert "no power" in lost.reason
    for row in lost.rows:
        assert row.macro_f1.low < 0.2 < row.macro_f1.high


def test_recognised_undefended_faces_give_a_defence_at_chance_its_meaning():
    the = key(20)

    def choose(seed):
        lot = by_lot(seed)
        return lambda q, n: q.right if q.defence == "none" else lot(q, n)

    study = scored(the, [a for p in range(6) for a in answered(the, f"p{p}", choose(p))])
    assert study.status == "usable"
    none, defended = study.rows
    assert none.macro_f1.value == 1.0
    assert defended.macro_f1.low < 0.2 < defended.macro_f1.high < 0.5
    assert defended.seconds == 2.0


def test_without_undefended_answers_there_is_no_power():
    the = key(10)
    only = [a for a in answered(the, "p", right) if DEFENDED in a.question]
    study = scored(the, only)
    assert study.status == "no-power"
    assert "10 answers missing" in " ".join(study.notes)


@pytest.mark.slow
def test_the_interval_holds_what_it_promises_when_questions_differ():
    """Coverage of the accuracy that the Macro-F1 of symmetric errors equals."""
    the, truth, held = key(25, ("none",)), 0.6, 0
    for seed in range(40):
        draws = torch.rand(25 * 6, generator=Rng(seed).torch()).tolist()
        answers = []
        for p in range(6):
            part = iter(draws[25 * p :])
            answers += answered(
                the, f"p{p}", lambda q, n, part=part: q.right if next(part) < truth else wrong(q, n)
            )
        found = scored(the, answers).rows[0].macro_f1
        held += found.low <= truth <= found.high
    assert held >= 36  # 95 % of 40 is 38; 36 or more has probability .95


# answers: files, and what doesn't count


def write(tmp_path, *lines, head="questionnaire,participant,question,choice,seconds"):
    path = tmp_path / "answers.csv"
    path.write_text("\r\n".join((head, *lines)) + "\r\n", encoding="utf-8")
    return path


def test_answers_are_read_with_or_without_seconds_and_a_byte_order_mark(tmp_path):
    head = "\ufeffquestionnaire,participant,question,choice,seconds"
    path = write(tmp_path, "page,p,q1,A,2.5", "", "page,p,q2,none,", head=head)
    found = read_answers(path)
    assert [(a.question, a.choice, a.seconds) for a in found] == [
        ("q1", "A", 2.5),
        ("q2", "none", None),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("page,p,q1,E,1", "line 3"),
        ("page,p,q1,A", "line 3"),
        ("page,p,q1,A,1,2", "line 3"),
        ("page,p,q1,A,-1", "line 3"),
        ("page,p,q1,A,nan", "line 3"),
        ("page,p,q1,A,soon", "line 3"),
        (",p,q1,A,1", "line 3"),
        ('page,p,"q1,A,1', "line"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, said):
    path = write(tmp_path, "page,p,q0,A,1", line)
    with pytest.raises(InputError) as caught:
        read_answers(path)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("head", ["", "question,choice", "a;b;c;d;e"])
def test_another_first_line_is_refused(tmp_path, head):
    with pytest.raises(InputError, match="line 1"):
        read_answers(write(tmp_path, head=head))


def test_no_text_and_no_file_are_told(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_answers(tmp_path / "x.csv")
    with pytest.raises(InputError, match="Can't read"):
        read_answers(tmp_path / "absent.csv")


def test_doubled_torn_strange_and_missing_answers_are_said_and_do_not_count():
    the = key(5, ("none",))
    first = answered(the, "p", right)
    torn = Answer("page", "p", first[1].question, wrong(the.questions[1], 1), 1.0)
    strange = [Answer("page", "p", "unknown", "A", 1.0), Answer("other", "p", "q", "A", 1.0)]
    matched, notes = match([*first[:4], first[0], torn, *strange], [the])
    assert len(matched) == 3
    assert notes == (
        "2 answers to questions that no key knows, left out",
        "1 answer given twice, counted once",
        "2 answers that contradict another one of the same participant, left out",
        "2 answers missing: questions that a participant left out",
    )
    with pytest.raises(InputError, match="No answer belongs"):
        match(strange, [the])


# the study in a result


def result():
    from dataclasses import replace

    return replace(RESULT, subject={**RESULT.subject, "faces_sha256": FACES})


def test_a_result_takes_the_study_and_gates_read_it():
    the = key(20)
    study = scored(the, [a for p in range(6) for a in answered(the, f"p{p}", right)])
    told = with_study(result(), study, [the])
    assert told.verdict == RESULT.verdict
    assert told.gates == RESULT.gates
    labels = list(dict.fromkeys(s.defence for s in told.scores))
    asked = ["human.macro_f1>0.5", "none.human.accuracy>0.5", '"crafter:beta=2".human.macro_f1<0.1']
    found = judge(asked, told.scores, told.utility, told.doubts, labels)
    states = {(g.expr, g.defence): g.status for g in found}
    assert states["human.macro_f1>0.5", DEFENDED] == "fail"
    assert states["human.macro_f1>0.5", "gaussian:sigma=0.5"] == "inconclusive"
    assert states["none.human.accuracy>0.5", "none"] == "fail"
    assert states['"crafter:beta=2".human.macro_f1<0.1', DEFENDED] == "pass"


def test_a_study_without_power_can_not_let_a_gate_pass():
    the = key(20)
    lost = scored(the, [a for p in range(6) for a in answered(the, f"p{p}", wrong)])
    told = with_study(result(), lost, [the])
    found = judge(["human.macro_f1>0.9"], told.scores, (), told.doubts, ["none", DEFENDED])
    assert [gate.status for gate in found] == ["inconclusive"]
    assert "study-no-power" in found[0].reason


def test_scoring_again_replaces_the_earlier_study():
    the = key(20)
    lost = scored(the, answered(the, "p", wrong))
    sure = scored(the, [a for p in range(6) for a in answered(the, f"p{p}", right)])
    once = with_study(result(), sure, [the])
    assert with_study(with_study(result(), lost, [the]), sure, [the]) == once
    assert not [d for d in once.doubts if d.id.startswith("study-")]
    assert [d.id for d in with_study(result(), lost, [the]).doubts][-2:] == [
        "study-no-power",
        "study-few",
    ]


def test_a_key_of_another_scan_is_refused():
    the = key(20)
    study = scored(the, answered(the, "p", right))
    with pytest.raises(InputError, match="another scan"):
        with_study(RESULT, study, [the])
    other = key(20, ("none", "laplace:b=1"))
    with pytest.raises(InputError, match="another scan"):
        with_study(result(), scored(other, answered(other, "p", right)), [other])


def test_a_key_of_the_same_people_behind_another_strength_is_refused():
    """A label alone doesn't tell how strong a preset made a defence."""
    from dataclasses import replace

    here = result()
    tied = replace(key(20), work=work_of(here.plan, here.subject, here.seed))
    study = scored(tied, answered(tied, "p", right))
    assert with_study(here, study, [tied]).study == study
    weaker = {**here.plan, "defences": {"crafter:beta=2": {"beta": 0.1}}}
    for other in (
        replace(here, plan=weaker),
        replace(here, seed=here.seed + 1),
        replace(here, subject={**here.subject, "prior_sha256": "another"}),
    ):
        with pytest.raises(InputError, match="another scan"):
            with_study(other, study, [tied])


def test_rows_count_the_units_that_their_interval_draws():
    the = key(20)
    few = with_study(result(), scored(the, answered(the, "p", right)), [the])
    many = scored(the, [a for p in range(7) for a in answered(the, f"p{p}", right)])
    assert few.score("none", "human", "macro_f1").n == 20
    row = with_study(result(), many, [the]).score("none", "human", "macro_f1")
    assert (row.n, row.floor, row.leak_grows) == (7, 0.2, "up")
    assert math.isclose(row.value, 1.0)
