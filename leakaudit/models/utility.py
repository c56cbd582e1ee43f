"""The cloud's half: a head on features for the utility attributes, and how one is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.rng import Rng
from leakaudit.models.devices import half_precision


@dataclass(frozen=True)
class HeadTraining:
    """How encoder and head are trained on attributes: Adam, one cycle, binary cross-entropy."""

    steps: int = 1500
    batch: int = 96
    rate: float = 2e-3

    def __post_init__(self) -> None:
        at_least("head training", 2, steps=self.steps, batch=self.batch)
        above_zero("head training", rate=self.rate)


def train_attributes(
    network: nn.Module,
    inputs: Tensor,
    attributes: Tensor,
    *,
    training: HeadTraining,
    rng: Rng,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> nn.Module:
    """``network`` trained to give attribute logits (N, A) for ``inputs`` (M, ...).

    Inputs are pictures (uint8 or float in [0, 1]) or features; unknown attributes are NaN.
    """
    generator = rng.torch()
    device = inputs.device
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=training.rate, total_steps=training.steps, pct_start=0.15
    )
    for step in range(training.steps):
        index = torch.randint(len(inputs), (training.batch,), generator=generator)
        x, y = inputs[index.to(device)], attributes[index].to(device)
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        known = ~y.isnan()
        with half_precision(device):
            logits = network(x)
        loss = fn.binary_cross_entropy_with_logits(logits.float()[known], y[known])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 50 == 49 or step == training.steps - 1:
            report(step + 1, float(loss.detach()))
    return network.eval().requires_grad_(False)
