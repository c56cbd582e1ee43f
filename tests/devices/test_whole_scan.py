"""A whole scan on the simulated device against the same one on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audit.toy_subject import Pooling, cheapen, toy_plan, toy_subject
from simulated import accelerator

from leakaudit.audit.run import Audit
from leakaudit.audit.scan import ScanOptions, scan
from leakaudit.audit.store import RunStore
from leakaudit.maths.chunks import at_most
from leakaudit.models.subject import Known

LOOSE = 2e-2
"""A search multiplies rounding: pictures that differ in the last bit move its scores as far."""

FEW = {"attacked": 8, "gallery": 12}


def subject():
    """The toy, with other pictures of its people, so that all threat models are there."""
    made = toy_subject(**FEW)
    return replace(made, known=Known(made.public[:24], torch.arange(12).repeat_interleave(2)))


def quick(plan):
    """With a short last search, whose small operations take long here."""
    return replace(
        plan,
        attacks=tuple(
            replace(a, widening=replace(a.widening, steps=2))
            if a.name == "whitebox-latent" else a
            for a in plan.attacks
        ),
    )  # fmt: skip


def scanned(folder, *, device=None, most=None, resume=False, plan=None):
    folder.mkdir(exist_ok=True)
    found = subject() if device is None else subject().on(device)
    plan = plan or quick(toy_plan(folder, "crafter", steps=12))
    store = RunStore(folder / "run", resume=resume)
    with at_most(most):
        result = scan(found, plan, store, ScanOptions(gallery="full"), lambda what, share: None)
    return result, store


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpu")
    with pytest.MonkeyPatch.context() as patch:
        cheapen(patch, folder)
        yield scanned(folder)[0]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch, tmp_path):
    cheapen(monkeypatch, tmp_path)


def numbers(result):
    rows = {
        (s.defence, s.attack, s.metric): (s.value, s.low, s.high, s.floor) for s in result.scores
    }
    return rows | {(u.defence, u.metric): (u.value, u.drop) for u in result.utility}


def assert_same(found, expected, *, within):
    a, b = numbers(found), numbers(expected)
    assert a.keys() == b.keys()
    for row, values in a.items():
        exact = row[-1].startswith(("identification", "verification"))
        far = LOOSE if {"whitebox-latent", "worst", "worst-static", "chosen"} & set(row) else within
        for x, y in zip(values, b[row], strict=True):
            assert (x is None) == (y is None), row
            if x is not None:
                near = 1e-9 if exact else far * max(1.0, abs(y))
                assert abs(x - y) <= near, (row, x, y)
    assert {d.id for d in found.doubts} == {d.id for d in expected.doubts}
    passes = [(c.defence, c.attack, c.encoder_passes) for c in expected.convergence]
    assert [(c.defence, c.attack, c.encoder_passes) for c in found.convergence] == passes


def test_a_scan_on_a_device_gives_the_cpus_result_and_says_where_it_ran(on_cpu, tmp_path):
    with accelerator() as device:
        found, _ = scanned(tmp_path / "there", device=device)
    assert (on_cpu.device, found.device) == ("cpu", "sim:0")
    assert_same(found, on_cpu, within=1e-5)
    assert len(found.gallery) == len(on_cpu.gallery) > 0


def test_stages_of_one_device_are_not_taken_up_on_another(tmp_path):
    """Rounding differs, so a run that changes its device starts over."""
    with accelerator() as device:
        made = toy_plan(tmp_path, "gaussian:sigma=0.5", steps=12)
        store = RunStore(tmp_path / "run", resume=True)
        keys = {
            Audit(found, made, store, lambda what, share: None)._identity
            for found in (toy_subject(**FEW), toy_subject(**FEW).on(device))
        }
    assert len(keys) == 2


@pytest.mark.slow
def test_a_resumed_scan_on_a_device_takes_its_own_stages_from_the_cpus_files(on_cpu, tmp_path):
    with accelerator() as device:
        first, _ = scanned(tmp_path / "again", device=device)
        second, store = scanned(tmp_path / "again", device=device, resume=True)
    assert store.reused > 0
    assert numbers(first) == numbers(second)


def test_the_documents_own_attack_and_defence_run_on_a_device(tmp_path):
    examples = Path(__file__).resolve().parents[2] / "docs" / "examples"
    plan = toy_plan(
        tmp_path,
        f"{examples / 'my_defence.py'}:hide",
        attacks=[f"{examples / 'my_attack.py'}:ridge"],
    )
    here, _ = scanned(tmp_path / "here", plan=plan)
    with accelerator() as device:
        there, _ = scanned(tmp_path / "there", plan=plan, device=device)
    assert_same(there, here, within=1e-5)


@pytest.mark.parametrize("most", [pytest.param(1, marks=pytest.mark.slow), 7, 64])
def test_how_many_faces_go_through_a_network_at_once_changes_no_score(
    on_cpu, tmp_path, monkeypatch, most
):
    seen = []

    def watched(self, x):
        seen.append(len(x))
        return self.mix(x)

    monkeypatch.setattr(Pooling, "forward", watched)
    found, _ = scanned(tmp_path / "bounded", most=most)
    assert_same(found, on_cpu, within=1e-5)
    assert max(seen[1:]) <= most  # the first are for the toy's own truth
