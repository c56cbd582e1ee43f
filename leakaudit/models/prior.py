"""The prior: a generator of plausible public faces, its critic, and how both are trained.

Recipe: a variational autoencoder whose observation noise is learnt in closed form (sigma-VAE,
Rybkin et al. 2021, arXiv 2006.13202), which gives a generator that covers the public faces, with a
hinge critic on prior samples (Lim and Ye 2017, arXiv 1705.02894) that keeps samples sharp. Last,
mean and covariance of the aggregate posterior are made those of the standard normal. Unlike a plain
WGAN-GP it has a likelihood term, so that it covers small public sets and needs no balance of two
networks to start.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.errors import RunError
from leakaudit.core.rng import Rng

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PriorShape:
    """Sizes of a prior: picture side (pixels, a power of two from 32), latent length, channels."""

    size: int = 64
    latent: int = 96
    width: int = 32

    @property
    def stages(self) -> int:
        """How often the picture doubles from 4x4."""
        return int(math.log2(self.size)) - 2

    def channels(self, stage: int) -> int:
        """Channels at side ``4 * 2**stage``; halved at each doubling, ``width`` at half size."""
        return min(self.width * 2 ** (self.stages - 1 - stage), 6 * self.width)


class _UpBlock(nn.Module):
    """Doubles the side: convolution to four times the channels, then pixel shuffle."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 3, padding=1)
        self.norm = nn.GroupNorm(8 if channels_out % 8 == 0 else 1, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return fn.silu(self.norm(fn.pixel_shuffle(self.conv(x), 2)))


@final
class Generator(nn.Module):
    """``G(z)``: latent (N, latent), standard normal, to faces (N, 3, size, size) in [0, 1]."""

    def __init__(self, shape: PriorShape) -> None:
        super().__init__()
        self.shape = shape
        first = shape.channels(0)
        self.first = nn.Linear(shape.latent, first * 16)
        self.blocks = nn.ModuleList(
            _UpBlock(shape.channels(k), shape.channels(k + 1)) for k in range(shape.stages - 1)
        )
        last = shape.channels(shape.stages - 1)
        self.mix = nn.Conv2d(last, last, 3, padding=1)
        self.to_rgb = nn.Conv2d(last, 12, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Faces (N, 3, size, size) in [0, 1]."""
        x = z
        for stage in self.stages():
            x = stage(x)
        return x

    def stages(self) -> tuple[Callable[[Tensor], Tensor], ...]:
        """``forward`` cut where activations can be searched: latent, 4x4, 8x8, ..., picture."""
        return (self._opening, *self.blocks, self._picture)

    def _opening(self, z: Tensor) -> Tensor:
        return fn.silu(self.first(z)).view(len(z), -1, 4, 4)

    def _picture(self, x: Tensor) -> Tensor:
        x = x + fn.silu(self.mix(x))
        return torch.sigmoid(fn.pixel_shuffle(self.to_rgb(x), 2))


class _Pyramid(nn.Module):
    """Strided convolutions from a picture to a vector of ``outputs`` numbers."""

    def __init__(self, shape: PriorShape, outputs: int) -> None:
        super().__init__()
        widths = [3, *(shape.channels(k) for k in reversed(range(shape.stages)))]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.last = nn.Linear(widths[-1] * 16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = 2 * x - 1
        for conv in self.convs:
            x = fn.leaky_relu(conv(x), 0.2)
        return self.last(x.flatten(1))


@final
class Critic(nn.Module):
    """``D(x)``: how much a picture (N, 3, size, size) looks like a public face, (N,)."""

    def __init__(self, shape: PriorShape) -> None:
        super().__init__()
        self.pyramid = _Pyramid(PriorShape(shape.size, shape.latent, shape.width // 2), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N,), larger for public faces."""
        return self.pyramid(x).squeeze(1)


@final
class Prior(nn.Module):
    """A generator with the standard normal on its latents, and its critic."""

    def __init__(self, shape: PriorShape) -> None:
        super().__init__()
        self.shape = shape
        self.generator = Generator(shape)
        self.critic = Critic(shape)

    def forward(self, z: Tensor) -> Tensor:
        """Faces (N, 3, size, size) in [0, 1] for latents (N, latent)."""
        return self.generator(z)

    def draw(self, count: int, rng: Rng) -> Tensor:
        """Latents (count, latent) from the standard normal."""
        like = next(self.parameters())
        z = torch.randn(count, self.shape.latent, generator=rng.torch())
        return z.to(device=like.device, dtype=like.dtype)

    @torch.no_grad()
    def sample(self, count: int, rng: Rng, *, batch: int = 128) -> Tensor:
        """Faces (count, 3, size, size) from the prior."""
        return torch.cat([self(z) for z in self.draw(count, rng).split(batch)])


@dataclass(frozen=True)
class PriorTraining:
    """How a prior is trained; ``steps`` batches of ``batch`` pictures, Adam, cosine to zero.

    From ``critic_from`` (share of the steps) on, samples are also judged by the critic with weight
    ``critic_weight`` per pixel. ``noise_floor`` (deviation a pixel) bounds how sharply the
    likelihood may bind a latent, so that the prior and the aggregate posterior stay one
    distribution. ``average`` is the decay of the weights that are kept.
    """

    steps: int = 4000
    batch: int = 64
    rate: float = 1e-3
    critic_rate: float = 4e-4
    critic_from: float = 0.35
    critic_weight: float = 1.5e-3
    noise_floor: float = 0.04
    average: float = 0.998

    def __post_init__(self) -> None:
        at_least("prior training", 1, steps=self.steps, batch=self.batch)
        above_zero("prior training", rate=self.rate, critic_rate=self.critic_rate)
        at_least(
            "prior training", 0, critic_weight=self.critic_weight, critic_from=self.critic_from
        )


@dataclass(frozen=True)
class PriorLog:
    """What the training reached: mean error a pixel (RMSE) and the divergence in nats a face."""

    step: int
    rmse: float
    divergence: float
    critic_gap: float


def train_prior(
    images: Tensor,
    *,
    shape: PriorShape,
    training: PriorTraining,
    rng: Rng,
    mirror: bool,
    report: Callable[[PriorLog], None] = lambda log: None,
) -> tuple[Prior, Encode]:
    """A prior trained on public pictures (M, 3, size, size), float [0, 1] or uint8.

    Returns the prior and an encoder from pictures to the latents (N, latent) that rebuild them.
    ``mirror`` flips half the pictures.

    Raises:
        RunError: when the loss stops being finite.
    """
    torch_rng = rng.torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive("init").state)
        prior, posterior = Prior(shape), _Pyramid(shape, 2 * shape.latent)
    device = images.device
    kept = copy.deepcopy(prior).requires_grad_(False)
    for module in (prior, posterior, kept):
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    learnt = [*prior.generator.parameters(), *posterior.parameters()]
    optimiser = torch.optim.Adam(learnt, lr=training.rate, betas=(0.9, 0.99))
    judge = torch.optim.Adam(prior.critic.parameters(), lr=training.critic_rate, betas=(0.5, 0.99))
    start_critic = int(training.critic_from * training.steps)
    for step in range(training.steps):
        _set_rate(optimiser, training.rate, step, training.steps)
        x = _pictures(images, training.batch, torch_rng, mirror)
        with _half_precision(device):
            mean, log_var = posterior(x).float().chunk(2, dim=1)
            noise = torch.randn(mean.shape, generator=torch_rng).to(device)
            made = prior(mean + noise * (0.5 * log_var).exp())
        mse = (made.float() - x).square().mean()
        divergence = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(1).mean()
        pixels = x[0].numel()
        loss = 0.5 * pixels * (mse + training.noise_floor**2).log() + divergence
        gap = torch.zeros(())
        if step >= start_critic:
            z = torch.randn(mean.shape, generator=torch_rng).to(device)
            with _half_precision(device):
                sample = prior(z).float()
                fooled = prior.critic(sample).float().mean()
            loss = loss - training.critic_weight * pixels * fooled
            gap = _critic_step(prior.critic, judge, x, sample.detach(), step % 16 == 0)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learnt, 2e3)
        optimiser.step()
        _average(kept, prior, training.average if step > 100 else 0.9)
        if step % 50 == 49 or step == training.steps - 1:
            if not math.isfinite(float(loss.detach())):
                raise RunError("The prior's loss is not finite", todo="Lower its learning rate.")
            rmse, nats = float(mse.detach().sqrt()), float(divergence.detach())
            report(PriorLog(step + 1, rmse, nats, float(gap)))
    kept.eval()
    posterior.eval().requires_grad_(False)
    return kept, _match_standard_normal(kept.generator, posterior, images, torch_rng)


@torch.no_grad()
def _match_standard_normal(
    generator: Generator, posterior: nn.Module, images: Tensor, random: torch.Generator
) -> Encode:
    """Makes the aggregate posterior's mean and covariance those of the standard normal.

    With mean m and covariance V diag(w) V' of latents of public pictures, ``G(z)`` becomes
    ``G(m + V sqrt(w) z)``, folded into the first linear map: the same pictures stay in reach, and
    samples fall where the training left its latents. Returns pictures (N, ...) to latents.
    """
    index = torch.randint(len(images), (min(4096, 4 * len(images)),), generator=random)
    parts = [posterior(_float(images[i])).float() for i in index.to(images.device).split(128)]
    mean, log_var = torch.cat(parts).chunk(2, dim=1)
    noise = torch.randn(mean.shape, generator=random).to(mean)
    latents = (mean + noise * (0.5 * log_var).exp()).double()
    centre = latents.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(latents.T))
    root = vectors * values.clamp(min=1e-6).sqrt()
    back = torch.linalg.inv(root)
    first = generator.first
    weight = first.weight.double()
    first.bias.copy_((first.bias.double() + weight @ centre).to(first.bias))
    first.weight.copy_((weight @ root).to(first.weight))

    def encode(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            found = posterior(_float(pictures)).chunk(2, dim=1)[0].double()
        return ((found - centre) @ back.T).float()

    return encode


def _float(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] as float32, whether stored so or as bytes."""
    return pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures


def _half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 convolutions, twice as fast where the CPU has them; weights stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _set_rate(optimiser: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    warm = min(1.0, (step + 1) / 100)
    for group in optimiser.param_groups:
        group["lr"] = rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _pictures(images: Tensor, batch: int, generator: torch.Generator, mirror: bool) -> Tensor:
    index = torch.randint(len(images), (batch,), generator=generator)
    x = images[index.to(images.device)]
    x = _float(x)
    if mirror:
        flip = (torch.rand(batch, generator=generator) < 0.5).to(x.device)
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
    return x.to(memory_format=torch.channels_last)


def _critic_step(
    critic: Critic, judge: torch.optim.Optimizer, real: Tensor, made: Tensor, penalise: bool
) -> Tensor:
    """One hinge step; every sixteenth one with a zero-centred gradient penalty (R1, lazily)."""
    with _half_precision(real.device):
        on_real, on_made = critic(real).float(), critic(made).float()
    loss = fn.relu(1 - on_real).mean() + fn.relu(1 + on_made).mean()
    if penalise:
        probe = real.detach().requires_grad_()
        slope = torch.autograd.grad(critic(probe).sum(), probe, create_graph=True)[0]
        loss = loss + 16 * 0.5 * slope.square().sum((1, 2, 3)).mean()
    judge.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    judge.step()
    return (on_real.mean() - on_made.mean()).detach()


@torch.no_grad()
def _average(kept: nn.Module, live: nn.Module, decay: float) -> None:
    for a, b in zip(kept.parameters(), live.parameters(), strict=True):
        a.lerp_(b, 1 - decay)


def shape_metadata(shape: PriorShape) -> dict[str, str]:
    """The shape as strings, for the header of a safetensors file."""
    return {key: str(value) for key, value in asdict(shape).items()}
