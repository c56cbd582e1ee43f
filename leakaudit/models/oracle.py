"""The identity oracle: an embedding that names people by the nearest mean of their enrolment."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.errors import RunError
from leakaudit.core.rng import Rng
from leakaudit.maths.chunks import in_chunks
from leakaudit.models.devices import CPU, half_precision


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = fn.silu(self.norm1(self.down(x)))
        return fn.silu(x + self.norm2(self.conv(x)))


@final
class EmbeddingNet(nn.Module):
    """A face embedding: pictures (N, 3, H, W) in [0, 1] to unit vectors (N, dimension)."""

    def __init__(self, *, dimension: int = 128, width: int = 32, size: int = 64) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width, 4 * width]
        self.size = size
        self.stem = nn.Conv2d(3, width, 5, padding=2, stride=2)
        self.stages = nn.Sequential(*(_Residual(a, b) for a, b in itertools.pairwise(widths)))
        side = size // 16
        self.last = nn.Linear(widths[-1] * side * side, dimension)

    def forward(self, x: Tensor) -> Tensor:
        """Unit vectors (N, dimension)."""
        if x.shape[-1] != self.size:
            x = fn.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        x = fn.silu(self.stem(2 * x - 1))
        return fn.normalize(self.last(self.stages(x).flatten(1)), dim=1)


@dataclass(frozen=True)
class OracleTraining:
    """How an embedding is trained: softmax over people with a cosine margin.

    ``margin`` and ``scale`` as in CosFace (Wang et al. 2018, arXiv 1801.09414). Pictures are
    jittered in brightness, shifted, blurred and given noise, so that the oracle forgives what
    reconstructions do to a picture.
    """

    steps: int = 2500
    batch: int = 96
    rate: float = 2e-3
    margin: float = 0.15
    scale: float = 16.0
    mirror: bool = False

    def __post_init__(self) -> None:
        at_least("oracle training", 2, steps=self.steps, batch=self.batch)
        above_zero("oracle training", rate=self.rate, scale=self.scale)


def train_embedding(
    images: Tensor,
    people: Tensor,
    *,
    net: EmbeddingNet,
    training: OracleTraining,
    rng: Rng,
    report: Callable[[int, float, float], None] = lambda step, loss, accuracy: None,
) -> EmbeddingNet:
    """The trained ``net`` on pictures (M, 3, H, W), float or uint8, of ``people`` (M,)."""
    generator = rng.torch()
    device = images.device
    classes = int(people.max()) + 1
    centres = nn.Parameter(
        torch.randn(classes, net.last.out_features, generator=generator).to(device)
    )
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.train()
    optimiser = torch.optim.AdamW(
        [
            {"params": net.parameters(), "weight_decay": 2e-2},
            {"params": [centres], "weight_decay": 0.0},
        ],
        lr=training.rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=training.rate, total_steps=training.steps, pct_start=0.1
    )
    for step in range(training.steps):
        index = torch.randint(len(images), (training.batch,), generator=generator)
        x, y = images[index.to(device)], people[index].to(device)
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        x = _augment(x, generator, training.mirror).to(memory_format=torch.channels_last)
        with half_precision(device):
            embedding = net(x)
        cosine = embedding.float() @ fn.normalize(centres, dim=1).T
        margin = training.margin * fn.one_hot(y, classes)
        loss = fn.cross_entropy(training.scale * (cosine - margin), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 50 == 49 or step == training.steps - 1:
            hit = (cosine.argmax(1) == y).float().mean()
            report(step + 1, float(loss.detach()), float(hit))
    return net.eval().requires_grad_(False)


def _augment(x: Tensor, generator: torch.Generator, mirror: bool) -> Tensor:
    count, device = len(x), x.device

    def draw(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)).to(device)

    gain, lift, noise, soft = draw(0.85, 1.15), draw(-0.06, 0.06), draw(0, 0.06), draw(0, 1)
    noise = noise * torch.randn(x.shape, generator=generator).to(device)
    blurred = fn.avg_pool2d(fn.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = torch.where(soft < 0.4, x, (1 - soft) * x + soft * blurred)
    if mirror:
        x = torch.where(draw(0, 1) < 0.5, x.flip(3), x)
    dx, dy = torch.randint(-2, 3, (2,), generator=generator).tolist()
    x = torch.roll(x, (dy, dx), (2, 3))
    return (x * gain + lift + noise).clamp(0, 1)


@final
class IdentityOracle:
    """Names people by the nearest enrolment mean in an embedding; judges, and is never attacked.

    ``embed`` maps pictures (N, 3, H, W) in [0, 1] to unit vectors; ``means`` is (P, dimension), one
    unit vector a person of the gallery; ``vectors`` (K, dimension) are those of the enrolled
    pictures of ``people`` (K,). ``short`` follows the names of the metrics where this judge is not
    the main one. ``embed`` runs on ``device``, where its parameters are; what it says is on the
    CPU.
    """

    def __init__(
        self, embed: Callable[[Tensor], Tensor], enrolment: Tensor, people: Tensor, *, name: str,
        short: str = "oracle",
    ) -> None:  # fmt: skip
        self.name, self.short = name, short
        self._embed = embed
        weights = embed.parameters() if isinstance(embed, nn.Module) else iter(())
        self.device = next((weight.device for weight in weights), CPU)
        self._kept: tuple[Tensor, Tensor] | None = None
        vectors, people = self.embed(enrolment), people.cpu()
        count = int(people.max()) + 1
        sums = torch.zeros(count, vectors.shape[1]).index_add_(0, people, vectors)
        self.vectors, self.people = vectors, people
        self.means = fn.normalize(sums, dim=1)

    def to(self, device: torch.device) -> None:
        """Look at pictures on another device; one that is no module is given them there."""
        if isinstance(self._embed, nn.Module):
            self._embed.to(device)
        self.device = device

    @property
    def network(self) -> Callable[[Tensor], Tensor]:
        """What gives the embeddings, before they are of unit length."""
        return self._embed

    @property
    def gallery_size(self) -> int:
        """How many people the oracle can name."""
        return len(self.means)

    @torch.no_grad()
    def embed(self, images: Tensor, *, batch: int = 128) -> Tensor:
        """Unit vectors (N, dimension) on the CPU, batch by batch."""

        def seen(x: Tensor) -> Tensor:
            return fn.normalize(self._embed(x.to(self.device)).float(), dim=1).cpu()

        made = in_chunks(seen, images, batch)
        broken = int((~made.isfinite().all(1)).sum())
        if broken:
            raise RunError(
                f"The judge {self.name} gives NaN or infinite numbers for {broken} of "
                f"{len(made)} pictures",
                todo="Mend the judge, or name another one with --oracle",
            )
        return made

    def embed_originals(self, images: Tensor) -> Tensor:
        """As ``embed``, kept for the next call with the same tensor: originals come every row."""
        if self._kept is None or self._kept[0] is not images:
            self._kept = (images, self.embed(images))
        return self._kept[1]

    def scores(self, images: Tensor) -> Tensor:
        """Cosine to every person of the gallery, (N, P)."""
        return self.embed(images) @ self.means.T

    def name_faces(self, images: Tensor) -> Tensor:
        """The person index (N,) that each picture is named as."""
        return self.scores(images).argmax(1)
