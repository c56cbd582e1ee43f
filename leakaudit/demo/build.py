"""Makes the demo's weights again, from nothing: ``python -m leakaudit.demo.build``.

Everything is rendered and seeded: encoder and head learn the attributes of public people, the prior
learns to look like them, the oracle learns to tell further people apart.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from leakaudit.core.rng import Rng
from leakaudit.demo import people as rendered
from leakaudit.demo.load import WEIGHTS, WORLD
from leakaudit.demo.networks import DemoEncoder, DemoHead
from leakaudit.models.oracle import (
    EmbeddingNet,
    IdentityOracle,
    OracleTraining,
    train_embedding,
)
from leakaudit.models.prior import Prior, PriorShape, PriorTraining, shape_metadata, train_prior
from leakaudit.models.utility import HeadTraining, train_attributes
from leakaudit.models.weights import save_safetensors

PEOPLE, PICTURES = 2500, 8
HEAD = HeadTraining(steps=900, batch=64)
ORACLE = OracleTraining(steps=2000, batch=64)
PRIOR = PriorTraining(steps=6000)

Say = Callable[[str], None]


class _Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25


def pictures(group: str) -> rendered.Portraits:
    """Eight pictures each of 2,500 people; the same ``group`` gives the same pictures."""
    stream = WORLD.derive(group)
    return rendered.portraits(
        rendered.draw_people(PEOPLE, stream), PICTURES, stream.derive("pictures")
    )


def as_bytes(images: Tensor) -> Tensor:
    """Pictures as uint8, a quarter of the memory."""
    return (images * 255).round().to(torch.uint8)


def build_encoder(folder: Path, say: Say) -> None:
    """Trains stem, layer1 and head on attributes; logs the accuracy on unseen people."""
    public = pictures("public")
    torch.manual_seed(WORLD.derive("encoder").state)
    net = resnet18()
    edge = nn.Sequential(_Scaled(), net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
    cloud = nn.Sequential(
        net.layer2, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, len(rendered.ATTRIBUTES))
    )
    train_attributes(
        nn.Sequential(edge, cloud), as_bytes(public.images), public.attributes,
        training=HEAD, rng=WORLD.derive("enc"),
        report=lambda step, loss: say(f"encoder step {step} loss {loss:.4f}"),
    )  # fmt: skip
    encoder, head = DemoEncoder(), DemoHead()
    for mine, theirs in (
        (encoder.conv1, edge[1]),
        (encoder.bn1, edge[2]),
        (encoder.layer1, edge[5]),
    ):
        mine.load_state_dict(theirs.state_dict())
    head.layer2.load_state_dict(cloud[0].state_dict())
    head.last.load_state_dict(cloud[3].state_dict())
    write(folder / "encoder.safetensors", encoder)
    write(folder / "head.safetensors", head)
    stream = WORLD.derive("test")
    unseen = rendered.portraits(rendered.draw_people(200, stream), 4, stream.derive("pictures"))
    with torch.no_grad():
        logits = torch.cat([cloud(edge(x)) for x in unseen.images.split(100)])
    right = ((logits > 0).float() == unseen.attributes).float().mean(0)
    for name, share in zip(rendered.ATTRIBUTES, right.tolist(), strict=True):
        say(f"encoder accuracy on 800 pictures of 200 unseen people, {name}: {share:.3f}")


def build_oracle(folder: Path, say: Say) -> None:
    """Trains the embedding on people of its own; logs naming among 200 new people."""
    own = pictures("oracle")
    torch.manual_seed(WORLD.derive("oracle").state)
    net = train_embedding(
        as_bytes(own.images), own.people, net=EmbeddingNet(),
        training=ORACLE, rng=WORLD.derive("or"),
        report=lambda step, loss, hit: say(f"oracle step {step} loss {loss:.3f} named {hit:.3f}"),
    )  # fmt: skip
    write(folder / "oracle.safetensors", net)
    stream = WORLD.derive("oracle-test")
    people = rendered.draw_people(200, stream)
    known = rendered.portraits(people, 5, stream.derive("enrolment"))
    asked = rendered.portraits(people, 2, stream.derive("asked"))
    oracle = IdentityOracle(net, known.images, known.people, name="demo")
    share = float((oracle.name_faces(asked.images) == asked.people).float().mean())
    say(f"oracle names {share:.3f} of 400 pictures among 200 unseen people (5 enrolled each)")


def build_prior(folder: Path, say: Say) -> None:
    """Trains the prior on the public people; logs its error on pictures of unseen ones."""
    public = pictures("public")
    prior, encode = train_prior(
        as_bytes(public.images), shape=PriorShape(), training=PRIOR, rng=WORLD.derive("prior"),
        mirror=False, report=lambda log: say(f"prior {log}"),
    )  # fmt: skip
    write(folder / "prior.safetensors", prior, shape_metadata(prior.shape))
    stream = WORLD.derive("test")
    unseen = rendered.portraits(rendered.draw_people(64, stream), 1, stream.derive("pictures"))
    with torch.no_grad():
        made = prior(encode(unseen.images))
    error = float((made - unseen.images).square().mean().sqrt())
    say(f"prior: RMSE {error:.4f} a pixel on 64 unseen people")
    sheet(folder.parent / "prior-samples.png", prior)


def sheet(path: Path, prior: Prior) -> None:
    """A picture of 48 faces of the prior, to look at."""
    from PIL import Image

    faces = as_bytes(prior.sample(48, Rng(0, ("sheet",)))).view(4, 12, 3, 64, 64)
    grid = faces.permute(0, 3, 1, 4, 2).reshape(4 * 64, 12 * 64, 3)
    Image.fromarray(grid.numpy()).save(path)


def write(path: Path, module: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """A network's weights in half precision (counters stay integers)."""
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    save_safetensors(path, {k: v.contiguous() for k, v in state.items()}, metadata or {})


def main() -> None:
    """Builds all weights, or those named."""
    parts = {"encoder": build_encoder, "oracle": build_oracle, "prior": build_prior}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights")
    chosen = parser.parse_args()
    start = time.perf_counter()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.perf_counter() - start:7.0f} s  {text}\n")

    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.parts or parts:
        if name not in parts:
            parser.error(f"unknown part '{name}'")
        parts[name](chosen.out, say)


if __name__ == "__main__":
    main()
