"""The demo's split network: ResNet18's stem and layer1 on the edge, a small head in the cloud."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torchvision.models import resnet18

from leakaudit.demo.people import ATTRIBUTES


@final
class DemoEncoder(nn.Module):
    """Pictures (N, 3, 64, 64) in [0, 1] to features (N, 64, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        net = resnet18()
        self.conv1, self.bn1, self.layer1 = net.conv1, net.bn1, net.layer1
        self.relu, self.maxpool = nn.ReLU(), net.maxpool

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, 64, 16, 16)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1((x - 0.5) / 0.25))))
        feature: Tensor = self.layer1(x)
        return feature


@final
class DemoHead(nn.Module):
    """Features (N, 64, 16, 16) to attribute logits (N, 7): layer2, pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.layer2 = resnet18().layer2
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(128, len(ATTRIBUTES))

    def forward(self, feature: Tensor) -> Tensor:
        """Logits (N, 7), in the order of ``people.ATTRIBUTES``."""
        logits: Tensor = self.last(self.pool(self.layer2(feature)).flatten(1))
        return logits
