"""What every metric in the registry promises, ours and those that other packages bring."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import SPREAD, ToyFaces, ToyPrior, toy_faces

from leakaudit.core.rng import Rng
from leakaudit.core.types import Score
from leakaudit.metrics import METRICS
from leakaudit.metrics.base import Evidence, Metric
from leakaudit.metrics.indistinguishability import EpsilonPii

RANGE = {
    "identification": (0, 1),
    "identification_top5": (0, 1),
    "verification": (0, 1),
    "feature_similarity": (-1, 1),
    "ssim": (-1, 1),
    "psnr": (0, 100),
    "epsilon_pii": (0, float("inf")),
}
CROWD = {"epsilon_pii"}  # speaks of all faces together, so it has no number for one of them

every_metric = pytest.mark.parametrize("name", METRICS.names())


@pytest.fixture(autouse=True)
def _no_cached_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("LEAKAUDIT_CACHE", str(tmp_path))


@cache
def faces() -> ToyFaces:
    return toy_faces(per_person=2)


@cache
def metric(name: str) -> Metric:
    kind = METRICS.find(name)
    if kind is EpsilonPii:  # against a prior that can't express the people under audit
        prior: object = ToyPrior(spread=SPREAD / 4)
        return EpsilonPii.against(prior, len(faces().images), Rng(5))  # type: ignore[arg-type]
    wants_oracle = "oracle" in {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(faces().oracle) if wants_oracle else kind()  # type: ignore[call-arg]


def evidence(made: Tensor) -> Evidence:
    return Evidence("none", "toy", "BlackBox", faces().images, made, faces().people, Rng(6, ("r",)))


def copies(share: float) -> Tensor:
    """Pictures between a grey field with some noise (share 0) and the originals (share 1)."""
    noise = 0.01 * torch.randn(faces().images.shape, generator=Rng(7).torch())
    return ((1 - share) * (0.5 + noise) + share * faces().images).clamp(0, 1)


@cache
def score(name: str, share: float) -> Score:
    return metric(name)(evidence(copies(share)))


def skip_unavailable(found: Score) -> None:
    if found.value is None:
        pytest.skip(str(found.note))


@every_metric
def test_a_score_is_within_its_interval_and_range(name: str) -> None:
    found = score(name, 0.5)
    skip_unavailable(found)
    assert found.low is not None and found.high is not None and found.value is not None
    assert found.low <= found.value <= found.high
    low, high = RANGE.get(name, (-float("inf"), float("inf")))
    assert low <= found.low and found.high <= high
    assert found.n == len(faces().images)


@every_metric
def test_a_score_tells_its_row_unit_and_direction(name: str) -> None:
    found, kind = score(name, 0.5), metric(name)
    assert (found.defence, found.attack, found.threat) == ("none", "toy", "BlackBox")
    assert (found.metric, found.unit, found.leak_grows) == (name, kind.unit, kind.leak_grows)
    assert kind.unit and kind.leak_grows in ("up", "down", "neither")


@every_metric
def test_what_is_not_available_says_why_and_gives_no_number(name: str) -> None:
    found = score(name, 0.5)
    assert (found.value is None) == (found.note is not None and "unavailable" in found.note)
    if found.value is None:
        assert found.low is None and found.high is None and found.per_face is None


@every_metric
def test_same_seed_same_score(name: str) -> None:
    assert metric(name)(evidence(copies(0.5))) == score(name, 0.5)


@every_metric
def test_inputs_are_untouched(name: str) -> None:
    made, originals = copies(0.5), faces().images.clone()
    before = made.clone()
    metric(name)(evidence(made))
    assert torch.equal(made, before) and torch.equal(originals, faces().images)


@every_metric
def test_a_better_copy_moves_the_score_in_the_stated_direction(name: str) -> None:
    values = [score(name, share) for share in (0.0, 0.4, 1.0)]
    skip_unavailable(values[0])
    sign = {"up": 1, "down": -1}[values[0].leak_grows]
    far, near, same = (sign * float(found.value) for found in values)  # type: ignore[arg-type]
    assert far < same
    assert far <= near <= same


@every_metric
@pytest.mark.parametrize("size", [1, 3])
def test_a_face_counts_the_same_in_any_batch(name: str, size: int) -> None:
    whole = score(name, 0.3)
    skip_unavailable(whole)
    if name in CROWD:
        assert whole.per_face is None
        return
    row, parts = evidence(copies(0.3)), []
    for index in torch.arange(len(row.people)).split(size):
        part = dataclasses.replace(
            row,
            originals=row.originals[index],
            reconstructions=row.reconstructions[index],
            people=row.people[index],
        )
        parts += list(metric(name)(part).per_face or ())
    assert parts == pytest.approx(whole.per_face, abs=1e-5)


@every_metric
def test_permuting_the_faces_permutes_the_scores(name: str) -> None:
    row, order = evidence(copies(0.3)), torch.randperm(16, generator=Rng(8).torch())
    turned = metric(name)(
        dataclasses.replace(
            row,
            originals=row.originals[order],
            reconstructions=row.reconstructions[order],
            people=row.people[order],
        )
    )
    whole = score(name, 0.3)
    skip_unavailable(whole)
    assert turned.value == pytest.approx(whole.value, abs=1e-6)
    if whole.per_face is not None:
        assert turned.per_face == pytest.approx([whole.per_face[i] for i in order], abs=1e-5)


@every_metric
def test_configuration_is_frozen_and_the_docstring_names_the_source(name: str) -> None:
    kind = METRICS.find(name)
    assert dataclasses.is_dataclass(kind) and kind.name == name
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric(name).name = "another"  # type: ignore[misc]
    assert kind.source and kind.__doc__


def test_lpips_without_its_trunk_names_the_missing_file() -> None:
    found = score("lpips", 1.0)
    assert found.value is None and "alexnet-owt-7be5be79.pth" in str(found.note)
