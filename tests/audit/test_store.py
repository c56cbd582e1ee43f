import json
import os
import stat

import pytest
import torch

from leakaudit.attacks.base import Effort, Guess
from leakaudit.audit.store import RunStore, digest
from leakaudit.core.errors import RunError, UsageError
from leakaudit.defences.base import Released


def a_guess(*, loss=True, latents=True):
    effort = Effort(7, 21, (0.1, 1 / 3), -0.25, False, "why")
    return Guess(
        torch.rand(3, 3, 4, 4), torch.rand(3) if loss else None, effort,
        torch.randn(3, 2) if latents else None, {"restarts": 0.1 + 0.2},
    )  # fmt: skip


def a_release():
    return Released(torch.randn(3, 2, 4, 4), 5, 15, (0.9, 0.1 + 0.2), False, {"residual": 1 / 3})


def refuse():
    raise AssertionError("it was made again")


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    return a == b


@pytest.mark.parametrize(("loss", "latents"), [(True, True), (False, True), (False, False)])
def test_a_finished_guess_comes_back_as_it_was(tmp_path, loss, latents):
    made = a_guess(loss=loss, latents=latents)
    RunStore(tmp_path, resume=False).guess("k", lambda: made)
    store = RunStore(tmp_path, resume=True)
    found = store.guess("k", refuse)
    for name in ("images", "loss", "latents", "effort", "details"):
        assert same(getattr(found, name), getattr(made, name)), name
    assert store.reused == 1


def test_a_finished_release_comes_back_as_it_was(tmp_path):
    made = a_release()
    RunStore(tmp_path, resume=False).released("k", lambda: made)
    found = RunStore(tmp_path, resume=True).released("k", refuse)
    for name in ("features", "steps", "passes", "curve", "converged", "details"):
        assert same(getattr(found, name), getattr(made, name)), name


def test_without_resume_everything_is_made_again(tmp_path):
    RunStore(tmp_path, resume=False).guess("k", a_guess)
    store, made = RunStore(tmp_path, resume=False), a_guess()
    assert store.guess("k", lambda: made) is made
    assert store.reused == 0
    assert torch.equal(RunStore(tmp_path, resume=True).guess("k", refuse).images, made.images)


def test_another_stage_is_not_taken_for_this_one(tmp_path):
    RunStore(tmp_path, resume=False).guess("one", a_guess)
    made = a_guess()
    assert RunStore(tmp_path, resume=True).guess("two", lambda: made) is made


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _told(path):
    note = json.loads(path.read_text())
    note["about"]["effort"]["steps"] = 8
    path.write_text(json.dumps(note))


@pytest.mark.parametrize(
    ("suffix", "harm"),
    [
        ("safetensors", _flip),
        ("safetensors", lambda p: p.write_bytes(p.read_bytes()[:-5])),
        ("safetensors", lambda p: p.write_bytes(b"")),
        ("safetensors", lambda p: p.unlink()),
        ("json", lambda p: p.unlink()),
        ("json", lambda p: p.write_text("{")),
        ("json", lambda p: p.write_text("[]")),
        ("json", lambda p: p.write_text("{}")),
        ("json", lambda p: p.write_text("null")),
        ("json", lambda p: p.write_bytes(b"\xff")),
        ("json", _told),
    ],
)
def test_a_damaged_stage_is_made_again_and_then_whole(tmp_path, suffix, harm):
    RunStore(tmp_path, resume=False).guess("k", a_guess)
    harm(tmp_path / "stages" / f"k.{suffix}")
    made = a_guess()
    store = RunStore(tmp_path, resume=True)
    assert store.guess("k", lambda: made) is made
    assert store.reused == 0
    assert torch.equal(RunStore(tmp_path, resume=True).guess("k", refuse).images, made.images)


def test_a_write_that_is_interrupted_leaves_a_stage_that_is_made_again(tmp_path, monkeypatch):
    store = RunStore(tmp_path, resume=True)
    real, calls = os.replace, []

    def interrupted(*paths):
        calls.append(paths)
        if len(calls) == 2:  # the tensors are there, what is told about them isn't
            raise KeyboardInterrupt
        real(*paths)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.guess("k", a_guess)
    assert sorted(p.name for p in (tmp_path / "stages").iterdir()) == ["k.safetensors"]
    made = a_guess()
    assert RunStore(tmp_path, resume=True).guess("k", lambda: made) is made


def test_the_folder_is_private_and_kept_out_of_git(tmp_path):
    folder = tmp_path / "deep" / "run"
    RunStore(folder, resume=False).guess("k", a_guess)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "stages").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "stages" / "k.safetensors").stat().st_mode) == 0o600
    assert (folder / ".gitignore").read_text() == "*\n"


def test_an_empty_open_folder_becomes_private(tmp_path):
    tmp_path.chmod(0o755)
    RunStore(tmp_path, resume=True)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_folder_with_files_of_others_is_refused_and_left_as_it_was(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        RunStore(tmp_path, resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path):
    store = RunStore(tmp_path / "run", resume=False)
    store.discard_if_empty()
    assert not (tmp_path / "run").exists()


def test_clearing_takes_the_stages_and_nothing_else(tmp_path):
    store = RunStore(tmp_path, resume=False)
    store.guess("k", a_guess)
    (tmp_path / "result.json").write_text("{}")
    store.clear()
    store.clear()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".gitignore",
        ".leakaudit-run",
        "result.json",
    ]


def test_a_folder_that_cant_be_made_is_a_run_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"run folder can't be made.*--run-dir"):
        RunStore(tmp_path / "file" / "run", resume=False)


def test_a_digest_knows_values_shapes_kinds_and_order():
    x = torch.arange(6.0)
    names = {
        digest(1, x), digest(2, x), digest(x, 1), digest(1, x.view(2, 3)), digest(1, x.double()),
        digest(1, x + 1e-6), digest({"a": 1}, x), digest({"a": 2}, x),
    }  # fmt: skip
    assert len(names) == 8
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    strided = torch.stack([x, x], 1)[:, 0]
    assert digest(strided) == digest(x)


def test_clearing_takes_the_stages_of_an_earlier_interrupted_run_too(tmp_path):
    RunStore(tmp_path, resume=False).guess("earlier", a_guess)
    store = RunStore(tmp_path, resume=True)
    store.guess("later", a_guess)
    store.clear()
    assert not (tmp_path / "stages").exists()


def test_a_run_killed_before_its_folder_was_whole_is_made_whole(tmp_path):
    store = RunStore(tmp_path / "run", resume=False)
    (store.folder / ".gitignore").unlink()
    left = store.folder / ".result.json.0123456789ab.tmp"
    left.write_text("half")
    (store.folder / ".kept.tmp").write_text("not a writer's")
    RunStore(tmp_path / "run", resume=True)
    assert (store.folder / ".gitignore").read_text() == "*\n"
    assert not left.exists() and (store.folder / ".kept.tmp").exists()
