"""The cloud's half of a split network: its own answer, from the feature on."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from leakaudit.core.errors import UsageError
from leakaudit.models.encoder import LAST, SplitEncoder
from leakaudit.models.users_code import users_code

AGREEING = 1e-3
"""How far the answer from the feature may be off, relative to how answers differ."""


@final
class CloudHalf(nn.Module):
    """The rest of a network behind the split: features (N, *feature_shape) to its answers.

    The network is run on grey pictures, and at the split its own feature gives way to the given
    one. So it works for any ``forward``, at the price of the edge's half; `cloud_half` checks that
    nothing flows around the split. Behind the last layer there is nothing: the feature is the
    answer.
    """

    def __init__(self, encoder: SplitEncoder) -> None:
        super().__init__()
        self.network = encoder.network
        self.layer = encoder.layer
        self.prepare = encoder.prepare

    def forward(self, features: Tensor) -> Any:
        """The network's answer to these features."""
        if self.layer == LAST:
            return features
        pending = [features]

        def instead(_module: nn.Module, _inputs: Any, _output: Any) -> Any:
            return pending.pop() if pending else None  # a layer's later runs are its own

        layer = self.network.get_submodule(self.layer)
        handle = layer.register_forward_hook(instead)
        try:
            return self.network(self.prepare.grey(1).expand(len(features), -1, -1, -1))
        finally:
            handle.remove()


def cloud_half(encoder: SplitEncoder, images: Tensor) -> CloudHalf:
    """The rest of the encoder's network, checked on real pictures (N, 3, H, W) in [0, 1].

    From their features it must give what the whole network gives. Raises `UsageError` where the
    answer isn't one tensor, or where it doesn't follow from the feature alone.
    """
    rest = CloudHalf(encoder)
    with torch.no_grad(), users_code(f"The rest of {encoder.name} behind '{encoder.layer}'"):
        whole = encoder.network(encoder.prepare(images))
        after = rest(encoder(images))
    if not isinstance(whole, Tensor) or len(whole) != len(images):
        kind = tuple(whole.shape) if isinstance(whole, Tensor) else type(whole).__name__
        raise UsageError(
            f"The network's own answer is {kind} and not one tensor with a row for each of the "
            f"{len(images)} pictures",
            where="--head cloud",
            todo="Give a head of your own, --head file.py:factory",
        )
    spread = float((whole - whole.mean(0, keepdim=True)).abs().max())
    off = float((whole - after).abs().max())
    if not off <= AGREEING * spread + 1e-6 * float(whole.abs().max()):
        raise UsageError(
            f"The network's answer doesn't follow from the feature at '{encoder.layer}' alone: "
            f"run on from there, it is off by {off:.3g} where faces differ by {spread:.3g}",
            where="--head cloud",
            todo="Split at a layer that 'leakaudit layers' doesn't mark as a branch, or give a "
            "head of your own, --head file.py:factory",
        )
    return rest
