"""Drawing questionnaires: balance, and that nothing but the faces says who is right."""

import base64
import io
import json
import stat

import numpy as np
import pytest
import torch
from PIL import Image

from audit.toy_subject import toy_plan, toy_subject
from leakaudit.audit.questions import draw
from leakaudit.audit.scan import ScanOptions, scan
from leakaudit.audit.store import RunStore
from leakaudit.audit.study_file import FILE, Kept, Made, read_kept
from leakaudit.audit.study_keep import keep
from leakaudit.audit.study_key import Key, KeyedQuestion, read_key, write_key
from leakaudit.core.errors import InputError, UnknownNameError, UsageError
from leakaudit.core.study import CHOICES
from leakaudit.core.types import Score


def noise(count: int, seed: int) -> np.ndarray:
    """Pictures (count, 8, 8, 3) that say nothing of any other picture."""
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def kept(people: int = 24, *, secret: str = "s" * 64, attacks: tuple[str, ...] = ("a",)) -> Kept:
    made = tuple(
        Made(label, attack, 0.5 + place / 10, 0.1, noise(people, 7 * place + len(label)))
        for label in ("none", "crafter:beta=2")
        for place, attack in enumerate(attacks)
    )
    return Kept(noise(people, 0), made, secret, "f" * 32, False)


def test_each_choice_is_right_equally_often_behind_each_defence():
    page, key = draw(kept(40), questions=40)
    assert [q.id for q in page.questions] == [q.id for q in key.questions]
    for label in ("none", "crafter:beta=2"):
        rights = [q.right for q in key.questions if q.defence == label]
        assert {choice: rights.count(choice) for choice in CHOICES} == dict.fromkeys(CHOICES, 4)


def test_the_key_tells_who_is_right_and_nobody_is_sought_twice():
    source = kept(24)
    page, key = draw(source, questions=24)
    originals = [pixels.tobytes() for pixels in source.originals]
    made = {
        row.pictures[n].tobytes(): n for row in source.made for n in range(len(source.originals))
    }
    sought = []
    for asked, right in zip(page.questions, key.questions, strict=True):
        person = made[pixels_of(asked.picture)]
        shown = [originals.index(pixels_of(uri)) for uri in asked.candidates]
        assert len(set(shown)) == 4
        told = CHOICES[shown.index(person)] if person in shown else "none"
        assert told == right.right
        sought.append(person)
    assert len(set(sought)) == 24


def pixels_of(uri: str) -> bytes:
    data = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data))).tobytes()


def guesses(page):
    """What somebody who sees only the page, not the likeness, could go by: a guess a question."""
    often: dict[str, int] = {}
    for question in page.questions:
        for uri in question.candidates:
            often[uri] = often.get(uri, 0) + 1
    for place, q in enumerate(page.questions):
        seen = [often[uri] for uri in q.candidates]
        sizes = [len(uri) for uri in q.candidates]
        yield {
            "first": 0,
            "last": 3,
            "rarest": int(np.argmin(seen)),
            "most often": int(np.argmax(seen)),
            "largest file": int(np.argmax(sizes)),
            "file of the picture's size": int(
                np.argmin([abs(size - len(q.picture)) for size in sizes])
            ),
            "alphabet": q.candidates.index(min(q.candidates)),
            "place on the page": place % 5,
            "digit of the id": int(q.id[-1], 16) % 5,
            "sum of the id": int(q.id, 16) % 5,
        }


@pytest.mark.parametrize("people", [10, 24, 60])
def test_no_simple_statistic_of_the_page_finds_the_truth_over_many_seeds(people):
    hits: dict[str, list[bool]] = {}
    for seed in range(60):
        count = min(24, people)
        page, key = draw(kept(people, secret=f"{seed:064x}"), questions=count, seed=seed)
        for guess, right in zip(guesses(page), key.questions, strict=True):
            for name, choice in guess.items():
                hits.setdefault(name, []).append(CHOICES[choice] == right.right)
    for name, found in hits.items():
        n = len(found)
        off = abs(np.mean(found) - 0.2) / np.sqrt(0.16 / n)
        assert off < 4, f"{name}: {np.mean(found):.3f} of {n} where guessing gives 0.2"


def test_the_statistic_would_find_a_truth_that_is_always_first():
    hits = []
    for seed in range(20):
        page, key = draw(kept(24, secret=f"{seed:064x}"), seed=seed)
        hits += [g["first"] == 0 for g, _ in zip(guesses(page), key.questions, strict=True)]
    off = abs(np.mean(hits) - 0.2) / np.sqrt(0.16 / len(hits))
    assert off > 4


def test_the_seed_alone_does_not_tell_the_truth_for_the_secret_does():
    same = draw(kept(), seed=3)
    assert same == draw(kept(), seed=3)
    other = draw(kept(secret="t" * 64), seed=3)
    assert [q.right for q in same[1].questions] != [q.right for q in other[1].questions]
    assert {q.id for q in same[0].questions}.isdisjoint(q.id for q in other[0].questions)
    again = draw(kept(), seed=4)
    assert [q.picture for q in again[0].questions] != [q.picture for q in same[0].questions]


def test_undefended_questions_are_always_mixed_among_the_others():
    _, key = draw(kept(), defences=["crafter:beta=2"], questions=20)
    places = [n for n, q in enumerate(key.questions) if q.defence == "none"]
    assert len(places) == 10
    assert places not in (list(range(10)), list(range(10, 20)))


def test_the_best_attack_is_the_one_that_names_most_unless_another_is_asked_for():
    source = kept(attacks=("weak", "strong"))
    assert {q.attack for q in draw(source)[1].questions} == {"strong"}
    assert {q.attack for q in draw(source, attack="weak")[1].questions} == {"weak"}
    with pytest.raises(UnknownNameError, match="Did you mean strong"):
        draw(source, attack="strng")
    with pytest.raises(UnknownNameError, match="crafter"):
        draw(source, defences=["crafter"])


def test_where_the_named_attack_did_not_run_the_best_one_stands_in():
    source = kept(attacks=("weak", "strong"))
    adaptive = Made("crafter:beta=2", "adaptive-decoder", 0.1, 0.1, noise(24, 99))
    source = Kept(source.originals, (*source.made, adaptive), source.secret, "f", False)
    rows = {(q.defence, q.attack) for q in draw(source, attack="adaptive-decoder")[1].questions}
    assert rows == {("none", "strong"), ("crafter:beta=2", "adaptive-decoder")}


@pytest.mark.parametrize(
    ("people", "asked", "said"), [(24, 30, "30 questions"), (24, 9, "Too few"), (8, None, "8")]
)
def test_more_questions_than_people_or_too_few_are_refused(people, asked, said):
    with pytest.raises(UsageError, match=said):
        draw(kept(people), questions=asked)


def test_a_key_is_private_reads_back_and_is_never_written_over(tmp_path):
    key = draw(kept())[1]
    write_key(key, tmp_path / "key.json")
    assert stat.S_IMODE((tmp_path / "key.json").stat().st_mode) == 0o600
    assert read_key(tmp_path / "key.json") == key
    with pytest.raises(UsageError, match="already"):
        write_key(key, tmp_path / "key.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "leakaudit-study-key"}', "\udcff"])
def test_what_is_no_key_is_told(tmp_path, text):
    path = tmp_path / "key.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match=r"no answer key"):
        read_key(path)


def test_an_unknown_choice_in_a_key_is_refused(tmp_path):
    write_key(Key("p", "f", (KeyedQuestion("q", "none", "a", "E"),)), tmp_path / "key.json")
    with pytest.raises(InputError):
        read_key(tmp_path / "key.json")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    plan = toy_plan(folder, "gaussian:sigma=0.1", attacks=["blackbox-decoder"])
    store = RunStore(folder / "run", resume=False)
    options = ScanOptions(keep_study=12)
    result = scan(toy_subject(), plan, store, options, lambda what, share: None)
    return store.folder, result


def test_a_scan_keeps_people_and_reconstructions_on_request_only(run_folder, tmp_path):
    folder, result = run_folder
    source = read_kept(folder)
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert source.originals.shape == (12, 32, 32, 3)
    assert source.defences == ("none", "gaussian:sigma=0.1")
    assert {row.attack for row in source.made} == {"blackbox-decoder"}  # no control
    assert source.faces_sha256 == result.subject["faces_sha256"]
    assert source.synthetic
    seen = (toy_subject().faces.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    everybody = {face.numpy().tobytes() for face in seen}
    shown = {face.tobytes() for face in source.originals}
    assert len(shown) == 12
    assert shown <= everybody
    with pytest.raises(UsageError, match="--keep-study"):
        read_kept(tmp_path)


def test_too_few_people_for_a_study_are_refused_before_any_work(tmp_path):
    plan = toy_plan(tmp_path, "none", attacks=["blackbox-decoder"])
    store = RunStore(tmp_path / "run", resume=False)
    with pytest.raises(UsageError, match="at least 5"):
        scan(toy_subject(), plan, store, ScanOptions(keep_study=4), lambda what, share: None)


def test_attacks_without_pictures_leave_nothing_to_keep(tmp_path):
    plan = toy_plan(tmp_path, "none", attacks=["blackbox-decoder"])
    subject = toy_subject()
    found = {("none", "control-mean"): subject.faces.images}
    assert keep(subject, plan, (), found, tmp_path, count=8) is None
    assert not (tmp_path / FILE).exists()


def test_reconstructions_stay_beside_their_own_originals(tmp_path):
    plan = toy_plan(tmp_path, "none", attacks=["blackbox-decoder"])
    subject = toy_subject()
    row = Score("none", "blackbox-decoder", "BlackBox", "identification", 0.7, 0.6, 0.8, 32,
                "fraction", "up")  # fmt: skip
    found = {("none", "blackbox-decoder"): subject.faces.images}
    keep(subject, plan, (row,), found, tmp_path, count=9)
    source = read_kept(tmp_path)
    made = source.best("none")
    assert (made.identification, made.similarity) == (0.7, -1.0)
    assert np.array_equal(made.pictures, source.originals)


@pytest.mark.parametrize("text", [b"", b"\x10\0\0\0\0\0\0\0{}", b"not safetensors at all"])
def test_a_damaged_file_is_an_input_error(tmp_path, text):
    (tmp_path / FILE).write_bytes(text)
    with pytest.raises(InputError, match="can't be read"):
        read_kept(tmp_path)


def test_the_message_names_the_scans_own_command(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"command": "leakaudit scan --demo"}))
    with pytest.raises(UsageError, match=r"leakaudit scan --demo --keep-study 40"):
        read_kept(tmp_path)
