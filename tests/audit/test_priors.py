"""A scan's prior is trained once for the same pictures and settings, and never mistaken."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

import pytest
import torch
from toys import normal

from leakaudit.audit import priors
from leakaudit.audit.estimate import Countdown
from leakaudit.audit.priors import given_prior, prior_doubts, trained_prior
from leakaudit.core.cache import cache_dir, cache_folder
from leakaudit.core.errors import RunError
from leakaudit.core.rng import Rng
from leakaudit.models.generators import Prior
from leakaudit.models.prior import PriorShape, PriorTraining
from leakaudit.models.prior_files import save_prior
from leakaudit.models.prior_quality import Quality
from leakaudit.models.prior_sessions import PriorTask
from leakaudit.models.weights import sha256_of

IMAGES = (0.5 + 0.2 * normal(16, 3, 32, 32, seed=1)).clamp(0, 1)
TASK = PriorTask(IMAGES, PriorShape(32, 6, 8), PriorTraining(steps=3, batch=4), Rng(1))


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """One scan's prior, in a run folder of its own; ``notes`` and ``said`` are what is told."""
    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path / "cache"))

    class Scans:
        def __init__(self) -> None:
            self.notes: list[str] = []
            self.said: list[str] = []

        def __call__(self, name, task=TASK, *, resume=False, cache=True):
            self.notes.clear()
            self.said.clear()
            kept = tmp_path / name / "prior.safetensors"
            return trained_prior(
                task, kept, resume=resume, cache=cache, say=self.said.append, note=self.notes.append
            )

    return Scans()


def shelf(tmp_path):
    return sorted((tmp_path / "cache" / "priors").iterdir())


def state(found):
    return torch.cat([value.flatten() for value in found.prior.state_dict().values()])


@pytest.mark.parametrize(
    ("diversity", "gap", "severity"), [(0.1, 0.9, "serious"), (0.9, 5.0, "note"), (1.0, 0.0, None)]
)
def test_a_prior_that_was_found_wanting_is_doubted(diversity, gap, severity) -> None:
    quality = Quality(gap, diversity, 0.1, 0.3, 64)
    found = prior_doubts({"quality": json.dumps(asdict(quality))})
    assert [(doubt.id, doubt.severity) for doubt in found] == (
        [] if severity is None else [("weak-prior", severity)]
    )
    assert prior_doubts({}) == prior_doubts({"quality": "[]"}) == ()


@pytest.mark.parametrize(
    ("facts", "align", "doubted"),
    [
        ({"align": "mtcnn"}, None, True),
        ({"align": "none"}, "mtcnn", True),
        ({"align": "mtcnn:1.4"}, "mtcnn", True),
        ({"align": "mtcnn"}, "mtcnn", False),
        ({"align": "none"}, None, False),
        ({}, "mtcnn", False),  # of an earlier version, or another tool
    ],
)
def test_a_prior_of_other_frames_is_doubted(tmp_path, facts, align, doubted) -> None:
    save_prior(tmp_path / "p.safetensors", Prior(PriorShape(size=32, latent=4, width=8)), facts)
    found = given_prior(str(tmp_path / "p.safetensors"), None, size=32, align=align)
    assert [d.id for d in found.doubts] == (["prior-framing"] if doubted else [])
    assert all(d.severity == "note" and facts["align"] in d.what_to_do for d in found.doubts)


def test_the_time_is_told_before_and_the_training_after_that(scan) -> None:
    scan("one")
    assert "3 steps, about 1 s on this machine" in scan.notes[0]
    assert [text.split(",")[0] for text in scan.said] == [
        f"training the prior {k}/3" for k in (1, 2, 3)
    ]


def test_the_next_scan_takes_it_from_the_cache_to_the_last_bit(scan, tmp_path) -> None:
    first = scan("one")
    assert "kept in the cache" in scan.notes[-1]
    second = scan("two")
    assert scan.said == [] and "taken from the cache" in scan.notes[0]
    assert torch.equal(state(first), state(second))
    assert first.sha256 == second.sha256 == sha256_of(tmp_path / "two" / "prior.safetensors")
    assert first.remark == second.remark  # a report doesn't depend on what lay in a cache


def test_the_cache_is_private(scan, tmp_path) -> None:
    scan("one")
    modes = {
        path.stat().st_mode & 0o777 for path in (tmp_path / "cache", tmp_path / "cache/priors")
    }
    assert modes == {0o700}
    weights, note = sorted(shelf(tmp_path), key=lambda path: path.suffix, reverse=True)
    assert weights.stat().st_mode & 0o777 == 0o600
    assert weights.with_suffix(".json").stat().st_mode & 0o777 == 0o600
    assert json.loads(note.read_text())["sha256"] == sha256_of(weights)


def test_without_the_cache_nothing_is_taken_and_nothing_kept(scan, tmp_path) -> None:
    scan("one", cache=False)
    assert not (tmp_path / "cache").exists()
    scan("one")
    scan("two", cache=False)
    assert len(scan.said) == 3


@pytest.mark.parametrize(
    "other",
    [
        replace(TASK, images=IMAGES.flip(3)),
        replace(TASK, rng=Rng(2)),
        replace(TASK, training=replace(TASK.training, batch=5)),
        replace(TASK, shape=PriorShape(32, 6, 8, "residual")),
    ],
)
def test_other_pictures_seeds_settings_or_shapes_are_trained_anew(scan, other) -> None:
    first = scan("one")
    second = scan("two", other)
    assert len(scan.said) == 3
    assert first.sha256 != second.sha256


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("suffix", "harm"),
    [
        (".safetensors", _flip),
        (".safetensors", lambda path: path.write_bytes(path.read_bytes()[:-9])),
        (".safetensors", lambda path: path.unlink()),
        (".json", lambda path: path.unlink()),
        (".json", lambda path: path.write_text("[]")),
        (".json", lambda path: path.write_bytes(b"\xff")),
    ],
)
def test_a_damaged_entry_is_made_again_and_then_whole(scan, tmp_path, suffix, harm) -> None:
    first = scan("one")
    harm(next(path for path in shelf(tmp_path) if path.suffix == suffix))
    assert scan("two").sha256 == first.sha256
    assert len(scan.said) == 3
    scan("three")
    assert scan.said == []


def test_an_entry_under_another_ones_name_is_not_taken(scan, tmp_path) -> None:
    scan("one")
    other = replace(TASK, rng=Rng(2))
    for path in shelf(tmp_path):
        path.rename(path.with_name(other.key + path.suffix))
    scan("two", other)
    assert len(scan.said) == 3


def test_a_cache_that_cant_be_had_stops_nothing(scan, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path / "file"))
    found = scan("one")
    assert any("not cached" in note for note in scan.notes)
    assert len(scan.said) == 3 and found.sha256

    def full(*_, **__):
        raise RunError("Can't write the file: No space left on device")

    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path / "cache"))
    real = priors.atomic_write
    monkeypatch.setattr(priors, "atomic_write", full)
    assert scan("two").sha256 == found.sha256
    assert any("No space left" in note for note in scan.notes)
    monkeypatch.setattr(priors, "atomic_write", real)


def test_resume_takes_the_run_folders_own_if_it_is_of_this_very_training(scan) -> None:
    first = scan("one", cache=False)
    again = scan("one", cache=False, resume=True)
    assert scan.said == [] and again.sha256 == first.sha256
    assert again.remark == first.remark
    scan("one", replace(TASK, rng=Rng(2)), cache=False, resume=True)
    assert len(scan.said) == 3  # another seed is another training, whatever lies there


def test_what_killed_writers_left_long_ago_is_swept(scan, tmp_path) -> None:
    folder = tmp_path / "cache" / "priors"
    folder.mkdir(parents=True)
    old, new, mine = (folder / name for name in (".a.0123456789ab.tmp", ".b.0123456789ab.tmp", "c"))
    for path in (old, new, mine):
        path.write_text("")
    os.utime(old, (1, 1))
    os.utime(mine, (1, 1))
    scan("one")
    assert not old.exists() and new.exists() and mine.exists()


def test_the_platforms_folder_is_used_where_none_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("LEAKAUDIT_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "leakaudit"
    assert cache_folder("priors") == tmp_path / "xdg" / "leakaudit" / "priors"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard says: to be ignored
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "leakaudit"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_dir() == tmp_path / "Library" / "Caches" / "leakaudit"


def test_what_is_left_follows_the_pace_since_the_training_went_on(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Countdown(1000)
    now[0] += 2.0
    assert clock.left(801) == "7 min"  # resumed at 800: two seconds a step
    now[0] += 8.0
    assert clock.left(900) == "10 s"


def test_what_is_left_of_a_training_that_tells_only_now_and_then(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = Countdown(600, begun=0)
    now[0] += 5.0
    assert clock.left(50) == "55 s"
