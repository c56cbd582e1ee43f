"""Rendered people as folders, and whole networks that know their attributes, to scan by depth.

    python benchmarks/rendered.py FOLDER
    python benchmarks/rendered.py FOLDER --networks resnet18,vgg11_bn,mobilenet_v2
    leakaudit scan --encoder torchvision:resnet18 --weights FOLDER/resnet18.safetensors \\
        --layer layer1,layer2,layer3 --images FOLDER/private --attributes FOLDER/attributes.csv \\
        --public FOLDER/public --prior FOLDER/prior.safetensors \\
        --oracle benchmarks/rendered.py:judge --oracle-weights FOLDER/judge.safetensors

The demo's own encoder ends after layer1. Here networks of torchvision learn the seven attributes of
the demo's public people (another 1,000 are the adversary's); prior and judge are the demo's. For
pictures of another side the networks learn at that side (``--size 32``), and the prior is yours:
``leakaudit prior train --public FOLDER/public --size 32 --out FOLDER/prior32.safetensors``.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as fn
from torchvision.models import get_model

from leakaudit.core.rng import Rng
from leakaudit.demo import people as rendered
from leakaudit.demo.load import PUBLIC_PEOPLE, PUBLIC_PICTURES, WEIGHTS, WORLD
from leakaudit.models.oracle import EmbeddingNet
from leakaudit.models.utility import HeadTraining, train_attributes
from leakaudit.models.weights import save_safetensors

LEARNT_PEOPLE, LEARNT_PICTURES = 2500, 4
SIDE = 64  # of the demo's pictures and prior
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What ``--encoder torchvision:NAME`` takes off its pictures."""


class _AsPublished(nn.Module):
    """Pictures in [0, 1] as torchvision's networks want them."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        return (x - mean) / std


def judge() -> nn.Module:
    """The demo's embedding of faces, untrained; its weights are written beside the pictures."""
    return EmbeddingNet()


def write_people(folder: Path, people: int, pictures: int, seed: int) -> None:
    """Private people of this seed with attributes, and the adversary's public ones."""
    stream = WORLD.derive("private", seed)
    drawn = rendered.draw_people(people, stream)
    private = rendered.portraits(drawn, pictures, stream.derive("by depth"))
    names = [
        f"person-{who + 1:03d}/{k % pictures}.png" for k, who in enumerate(private.people.tolist())
    ]
    _save(private.images, [folder / "private" / name for name in names])
    with (folder / "attributes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", *rendered.ATTRIBUTES])
        table.writerows(
            [name, *map(int, row)]
            for name, row in zip(names, private.attributes.tolist(), strict=True)
        )
    stream = WORLD.derive("public")
    drawn = rendered.draw_people(PUBLIC_PEOPLE, stream)
    public = rendered.portraits(drawn, PUBLIC_PICTURES, stream.derive("scan"))
    _save(public.images, [folder / "public" / f"{k:05d}.png" for k in range(len(public.images))])


def write_networks(
    folder: Path, names: list[str], steps: int, size: int, say: Callable[[str], None]
) -> None:
    """Networks trained on the attributes of further people; the demo's prior and judge."""
    stream = WORLD.derive("by depth")
    drawn = rendered.draw_people(LEARNT_PEOPLE, stream)
    seen = rendered.portraits(drawn, LEARNT_PICTURES, stream.derive("pictures"))
    pixels = (_sided(seen.images, size) * 255).round().to(torch.uint8)
    for name in names:
        torch.manual_seed(stream.derive("network").state)
        net = get_model(name, num_classes=len(rendered.ATTRIBUTES))
        train_attributes(
            nn.Sequential(_AsPublished(), net), pixels, seen.attributes,
            training=HeadTraining(steps=steps, batch=64), rng=Rng(0, ("by depth",)),
            report=lambda step, loss, name=name: say(f"{name} step {step} loss {loss:.4f}"),
        )  # fmt: skip
        kept = {key: value.contiguous() for key, value in net.state_dict().items()}
        save_safetensors(folder / f"{name}.safetensors", kept)
    shutil.copyfile(WEIGHTS / "prior.safetensors", folder / "prior.safetensors")
    shutil.copyfile(WEIGHTS / "oracle.safetensors", folder / "judge.safetensors")


def _sided(images: Tensor, side: int) -> Tensor:
    """Pictures (N, 3, h, w) in [0, 1] at another side, as ``--input-size`` would shrink them."""
    if images.shape[-1] == side:
        return images
    return fn.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)


def _save(images: Tensor, paths: list[Path]) -> None:
    for image, path in zip(images, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(pixels).save(path)


def main() -> None:
    """Writes pictures, attributes, network, prior and judge into the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=6, help="a person")
    parser.add_argument("--people-seed", type=int, default=0)
    parser.add_argument("--networks", default="resnet18", help="of torchvision, by commas")
    parser.add_argument("--steps", type=int, default=600, help="of a network's training")
    parser.add_argument("--size", type=int, default=SIDE, help="side that the networks learn at")
    told = parser.parse_args()
    write_people(told.folder, told.people, told.pictures, told.people_seed)
    write_networks(told.folder, told.networks.split(","), told.steps, told.size, _say)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
