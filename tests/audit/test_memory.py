"""A scan on a machine that can encode a few faces at once only, against one with room for all."""

from __future__ import annotations

import pytest
import torch

from audit.toy_subject import Pooling, toy_plan, toy_subject
from leakaudit.audit.run import Audit, guarded
from leakaudit.audit.scan import ScanOptions, scan
from leakaudit.audit.store import RunStore
from leakaudit.core.errors import RunError

ATTACKS = ["blackbox-decoder", "whitebox-latent"]


class Cramped(Pooling):
    """The same encoder with room for ``room`` faces; ``refused`` counts what was too much."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.refused = room, 0
        self.error: Exception = RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            self.refused += 1
            raise self.error
        return super().forward(x)


def audit(folder, encoder):
    folder.mkdir(exist_ok=True)
    plan = toy_plan(folder, "gaussian:sigma=0.2", attacks=ATTACKS, steps=12)
    store = RunStore(folder / "run", resume=False)
    subject = toy_subject(encoder, attacked=12, gallery=16)
    return scan(subject, plan, store, ScanOptions(), lambda what, share: None)


@pytest.mark.slow
def test_too_little_memory_for_a_batch_changes_no_score(tmp_path):
    cramped = Cramped(9)
    little, much = audit(tmp_path / "little", cramped), audit(tmp_path / "much", Pooling())
    assert cramped.refused > 0
    assert [(s.defence, s.attack, s.metric) for s in little.scores] == [
        (s.defence, s.attack, s.metric) for s in much.scores
    ]
    for mine, theirs in zip(little.scores, much.scores, strict=True):
        assert (mine.value is None) == (theirs.value is None)
        if theirs.value is not None:
            # A search in a few large steps makes more of a rounding than a forward pass does.
            near = 5e-3 if mine.attack == "whitebox-latent" or "worst" in mine.attack else 1e-3
            assert mine.value == pytest.approx(theirs.value, rel=near, abs=near), mine


def test_no_memory_for_a_single_face_is_said_as_such(tmp_path):
    with pytest.raises((RunError, RuntimeError), match="memory"):
        audit(tmp_path, Cramped(0))


def test_a_gpu_without_room_for_a_single_face_ends_with_four_and_says_what_to_do(tmp_path):
    encoder = Cramped(64)
    encoder.error = torch.OutOfMemoryError("CUDA out of memory")
    subject = toy_subject(encoder, attacked=12, gallery=16)
    plan = toy_plan(tmp_path, attacks=ATTACKS, steps=12)
    made = Audit(subject, plan, RunStore(tmp_path / "run", resume=False), lambda *_: None)
    encoder.room = 0
    words = r"--batch-size 8 or less.*--device cpu"
    with pytest.raises(RunError, match=words) as told, guarded(made) as audit:
        audit.measure(plan.defences[0])
    assert told.value.exit_code == 4
