import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leakaudit.core.errors import RunError, UnknownNameError, UsageError
from leakaudit.core.files import atomic_write, sweep
from leakaudit.core.resources import resource, resource_dir


def _package(tmp_path: Path, *, project: str | None) -> Path:
    package = tmp_path / "leakaudit"
    package.mkdir()
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "quick.toml").write_text("")
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(project)
    return package


def test_the_templates_of_this_install_are_found():
    assert resource("templates", "report.html.j2").read_text(encoding="utf-8")


def test_a_folder_inside_the_package_comes_first(tmp_path):
    package = _package(tmp_path, project='[project]\nname = "leakaudit"\n')
    (package / "presets").mkdir()
    assert resource_dir("presets", package=package) == package / "presets"


def test_a_checkout_is_known_by_its_pyproject(tmp_path):
    package = _package(tmp_path, project='[project]\nname = "leakaudit"\n')
    assert resource("presets", "quick.toml", package=package).parent == tmp_path / "presets"


@pytest.mark.parametrize("project", [None, '[project]\nname = "other"\n', "project = 3\n", "[["])
def test_a_neighbour_folder_of_somebody_else_is_not_believed(tmp_path, project):
    package = _package(tmp_path, project=project)
    with pytest.raises(RunError, match="missing"):
        resource_dir("presets", package=package)


def test_an_unknown_name_is_told_with_the_nearest_one(tmp_path):
    package = _package(tmp_path, project='[project]\nname = "leakaudit"\n')
    with pytest.raises(UnknownNameError, match=r"preset 'quik.toml'.*quick.toml"):
        resource("presets", "quik.toml", package=package)


@pytest.mark.parametrize(
    "name", ["", "..", "../pyproject.toml", "/etc/passwd", "a\\b", "c:x", "\0"]
)
def test_a_name_that_leaves_the_folder_is_a_usage_error(name):
    with pytest.raises(UsageError, match="bare file name"):
        resource("templates", name)


def test_a_written_file_holds_the_text_and_nothing_lies_beside_it(tmp_path):
    path = tmp_path / "new" / "result.json"
    atomic_write(path, "β\n")
    atomic_write(path, "γ\n")
    assert path.read_bytes() == "γ\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_no_space_leaves_the_old_file_and_no_partial_one(tmp_path, monkeypatch, step):
    path = tmp_path / "result.json"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(RunError, match=r"No space left.*result\.json.*Free some space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_an_interruption_while_writing_leaves_no_partial_file(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "result.json", "new")
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_writer_has_begun_is_not_taken_for_a_rest(tmp_path, monkeypatch):
    seen = []
    wait = os.fsync

    def look(handle):
        wait(handle)
        seen.extend(tmp_path.glob(".shard.*.tmp"))
        sweep(tmp_path)

    monkeypatch.setattr(os, "fsync", look)
    atomic_write(tmp_path / "shard", "new")
    (name,) = [path.name for path in seen]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = tmp_path / name.replace(f"{os.getpid():08x}", f"{ended.pid:08x}")
    elsewhere = tmp_path / name.replace(name.split(".")[2][:6], "0" * 6)
    for path in (dead, elsewhere):
        path.write_text("half")
    sweep(tmp_path)
    assert not dead.exists() and elsewhere.exists()
    os.utime(elsewhere, (0, 0))
    sweep(tmp_path)
    assert not elsewhere.exists()


@pytest.mark.parametrize("times", [1, 4])
def test_who_sweeps_a_half_written_file_away_only_delays_it(tmp_path, monkeypatch, times):
    """Two processes at one shard: each takes what lies there for an interrupted one's rest."""
    left = [times]
    wait = os.fsync

    def swept(handle):
        wait(handle)
        if left[0] > 0:
            left[0] -= 1
            for beside in tmp_path.glob(".shard*.tmp"):
                beside.unlink()

    monkeypatch.setattr(os, "fsync", swept)
    assert atomic_write(tmp_path / "shard", "new").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["shard"]


def test_a_folder_that_is_swept_for_ever_is_a_run_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: [b.unlink() for b in tmp_path.glob(".shard*.tmp")])
    with pytest.raises(RunError, match="Can't write the file"):
        atomic_write(tmp_path / "shard", "new")


def test_a_folder_in_the_way_is_a_run_error_that_names_it(tmp_path):
    with pytest.raises(RunError, match="Name a file in a folder") as caught:
        atomic_write(tmp_path, "text")
    assert caught.value.where == str(tmp_path)


def test_a_link_stays_a_link(tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "real.json")
    atomic_write(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "real.json").read_text() == "text"


def test_a_device_is_written_to_and_not_replaced():
    atomic_write(os.devnull, "text")
    assert not Path(os.devnull).is_file()
