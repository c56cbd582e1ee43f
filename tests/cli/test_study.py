"""``leakaudit study`` from scan to gate, as a user types it."""

import csv
import json
import re
import stat

import pytest

import leakaudit.cli.study  # noqa: F401 - the command registers itself
from leakaudit.audit.answers import COLUMNS
from leakaudit.core.study import CHOICES
from leakaudit.report.json import read_result

QUIET = ("--questions", "10")


@pytest.fixture
def made(scan, leakaudit, tmp_path):
    """A run that kept ten people, and a questionnaire made of it."""
    done = scan("--defence", "gaussian:sigma=0.1", "--keep-study", "10", attacked=16)
    assert done.code == 0
    assert "delete it once" in done.said
    made = leakaudit("study", "make", tmp_path / "run", "--out", tmp_path / "study", *QUIET)
    assert made.code == 0, made.err
    return tmp_path / "study"


def answers(folder, person="p", choose=lambda q: q["right"]):
    """The CSV of a participant who chooses so."""
    key = json.loads((folder / "key.json").read_text())
    path = folder / f"{person}.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for question in key["questions"]:
            writer.writerow([key["questionnaire"], person, question["id"], choose(question), "3.2"])
    return path


def wrong(question):
    return CHOICES[(CHOICES.index(question["right"]) + 1) % 5]


def test_the_page_and_its_key_stand_apart_and_the_page_holds_no_truth(made):
    assert stat.S_IMODE((made / "key.json").stat().st_mode) == 0o600
    page = (made / "questionnaire.html").read_text(encoding="utf-8")
    key = json.loads((made / "key.json").read_text())
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    for name in ("gaussian", "blackbox", "decoder", key["faces_sha256"], "defence", "right choice"):
        assert name not in text
    assert [q["id"] for q in key["questions"]] == re.findall(r'data-question="(\w+)"', page)
    assert {q["defence"] for q in key["questions"]} == {"none", "gaussian:sigma=0.1"}


def test_scores_go_into_a_new_result_that_gate_and_report_read(made, leakaudit, tmp_path):
    files = [answers(made, f"p{n}") for n in range(5)]
    result = tmp_path / "run" / "result.json"
    done = leakaudit("study", "score", *files, result, "--key", made / "key.json")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("SCORED: 5 participants")
    told = tmp_path / "run" / "result-study.json"
    study = read_result(told).study
    assert (study.status, study.unit, study.rows[1].macro_f1.value) == ("usable", "participants", 1)
    assert read_result(result).study is None
    assert leakaudit("gate", told, "--fail-on", "human.macro_f1>0.5").code == 1
    assert leakaudit("gate", result, "--fail-on", "human.macro_f1>0.5").code == 3
    out = ["-o", tmp_path / "r.html", "-o", f"dpia:{tmp_path / 'annex.md'}"]
    assert leakaudit("report", told, *out).code == 0
    assert "Whom people recognise" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "5 participants" in (tmp_path / "annex.md").read_text(encoding="utf-8")


def test_answers_about_another_layer_of_the_same_faces_are_refused(made, leakaudit, tmp_path):
    key = json.loads((tmp_path / "study" / "key.json").read_text())
    assert json.loads(key["network"])[2] == "mix"
    key["network"] = key["network"].replace("mix", "deeper")
    (tmp_path / "other.json").write_text(json.dumps(key))
    (tmp_path / "deep.json").write_text("[" * 5000)
    answers = tmp_path / "a.csv"
    answers.write_text(
        "questionnaire,participant,question,choice,seconds\n"
        f"{key['questionnaire']},p,{key['questions'][0]['id']},A,2\n"
    )
    result = tmp_path / "run" / "result.json"
    done = leakaudit("study", "score", answers, result, "--key", tmp_path / "other.json")
    assert done.code == 2 and "belongs to another scan" in done.said
    done = leakaudit("study", "score", answers, "--key", tmp_path / "deep.json")
    assert done.code == 2 and "This is no answer key" in done.said


def test_a_study_without_power_is_inconclusive(made, leakaudit, tmp_path):
    path = answers(made, choose=wrong)
    out = ["-o", tmp_path / "with.json"]
    done = leakaudit(
        "study", "score", path, tmp_path / "run" / "result.json", "--key", made / "key.json", *out
    )
    assert done.code == 3
    assert "no power" in done.out.splitlines()[-1]
    assert leakaudit("gate", tmp_path / "with.json", "--fail-on", "human.macro_f1>0.9").code == 3


def test_a_wrong_file_names_its_line_and_ends_with_two(made, leakaudit):
    path = answers(made, choose=lambda q: "E")
    done = leakaudit("study", "score", path, "--key", made / "key.json")
    assert done.code == 2
    assert "line 2" in done.said
    path.write_text("hello\n")
    assert leakaudit("study", "score", path, "--key", made / "key.json").code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["KEY", "--key", "KEY"], "No answers"),
        (["P", "--key", "P"], "no answer key"),
        (["P", "--key", "KEY", "-o", "x.json"], "-o writes a result"),
        (["P", "KEY", "RESULT", "--key", "KEY"], "More than one result"),
    ],
)
def test_wrong_usage_of_score_is_told(made, leakaudit, tmp_path, arguments, said):
    names = {"KEY": made / "key.json", "P": answers(made), "RESULT": tmp_path / "run/result.json"}
    done = leakaudit("study", "score", *(names.get(word, word) for word in arguments))
    assert done.code == 2
    assert said in done.said


def test_an_earlier_key_is_never_written_over(made, leakaudit, tmp_path):
    before = (made / "key.json").read_bytes()
    done = leakaudit("study", "make", tmp_path / "run", "--out", made, "--seed", "1", *QUIET)
    assert done.code == 2
    assert "another --out" in done.said
    assert (made / "key.json").read_bytes() == before


def test_make_takes_the_result_as_well_and_answers_to_several_keys_join(made, leakaudit, tmp_path):
    other = tmp_path / "other"
    run = tmp_path / "run" / "result.json"
    assert leakaudit("study", "make", run, "--out", other, "--seed", "1", *QUIET).code == 0
    files = [answers(made, "p"), answers(other, "q")]
    keys = ["--key", made / "key.json", "--key", other / "key.json"]
    done = leakaudit("study", "score", *files, *keys)
    assert done.code == 0, done.err
    assert "2 participants, intervals over questions" in done.out
    alone = leakaudit("study", "score", *files, *keys[:2])
    assert "10 answers to questions that no key knows" in " ".join(alone.out.split())


def test_a_run_without_kept_pictures_says_what_to_type(scan, leakaudit, tmp_path):
    assert scan().code == 0
    done = leakaudit("study", "make", tmp_path / "run", "--out", tmp_path / "study")
    assert done.code == 2
    assert "--keep-study 40" in done.said
    assert not (tmp_path / "study").exists()


def test_too_few_people_for_a_study_are_refused(scan):
    done = scan("--keep-study", "3")
    assert done.code == 2
    assert "at least 5" in done.said


def test_unknown_names_get_the_nearest_one(made, leakaudit, tmp_path):
    base = ("study", "make", tmp_path / "run", "--out", tmp_path / "new")
    done = leakaudit(*base, "--attack", "blackbox-decodr")
    assert done.code == 2
    assert "Did you mean blackbox-decoder" in done.said
    assert leakaudit(*base, "--defence", "gausian:sigma=0.1").code == 2
