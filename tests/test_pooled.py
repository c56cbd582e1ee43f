"""Several runs of Crafter's benchmark put together: shares, drops, and what isn't pooled."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from leakaudit.models.faces import Faces

FOLDER = Path(__file__).parents[1] / "benchmarks"
PATH = FOLDER / "pooled.py"
NETWORKS = {"encoder": "e", "prior": "p", "settings": {"beta": 1.0}}


def _kept(
    path: Path, pictures: str, *, swapped: int, networks: dict[str, Any] = NETWORKS, more: int = 0
) -> str:
    """A run of 40 pictures of 20 people: the paper's names half of them, ours eight fewer.

    The head's AUC is 1; ours gets ``swapped`` of 20 pairs of one attribute wrong. The gallery holds
    ``more`` people before the 20.
    """
    people = torch.arange(40) // 2 + more
    names = (*(f"a{k}" for k in range(more)), *(f"person-{k:02d}" for k in range(20)))
    truth = (torch.arange(40) % 2).float().unsqueeze(1)
    right = 2 * truth - 1 + torch.linspace(0, 0.1, 40).unsqueeze(1)
    ours = right.clone()
    ours[: 2 * swapped] *= -1
    theirs = torch.arange(40) % 4 < 2
    fewer = theirs & (torch.arange(40) >= 16)
    rows = {"crafter:beta=1": (fewer, ours), "crafter-paper": (theirs, right)}
    run = {"people": people, "names": names, "truth": truth}
    run |= {"undefended": right, "rows": rows}
    torch.save({"about": {**networks, "pictures": pictures}, **run}, path)
    return str(path)


def _said(*kept: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", ["pooled.py", *kept])
    runpy.run_path(str(PATH), run_name="__main__")
    return capsys.readouterr().out


def test_runs_are_put_together_person_by_person(tmp_path, monkeypatch, capsys):
    one = _kept(tmp_path / "1.pt", "a", swapped=0)
    other = _kept(tmp_path / "2.pt", "b", swapped=20, more=3)  # the same 20, at other places
    told = _said(one, other, monkeypatch=monkeypatch, capsys=capsys)
    assert told.startswith("80 pictures of 20 people in 2 runs\n")
    assert "crafter-paper: named +0.5000" in told
    assert "crafter:beta=1: named +0.3000" in told and "drop +0.5000" in told
    assert "less the paper's: named -0.2000 [-0.4" in told


def test_pictures_before_a_place_are_left_out(tmp_path, monkeypatch, capsys):
    one = _kept(tmp_path / "1.pt", "a", swapped=0)
    told = _said(f"{one}:16", monkeypatch=monkeypatch, capsys=capsys)
    assert told.startswith("24 pictures of 12 people in 1 runs\n")
    assert "less the paper's: named +0.0000" in told


def test_what_does_not_belong_together_is_refused(tmp_path, monkeypatch, capsys):
    one = _kept(tmp_path / "1.pt", "a", swapped=0)
    with pytest.raises(SystemExit, match="same pictures"):
        _said(one, one, monkeypatch=monkeypatch, capsys=capsys)
    other = _kept(tmp_path / "2.pt", "b", swapped=0, networks={**NETWORKS, "encoder": "f"})
    with pytest.raises(SystemExit, match="other networks"):
        _said(one, other, monkeypatch=monkeypatch, capsys=capsys)


@pytest.mark.parametrize(("start", "share"), [(0, "0.6667"), (2, "0.3333")])
def test_what_a_run_keeps_is_what_is_put_together(tmp_path, monkeypatch, capsys, start, share):
    monkeypatch.syspath_prepend(str(FOLDER))  # crafter.py imports its neighbours
    bench = runpy.run_path(str(FOLDER / "crafter.py"), run_name="crafter")
    truth = (torch.arange(8) % 2).float().unsqueeze(1)
    faces = Faces(
        torch.zeros(8, 3, 4, 4), torch.arange(8) // 2, ("a", "b", "c", "d"), truth, ("smiles",)
    )
    right, named, come = 2 * truth - 1, torch.arange(8) < 4, torch.arange(start, start + 6)
    judge = SimpleNamespace(subject=SimpleNamespace(faces=faces), told=right)
    found = {
        "crafter:beta=1": bench["Verdict"](named, 0.0, -right, torch.arange(8)),
        # As far as the paper's algorithm has come, in whatever order.
        "crafter-paper": bench["Verdict"](torch.ones(len(come)) > 0, 0.0, right[come], come),
    }
    bench["keep"](tmp_path / "kept.pt", judge, found, {**NETWORKS, "pictures": "a"})
    told = _said(str(tmp_path / "kept.pt"), monkeypatch=monkeypatch, capsys=capsys)
    assert told.startswith("6 pictures of 3 people in 1 runs\n")
    assert f"crafter:beta=1: named +{share}" in told and "drop +1.0000" in told
    assert "crafter-paper: named +1.0000" in told
