"""Protected features on disk: the same bytes however it is run, and nothing mixed or left open."""

import hashlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audit.edges import (
    QUICK,
    Fragile,
    Small,
    edge,
    frozen,
    pictures,
    small_prior,
    write_networks,
    write_pictures,
)  # fmt: skip
from leakaudit.audit import out_folder
from leakaudit.audit.edge import Edge
from leakaudit.audit.export import ExportOptions, export, parts_of
from leakaudit.audit.out_folder import OutFolder, read_manifest
from leakaudit.audit.plan import NamedDefence
from leakaudit.audit.recipe import Kit, facts_of
from leakaudit.audit.shards import read_shard, shard_bytes
from leakaudit.audit.sources import TensorSource
from leakaudit.core.errors import InputError, RunError, UnknownNameError, UsageError
from leakaudit.core.keys import pseudonym, seed_key
from leakaudit.core.rng import Rng
from leakaudit.defences.noise import GaussianNoise

COUNT = 11
ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("export_driver.py")


@pytest.fixture(scope="module")
def kit() -> Kit:
    at_edge = edge()
    named = NamedDefence("crafter:beta=2", at_edge.defence)
    return Kit(at_edge, named.label, facts_of(at_edge, named, secret=seed_key(1), seed=1))


@pytest.fixture(scope="module")
def noisy() -> Kit:
    """What is protected at once, for tests of the files."""
    how = GaussianNoise(0.5)
    at_edge = Edge(frozen(Small()), small_prior(), how, seed_key(1))
    named = NamedDefence("gaussian", how)
    return Kit(at_edge, named.label, facts_of(at_edge, named, secret=seed_key(1), seed=1))


@pytest.fixture(scope="module")
def source() -> TensorSource:
    return TensorSource(pictures(COUNT), tuple(f"face {k:02d}" for k in range(COUNT)))


OPTIONS = ExportOptions(shard_size=3)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but what an interrupted writing leaves beside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def whole(kit, source, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "out"
    export(kit, source, folder, OPTIONS)
    return contents(folder)


def test_the_whole_is_there_and_read_back(kit, source, whole, tmp_path):
    manifest = export(kit, source, tmp_path / "out", OPTIONS)
    assert contents(tmp_path / "out") == whole
    assert manifest["complete"]
    assert len(manifest["shards"]) == 4
    expected = kit.edge.protect(pictures(COUNT))
    found = [read_shard("safetensors", tmp_path / "out" / s["file"]) for s in manifest["shards"]]
    shown = {pseudonym(seed_key(1), f"face {k:02d}"): k for k in range(COUNT)}
    good = [shown[name] for name in sorted(shown) if shown[name] not in expected.faults]
    assert torch.equal(torch.cat([features for features, _ in found]), expected.features[good])
    names = [name for _, part in found for name in part]
    assert [shown[name] for name in names] == good


def test_a_rows_place_tells_nothing_of_its_name_unless_names_are_kept(noisy, source, tmp_path):
    """Whoever knows the list of files would name row k by its place, without the key."""
    manifest = export(noisy, source, tmp_path / "out", OPTIONS)
    assert manifest["made_with"]["order"] == "by pseudonym"
    rows = [read_shard("safetensors", tmp_path / "out" / s["file"])[1] for s in manifest["shards"]]
    shown = [name for part in rows for name in part]
    assert shown == sorted(shown) and len(shown) == COUNT
    kept = replace(OPTIONS, keep_names=True)
    manifest = export(noisy, source, tmp_path / "kept", kept)
    assert manifest["made_with"]["order"] == "by name"
    rows = [read_shard("safetensors", tmp_path / "kept" / s["file"])[1] for s in manifest["shards"]]
    assert [name for part in rows for name in part] == list(source.names)


def test_a_manifest_tells_what_it_was_made_with(whole):
    manifest = json.loads(whole["manifest.json"])
    made = manifest["made_with"]
    assert made["defence"]["settings"]["beta"] == 2.0
    assert made["block"] == 4
    assert (made["seed"], made["key_id"]) == (1, None)
    assert made["feature_shape"] == [8, 8, 8]
    assert made["dtype"] == "float32"
    assert manifest["machines"][0]["torch"] == torch.__version__
    assert manifest["machines"][0]["threads"] == torch.get_num_threads()
    for shard in manifest["shards"]:
        assert shard["sha256"] == hashlib.sha256(whole[shard["file"]]).hexdigest()
    assert 0 < manifest["losses"]["privacy_loss"] < 5


def test_mean_losses_are_those_of_the_rows_that_told_them(kit, tmp_path, monkeypatch):
    """A block in which every row fails tells none, and takes none from the others'."""
    faces = pictures(8)
    fragile = replace(kit, edge=edge(Fragile()))
    sound = fragile.edge.protect(faces[:4]).loss("privacy_loss").mean()
    sick = faces.clone()
    sick[4:, :, 0, 0] = 1.0
    source = TensorSource(sick, tuple(f"face {k}" for k in range(8)))
    one = ExportOptions(shard_size=8)
    manifest = export(fragile, source, tmp_path / "out", one)
    assert manifest["rows"] == 4 and len(manifest["failures"]) == 4
    assert manifest["losses"]["privacy_loss"] == pytest.approx(float(sound), rel=1e-6)
    manifest = export(fragile, source, tmp_path / "more", replace(one, shard_size=4))
    assert manifest["losses"]["privacy_loss"] == pytest.approx(float(sound), rel=1e-6)


def test_nothing_written_holds_a_name_the_key_or_a_time(whole):
    text = b"".join(whole.values())
    assert b"face 0" not in text
    assert seed_key(1).hex().encode() not in text
    assert seed_key(1) not in text
    assert time.strftime("%Y-%m-%d").encode() not in text


def test_no_undefended_feature_is_written(kit, whole):
    clean = kit.edge.encoder(pictures(COUNT))
    text = b"".join(whole.values())
    assert not any(row.numpy().tobytes() in text for row in clean)


@pytest.mark.parametrize("parts", [2, 5])
def test_parts_together_equal_the_whole(kit, source, whole, tmp_path, parts):
    for part in random.sample(range(1, parts + 1), parts):
        export(kit, source, tmp_path / "out", replace(OPTIONS, shard=(part, parts)))
    assert contents(tmp_path / "out") == whole


def test_parts_of_several_folders_are_put_together(kit, source, whole, tmp_path):
    for part in (1, 2):
        export(kit, source, tmp_path / str(part), replace(OPTIONS, shard=(part, 2)))
    for path in (tmp_path / "2").rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            path.rename(tmp_path / "1" / path.relative_to(tmp_path / "2"))
    export(kit, source, tmp_path / "1", OPTIONS)
    assert contents(tmp_path / "1") == whole


def test_a_part_alone_says_that_it_is_not_complete(noisy, source, tmp_path):
    assert not export(noisy, source, tmp_path / "o", replace(OPTIONS, shard=(1, 2)))["complete"]


class Stopped(BaseException):
    """As from outside: nothing may catch it."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("turn", range(10))
def test_stopped_at_any_writing_it_goes_on_to_the_same_bytes(
    noisy, source, tmp_path, monkeypatch, turn, after
):
    """Ten writings: manifest (by a link), four shards with records, manifest; before and after."""
    count = [0]

    def stopping(real):
        def put(a, b):
            count[0] += 1
            if count[0] == turn + 1 and not after:
                raise Stopped
            real(a, b)
            if count[0] == turn + 1:
                raise Stopped

        return put

    with monkeypatch.context() as during:
        for name in ("link", "replace"):
            during.setattr(os, name, stopping(getattr(os, name)))
        with pytest.raises(Stopped):
            export(noisy, source, tmp_path / "out", OPTIONS)
    export(noisy, source, tmp_path / "out", OPTIONS)
    export(noisy, source, tmp_path / "whole", OPTIONS)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_finished_shards_are_not_made_again(kit, source, tmp_path, monkeypatch):
    export(kit, source, tmp_path / "out", replace(OPTIONS, shard=(1, 2)))
    protected = []
    real = kit.edge.protect
    monkeypatch.setattr(kit.edge, "protect", lambda x: protected.append(len(x)) or real(x))
    export(kit, source, tmp_path / "out", OPTIONS)
    assert sum(protected) == 3 + 2  # the second and fourth shard
    export(kit, source, tmp_path / "out", OPTIONS)
    assert sum(protected) == 3 + 2


def test_a_damaged_shard_is_made_again(noisy, source, tmp_path):
    out = tmp_path / "out"
    export(noisy, source, out, OPTIONS)
    before = contents(out)
    shard = out / "shard-00001-of-00004.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    export(noisy, source, out, OPTIONS)
    assert contents(out) == before


@pytest.mark.parametrize("told", ["{}", "[]", "", '{"job": 3}'])
def test_a_damaged_record_is_made_again(noisy, source, tmp_path, told):
    out = tmp_path / "out"
    export(noisy, source, out, OPTIONS)
    before = contents(out)
    next((out / "records").iterdir()).write_text(told)
    export(noisy, source, out, OPTIONS)
    assert contents(out) == before


def test_a_lost_manifest_is_written_again_and_shards_are_kept(noisy, source, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export(noisy, source, out, OPTIONS)
    before = contents(out)
    (out / "manifest.json").unlink()
    monkeypatch.setattr(type(noisy.edge), "protect", None)  # nothing is protected again
    export(noisy, source, out, OPTIONS)
    assert contents(out) == before


def test_without_its_manifest_a_folder_of_another_job_is_left_alone(noisy, source, tmp_path):
    out = tmp_path / "out"
    export(noisy, source, out, OPTIONS)
    (out / "manifest.json").unlink()
    with pytest.raises(UsageError, match="other files"):
        export(noisy, source, out, replace(OPTIONS, shard_size=4))


@pytest.mark.parametrize("without", ["shards", "made_with", "rows"])
def test_a_damaged_manifest_says_what_to_do(noisy, source, tmp_path, without):
    out = tmp_path / "out"
    export(noisy, source, out, OPTIONS)
    told = json.loads((out / "manifest.json").read_text())
    del told[without]
    (out / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="no manifest") as refused:
        export(noisy, source, out, OPTIONS)
    assert "finished shards are kept" in str(refused.value.todo)


@pytest.mark.parametrize(
    "name", [".shard-00000-of-00004.safetensors.abc.tmp", ".manifest.json.000000000000.tmp"]
)
def test_what_a_kill_leaves_beside_a_shard_or_manifest_is_taken_away(noisy, source, tmp_path, name):
    out = tmp_path / "out"
    export(noisy, source, out, replace(OPTIONS, shard=(2, 4)))
    left = out / name
    left.write_bytes(b"half")
    export(noisy, source, out, OPTIONS)
    assert not left.exists()


def test_of_two_jobs_that_look_into_an_empty_folder_together_one_is_refused(
    noisy, kit, source, tmp_path, monkeypatch
):
    """Both opened it before either had written its manifest."""
    out = tmp_path / "out"
    first = OutFolder.open

    def beside(folder, facts, job):
        first(folder, facts, job)
        monkeypatch.setattr(OutFolder, "open", first)
        export(kit, source, out, OPTIONS)  # the other one, to its end

    monkeypatch.setattr(OutFolder, "open", beside)
    with pytest.raises(UsageError, match="made with something else"):
        export(noisy, source, out, OPTIONS)
    monkeypatch.setattr(OutFolder, "open", first)
    kept = read_manifest(out)
    assert kept["complete"]
    for shard in kept["shards"]:
        assert hashlib.sha256((out / shard["file"]).read_bytes()).hexdigest() == shard["sha256"]


def test_files_are_private(noisy, source, tmp_path):
    out = tmp_path / "deep" / "out"
    export(noisy, source, out, OPTIONS)
    for path in (out, *out.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_other_work_is_refused_and_what_differs_is_said(kit, source, tmp_path):
    out = tmp_path / "out"
    export(kit, source, out, OPTIONS)
    facts = {**kit.facts, "block": 5}
    cases = (
        ((replace(kit, facts=facts), source, OPTIONS), "block was 4 and is 5"),
        ((kit, source, replace(OPTIONS, format="npz")), 'format was "safetensors" and is "npz"'),
        ((kit, source, replace(OPTIONS, keep_names=True)), 'names was "pseudonyms" and is "kept"'),
        (
            (kit, TensorSource(pictures(5), tuple("abcde")), OPTIONS),
            "count was 11 and is 5",
        ),
    )
    before = contents(out)
    for (other, pics, options), told in cases:
        with pytest.raises(UsageError, match=told):
            export(other, pics, out, options)
    assert contents(out) == before


def test_changed_pictures_are_refused(noisy, source, tmp_path):
    out = tmp_path / "out"
    export(noisy, source, out, OPTIONS)
    changed = pictures(COUNT)
    changed[4] = 1 - changed[4]
    place = sorted(pseudonym(seed_key(1), name) for name in source.names)
    shard = place.index(pseudonym(seed_key(1), source.names[4])) // OPTIONS.shard_size
    with pytest.raises(UsageError, match=f"Pictures of shard-{shard:05d}-of-00004"):
        export(noisy, TensorSource(changed, source.names), out, OPTIONS)


def test_a_folder_with_other_files_is_left_alone(kit, source, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        export(kit, source, tmp_path, OPTIONS)
    assert [p.name for p in tmp_path.iterdir()] == ["diary.txt"]


def test_a_full_disk_is_said_and_what_stands_stays(kit, source, whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    real, count = out_folder.atomic_write, [0]

    def full(path, data, *, mode):
        count[0] += 1
        if count[0] == 5:
            raise RunError("Can't write the file: No space left on device")
        return real(path, data, mode=mode)

    monkeypatch.setattr(out_folder, "atomic_write", full)
    with pytest.raises(RunError, match="No space"):
        export(kit, source, out, OPTIONS)
    monkeypatch.setattr(out_folder, "atomic_write", real)
    export(kit, source, out, OPTIONS)
    assert contents(out) == whole


def test_faces_that_fail_are_listed_and_not_written(kit, tmp_path):
    faces = pictures(4)
    faces[2, 0, 0, 0] = float("nan")
    names = ("a", "b", "c", "d")
    manifest = export(kit, TensorSource(faces, names), tmp_path / "out", OPTIONS)
    told = {failure["name"]: failure["reason"] for failure in manifest["failures"]}
    assert "not finite" in told[pseudonym(seed_key(1), "c")]
    assert manifest["rows"] == 4 - len(told)


def test_nothing_protected_is_an_error(kit, tmp_path):
    faces = torch.full((2, 3, 32, 32), float("nan"))
    with pytest.raises(InputError, match="None of the pictures"):
        export(kit, TensorSource(faces, ("a", "b")), tmp_path / "out", OPTIONS)
    assert read_manifest(tmp_path / "out")["rows"] == 0


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_parts_that_are_none(text):
    with pytest.raises(UsageError):
        ExportOptions(shard=parts_of(text))


# -- formats -------------------------------------------------------------------------------------

FORMATS = ["safetensors", "npz", "parquet"]


def some_rows(count: int = 5) -> tuple[torch.Tensor, list[str]]:
    features = torch.randn(count, 3, 2, 2, generator=Rng(0).torch())
    return features, [f"näme {k}" for k in range(count)]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_format_gives_back_what_it_took_in_the_same_bytes(kind, count, tmp_path):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    features, names = some_rows(count)
    data = shard_bytes(kind, features, names)
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    back, told = read_shard(kind, path)
    assert torch.equal(back, features)
    assert told == names
    assert shard_bytes(kind, features, names) == data


def test_an_npz_tells_no_time(monkeypatch):
    features, names = some_rows()
    first = shard_bytes("npz", features, names)
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert shard_bytes("npz", features, names) == first


def test_numpy_reads_an_npz_by_itself(tmp_path):
    features, names = some_rows()
    (tmp_path / "x.npz").write_bytes(shard_bytes("npz", features, names))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert np.array_equal(file["features"], features.numpy())


def test_parquet_without_its_library_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pip install 'pyarrow"):
        ExportOptions(format="parquet")


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UnknownNameError, match="safetensors"):
        ExportOptions(format="safetensor")


def test_a_shard_that_cannot_be_read_is_an_input_error(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\1")
    with pytest.raises(InputError, match="can't be read"):
        read_shard("safetensors", path)


# -- killed --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(tmp_path):
    """Five kills of the command, then a new process to the end, beside an uninterrupted one."""
    write_pictures(tmp_path / "pictures", 36)
    encoder, prior = write_networks(tmp_path)
    arguments = ["protect", "--encoder", encoder, "--layer", "last", "--seed", "3", "-q"]
    arguments += ["--images", str(tmp_path / "pictures"), "--prior", str(prior)]
    arguments += ["--defence", QUICK, "--beta", "2", "--input-size", "32"]
    arguments += ["--shard-size", "2", "--batch-size", "4"]  # blocks that a shard doesn't fill
    driver = [sys.executable, str(DRIVER), str(tmp_path), *arguments]
    done = subprocess.run(driver, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert [run["status"] for run in told] == [-signal.SIGKILL] * 5
    assert told[-1]["shards"] < 18
    whole = [sys.executable, "-m", "leakaudit", *arguments, "--out", str(tmp_path / "killed")]
    subprocess.run(whole, cwd=ROOT, stderr=subprocess.DEVNULL, check=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert json.loads(contents(tmp_path / "killed")["manifest.json"])["complete"]
