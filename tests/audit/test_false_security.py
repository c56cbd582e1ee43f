"""Planted defences through the whole audit: what only fools a fixed attack is found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.toy_subject import cheapen, toy_subject
from leakaudit.audit import run
from leakaudit.audit.plan import make_plan
from leakaudit.audit.scan import ScanOptions, scan
from leakaudit.audit.store import RunStore
from leakaudit.core.types import Result

PLANTED = Path(__file__).parent.parent / "planted.py"
PRESET = """
[attacks.blackbox-decoder]
training.steps = 60
training.batch = 16
training.rate = 0.01
[attacks.blackbox-ridge]
pairs = 80
[attacks.adaptive-ridge]
queries = 80
pairs = 80
[attacks.adaptive-averaging]
queries = 40
releases = 16
pairs = 80
"""
ALL = ("blackbox-decoder", "blackbox-ridge", "adaptive-ridge", "adaptive-averaging")


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    cheapen(monkeypatch, tmp_path)
    preset = tmp_path / "planted.toml"

    def audit(
        planted: str, *gates: str, attacks: tuple[str, ...] = ALL, queries: int = 80
    ) -> Result:
        text = PRESET.replace("queries = 80", f"queries = {queries}")
        preset.write_text(text, encoding="utf-8")
        plan = make_plan(
            preset=str(preset), defences=[f"{PLANTED}:{planted}"], attacks=list(attacks), seed=0,
            has_prior=False, has_head=False,
        )  # fmt: skip
        subject = toy_subject(prior=False, head=False)
        store = RunStore(tmp_path / "run", resume=False)
        return scan(subject, plan, store, ScanOptions(gates=gates), lambda what, share: None)

    return audit


def named(result: Result, row: str) -> float:
    label = list(result.plan["defences"])[1]
    found = result.score(label, row, "identification")
    assert found is not None and found.value is not None
    return found.value


def test_a_scrambled_feature_looks_safe_to_static_attacks_and_is_called_false_security(
    audited,
) -> None:
    result = audited("permuted", "worst.identification>0.3")
    assert named(result, "worst-static") < 0.3
    assert named(result, "worst-adaptive") > 0.8
    gaps = [row for row in result.comparisons if row.kind == "false-security"]
    assert any(row.low is not None and row.low > 0.3 for row in gaps)
    assert result.verdict.status == "fail"


def test_a_cheap_defence_is_asked_more_often_than_the_preset_says(
    audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation holds out against few queries, which cost the adversary nothing here."""
    attacks = ("blackbox-ridge", "adaptive-ridge")
    result = audited("rotated", "worst.identification>0.5", attacks=attacks, queries=8)
    assert named(result, "adaptive-ridge") > 0.8 and result.verdict.status == "fail"
    (row,) = (c for c in result.convergence if c.attack == "adaptive-ridge")
    assert row.queries > 50
    assert "few-queries" in {doubt.id for doubt in result.doubts}  # the toy's public ones are few
    monkeypatch.setattr(run, "CHEAP_SECONDS", 0.0)  # others' code that is slow
    dear = audited("rotated", attacks=attacks, queries=8)
    (row,) = (c for c in dear.convergence if c.attack == "adaptive-ridge")
    assert row.queries == 8 and named(dear, "adaptive-ridge") < 0.5


def test_independent_noise_falls_to_averaging(audited) -> None:
    result = audited("fresh_noise:sigma=3")
    single = max(named(result, "blackbox-ridge"), named(result, "adaptive-ridge"))
    assert named(result, "adaptive-averaging") > single + 0.2


def test_a_random_defence_without_averaging_is_doubted(audited) -> None:
    result = audited("fresh_noise", attacks=("blackbox-ridge", "adaptive-ridge"))
    assert "averaging-not-run" in {doubt.id for doubt in result.doubts}


def test_a_shuffled_batch_is_audited_one_by_one_and_said(audited) -> None:
    result = audited("shuffled_batch")
    assert "rows-moved" in {doubt.id for doubt in result.doubts}
    assert named(result, "worst") > 0.8


def test_an_empty_release_names_nobody_and_is_not_called_dependent(audited) -> None:
    result = audited("constant", "worst.identification>0.5")
    assert named(result, "worst") < 0.3
    assert "dependence-unexplained" not in {doubt.id for doubt in result.doubts}
