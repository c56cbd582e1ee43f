"""``python -m leakaudit.demo.build`` from nothing, on a few people and steps."""

from __future__ import annotations

import sys

import pytest

from leakaudit.demo import build, load
from leakaudit.models.oracle import OracleTraining
from leakaudit.models.prior import PriorTraining
from leakaudit.models.utility import HeadTraining


@pytest.mark.slow
def test_all_weights_are_made_from_nothing_and_load_with_a_log(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "PEOPLE", 6)
    monkeypatch.setattr(build, "PICTURES", 2)
    monkeypatch.setattr(build, "HEAD", HeadTraining(steps=2, batch=4))
    monkeypatch.setattr(build, "ORACLE", OracleTraining(steps=2, batch=4))
    monkeypatch.setattr(build, "PRIOR", PriorTraining(steps=3, batch=4))
    monkeypatch.setattr(sys, "argv", ["build", "--out", str(tmp_path / "weights")])
    build.main()
    said = capsys.readouterr().err
    assert "encoder accuracy" in said and "oracle names" in said and "RMSE" in said
    monkeypatch.setattr(load, "WEIGHTS", tmp_path / "weights")
    for name in load.FILES:
        assert not load._load(name).training
