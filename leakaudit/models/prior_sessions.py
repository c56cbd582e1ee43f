"""A training of a prior that can be killed at any moment: timed ahead, checkpointed, resumed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakaudit.core.rng import Rng
from leakaudit.models.devices import has_half, settle
from leakaudit.models.prior import (
    RECIPE,
    Encode,
    Prior,
    PriorLog,
    PriorShape,
    PriorTrainer,
    PriorTraining,
)
from leakaudit.models.prior_files import restore_checkpoint, save_checkpoint

Tick = Callable[[int, PriorLog | None], None]
"""Told the steps done after each of them, and every fiftieth time what was reached."""


@dataclass(frozen=True, eq=False)
class PriorTask:
    """A training to be done: ``images`` (M, 3, size, size), and all that its bits depend on."""

    images: Tensor
    shape: PriorShape
    training: PriorTraining
    rng: Rng
    mirror: bool = True

    @property
    def key(self) -> str:
        """A hash of pictures, settings, randomness, recipe, and what sums are rounded by."""
        pixels = hashlib.sha256(self.images.cpu().contiguous().numpy().tobytes()).hexdigest()
        parts = {
            "recipe": RECIPE,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self.images.device.type,
            "half": has_half(self.images.device),
            "pixels": [pixels, list(self.images.shape), str(self.images.dtype)],
            "shape": asdict(self.shape),
            "training": asdict(self.training),
            "random": [self.rng.seed, *self.rng.path],
            "mirror": self.mirror,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def trainer(self, **changes: Any) -> PriorTrainer:
        """A trainer at its first step; ``changes`` are to settings of the training."""
        return PriorTrainer(
            self.images, shape=self.shape, training=replace(self.training, **changes),
            rng=self.rng, mirror=self.mirror,
        )  # fmt: skip

    def facts(self) -> dict[str, str]:
        """Where a prior of this task comes from, as text for its file."""
        return {
            "key": self.key,
            "recipe": str(RECIPE),
            "training": json.dumps(asdict(self.training), sort_keys=True),
            "seed": str(self.rng.seed),
            "public_images": str(len(self.images)),
        }


def seconds_ahead(task: PriorTask) -> float:
    """How long the training will take here, from two steps of each kind; the first ones warm up."""
    spent = []
    for critic_from in (1.0, 0.0):
        trainer = task.trainer(steps=4, critic_from=critic_from)
        trainer.advance()
        settle(task.images.device)
        start = time.perf_counter()
        trainer.advance()
        trainer.advance()
        settle(task.images.device)
        spent.append((time.perf_counter() - start) / 2)
    before = min(1.0, task.training.critic_from)
    return task.training.steps * (before * spent[0] + (1 - before) * spent[1])


def train_resumably(
    task: PriorTask, checkpoint: Path, *, resume: bool, every: float = 60.0,
    tick: Tick = lambda step, log: None,
) -> tuple[Prior, Encode]:  # fmt: skip
    """The trained prior and its encoder, the same bits whether or not it was interrupted.

    ``checkpoint`` is written every so many seconds, and taken up with ``resume`` where it is of
    this very task. Who asked removes it, once the prior is safe.
    """
    trainer, key = task.trainer(), task.key
    if resume and checkpoint.is_file() and not restore_checkpoint(checkpoint, trainer, key=key):
        trainer = task.trainer()  # a foreign or damaged one may have been restored in part
    last = time.monotonic()
    while not trainer.finished:
        log = trainer.advance()
        if trainer.finished or time.monotonic() - last >= every:
            save_checkpoint(checkpoint, trainer, key=key)
            last = time.monotonic()
        tick(trainer.done, log)
    return trainer.finish()
