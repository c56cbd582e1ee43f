"""A training that stops anywhere ends as if it had not, and its key knows all it depends on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toys import normal

from leakaudit.core.errors import UsageError, WeightsError
from leakaudit.core.rng import Rng
from leakaudit.models import prior_sessions
from leakaudit.models.prior import Prior, PriorShape, PriorTraining
from leakaudit.models.prior_files import (
    load_prior,
    read_facts,
    restore_checkpoint,
    save_checkpoint,
    save_prior,
)
from leakaudit.models.prior_sessions import PriorTask, seconds_ahead, train_resumably
from leakaudit.models.weights import save_safetensors

IMAGES = (0.5 + 0.2 * normal(16, 3, 32, 32, seed=1)).clamp(0, 1)
TASK = PriorTask(
    IMAGES, PriorShape(32, 6, 8), PriorTraining(steps=5, batch=4, critic_from=0.4), Rng(1)
)


class Stop(Exception):  # noqa: N818
    pass


def same(a: Prior, b: Prior) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def stopped(folder, task: PriorTask, after: int):
    """The checkpoint of a training that failed after so many steps."""
    path = folder / "c.safetensors"

    def tick(done, log):
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        train_resumably(task, path, resume=False, every=0.0, tick=tick)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "c.safetensors"
    return train_resumably(TASK, path, resume=False)


@pytest.mark.parametrize("architecture", ["shuffle", "residual"])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_training_that_goes_on_ends_with_the_same_bits(tmp_path, after, architecture) -> None:
    task = replace(TASK, shape=replace(TASK.shape, architecture=architecture))
    once, encode = train_resumably(task, tmp_path / "whole.safetensors", resume=False)
    steps: list[int] = []
    again, recode = train_resumably(
        task, stopped(tmp_path, task, after), resume=True, tick=lambda done, log: steps.append(done)
    )
    assert steps == list(range(after + 1, 6))  # nothing was done twice
    assert same(once, again)
    assert torch.equal(encode(IMAGES), recode(IMAGES))


def test_without_resume_it_begins_anew(tmp_path, whole) -> None:
    steps: list[int] = []
    again, _ = train_resumably(
        TASK, stopped(tmp_path, TASK, 2), resume=False, tick=lambda done, log: steps.append(done)
    )
    assert steps == [1, 2, 3, 4, 5]
    assert same(whole[0], again)


def other_key(path) -> None:
    save_checkpoint(path, TASK.trainer(), key="another")


def half_a_file(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_shape(path) -> None:
    trainer = replace(TASK, shape=PriorShape(32, 7, 8)).trainer()
    save_checkpoint(path, trainer, key=TASK.key)


def no_tensors(path) -> None:
    save_safetensors(path, {"done": torch.tensor(3)}, {"key": TASK.key})


@pytest.mark.parametrize("harm", [other_key, half_a_file, other_shape, no_tensors])
def test_a_checkpoint_of_another_training_or_a_damaged_one_is_no_start(
    tmp_path, whole, harm
) -> None:
    path = stopped(tmp_path, TASK, 3)
    harm(path)
    again, _ = train_resumably(TASK, path, resume=True)
    assert same(whole[0], again)


def test_a_checkpoint_is_for_its_owner_and_says_whose_it_is(tmp_path) -> None:
    path = stopped(tmp_path, TASK, 2)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_facts(path) == {"key": TASK.key}
    assert restore_checkpoint(path, TASK.trainer(), key=TASK.key)


def test_the_key_knows_all_that_the_bits_depend_on() -> None:
    moved = IMAGES.clone()
    moved[3, 1, 2, 2] += 1e-6
    others = [
        replace(TASK, images=moved),
        replace(TASK, images=IMAGES.flip(0)),
        replace(TASK, shape=PriorShape(32, 7, 8)),
        replace(TASK, shape=PriorShape(32, 6, 8, "residual")),
        replace(TASK, training=replace(TASK.training, steps=6)),
        replace(TASK, training=replace(TASK.training, rate=2e-3)),
        replace(TASK, rng=Rng(2)),
        replace(TASK, rng=Rng(1, ("other",))),
        replace(TASK, mirror=False),
    ]
    assert len({TASK.key, *(task.key for task in others)}) == 1 + len(others)
    assert replace(TASK, images=IMAGES.clone()).key == TASK.key


def test_the_time_ahead_grows_with_the_steps_and_moves_no_randomness() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    short = seconds_ahead(TASK)
    long = seconds_ahead(replace(TASK, training=replace(TASK.training, steps=5000)))
    assert 0 < short < long
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("architecture", ["shuffle", "residual"])
def test_a_file_says_which_architecture_it_is_and_gives_the_same_prior(
    tmp_path, architecture
) -> None:
    with torch.random.fork_rng(devices=[]):
        prior = Prior(PriorShape(48, 6, 8, architecture)).eval()
    save_prior(tmp_path / "p.safetensors", prior, {"seed": "3"})
    found, facts = load_prior(tmp_path / "p.safetensors", size=48)
    assert found.shape == prior.shape and facts["seed"] == "3"
    assert same(prior, found)
    with pytest.raises(UsageError, match=r"48 pixels, and the scan's have 64.*--input-size 48"):
        load_prior(tmp_path / "p.safetensors", size=64)


def test_a_file_from_before_architectures_had_names_still_loads(tmp_path) -> None:
    with torch.random.fork_rng(devices=[]):
        prior = Prior(PriorShape(32, 6, 8)).eval()
    old = {"size": "32", "latent": "6", "width": "8"}
    save_safetensors(tmp_path / "p.safetensors", prior.state_dict(), old)
    assert same(prior, load_prior(tmp_path / "p.safetensors")[0])
    with torch.random.fork_rng(devices=[]):
        usual = Prior(PriorShape(32)).eval()
    save_safetensors(tmp_path / "q.safetensors", usual.state_dict())  # a scan's, of old
    assert same(usual, load_prior(tmp_path / "q.safetensors", size=32)[0])


@pytest.mark.parametrize(
    "facts",
    [
        {"size": "32", "latent": "six", "width": "8"},
        {"size": "32", "latent": "6"},
        {"size": "32", "latent": "999999999", "width": "8"},
        {"size": "32", "latent": "7", "width": "8"},
        {"size": "33", "latent": "6", "width": "8"},
        {"size": "32", "latent": "6", "width": "8", "architecture": "gan"},
    ],
)
def test_a_file_with_a_wrong_shape_is_refused(tmp_path, facts) -> None:
    with torch.random.fork_rng(devices=[]):
        prior = Prior(PriorShape(32, 6, 8))
    save_safetensors(tmp_path / "p.safetensors", prior.state_dict(), facts)
    with pytest.raises(UsageError):
        load_prior(tmp_path / "p.safetensors")


def test_a_missing_prior_is_said(tmp_path) -> None:
    with pytest.raises(WeightsError, match="no such"):
        load_prior(tmp_path / "gone.safetensors")


def test_what_was_learnt_in_another_precision_is_another_prior(monkeypatch) -> None:
    """A cache, or a checkpoint, may have been written on a machine with bfloat16."""
    keys = set()
    for half in (True, False):
        monkeypatch.setattr(prior_sessions, "has_half", lambda device, half=half: half)
        keys.add(TASK.key)
    assert len(keys) == 2
