"""Small convolutional encoders and priors that are protected in a second."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from leakaudit.audit.edge import Edge
from leakaudit.core.keys import seed_key
from leakaudit.core.rng import Rng
from leakaudit.defences.crafter import Crafter
from leakaudit.models.best_response import LatentSearch
from leakaudit.models.prior import Prior, PriorShape, shape_metadata
from leakaudit.models.weights import save_safetensors

SIZE = 32
QUICK = "crafter:samples=40,start_steps=2,outer_steps=3,search.steps=4,worth=1"
FACTORY = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.a = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.b = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))

def make():
    return Small()
"""


class Small(nn.Module):
    """Features (N, 8, 8, 8) of pictures (N, 3, 32, 32)."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.a = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.b = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


class Mixing(Small):
    """Each feature is moved by the mean over its batch, as by batch norm in training."""

    def forward(self, x: Tensor) -> Tensor:
        made = super().forward(x)
        return made - made.mean(0, keepdim=True) + 0.1 * made


class Fragile(Small):
    """NaN for pictures whose first pixel is white."""

    def forward(self, x: Tensor) -> Tensor:
        bad = (x[:, 0, 0, 0] >= 1).view(-1, 1, 1, 1)
        return torch.where(bad, float("nan"), super().forward(x))


def frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def small_prior() -> Prior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        prior = Prior(PriorShape(size=SIZE, latent=8, width=8))
    frozen(prior)
    return prior


def quick(beta: float = 2.0, **more) -> Crafter:
    return Crafter(
        beta=beta,
        samples=40,
        start_steps=2,
        outer_steps=3,
        search=LatentSearch(steps=4),
        worth=1.0,
        **more,
    )


def pictures(count: int, seed: int = 0) -> Tensor:
    """Random pictures (N, 3, 32, 32) of whole bytes."""
    stream = Rng(seed, ("pictures",)).torch()
    coarse = torch.rand(count, 3, 4, 4, generator=stream)
    fine = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    return (fine * 250).round() / 255


def edge(encoder: nn.Module | None = None, *, key: bytes = seed_key(1), block: int = 4, **more):
    return Edge(frozen(encoder or Small()), small_prior(), quick(**more), key, block=block)


def write_pictures(folder: Path, count: int, seed: int = 0, per_person: int = 0) -> None:
    """PNG files, flat or a folder a person."""
    from PIL import Image

    for k, image in enumerate(pictures(count, seed)):
        name = f"{k:04d}.png" if not per_person else f"p{k // per_person:03d}/{k:04d}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path)


def write_networks(folder: Path) -> tuple[str, Path]:
    """An encoder's specification and a prior's file."""
    (folder / "small.py").write_text(FACTORY)
    prior = small_prior()
    save_safetensors(folder / "prior.safetensors", prior.state_dict(), shape_metadata(prior.shape))
    return f"{folder / 'small.py'}:make", folder / "prior.safetensors"
