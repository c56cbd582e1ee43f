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
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.checks import above_zero, at_least
from leakaudit.core.errors import RunError
from leakaudit.core.rng import Rng
from leakaudit.models.devices import half_precision
from leakaudit.models.generators import (
    Critic,
    FaceGenerator,
    Generator,
    Prior,
    PriorShape,
    Pyramid,
)

__all__ = [
    "Critic",
    "Encode",
    "Generator",
    "Prior",
    "PriorLog",
    "PriorShape",
    "PriorTrainer",
    "PriorTraining",
    "shape_metadata",
    "train_prior",
]

Encode = Callable[[Tensor], Tensor]
RECIPE = 1
"""The version of the training below: another one gives other weights for the same settings."""


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


@final
class PriorTrainer:
    """A training that can stop after any step and go on elsewhere, to the same bits.

    ``images`` (M, 3, size, size) are public pictures, float in [0, 1] or uint8; ``mirror`` flips
    half of those that are drawn. ``done`` counts steps.
    """

    def __init__(
        self, images: Tensor, *, shape: PriorShape, training: PriorTraining, rng: Rng, mirror: bool
    ) -> None:
        self.shape, self.training, self.done = shape, training, 0
        self._images, self._mirror, self._random = images, mirror, rng.torch()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.derive("init").state)
            self._prior, self._posterior = Prior(shape), Pyramid(shape, 2 * shape.latent)
        self._kept = copy.deepcopy(self._prior).requires_grad_(False)
        for module in self._modules().values():
            module.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert self._prior.critic is not None
        self._critic = self._prior.critic
        self._learnt = [*self._prior.generator.parameters(), *self._posterior.parameters()]
        self._optimiser = torch.optim.Adam(self._learnt, lr=training.rate, betas=(0.9, 0.99))
        self._judge = torch.optim.Adam(
            self._critic.parameters(), lr=training.critic_rate, betas=(0.5, 0.99)
        )

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.done >= self.training.steps

    def advance(self) -> PriorLog | None:
        """One step; every fiftieth, and the last one, says what was reached.

        Raises:
            RunError: when the loss stops being finite.
        """
        how, step, device = self.training, self.done, self._images.device
        _set_rate(self._optimiser, how.rate, step, how.steps)
        x = _pictures(self._images, how.batch, self._random, self._mirror)
        with half_precision(device):
            mean, log_var = self._posterior(x).float().chunk(2, dim=1)
            made = self._prior(mean + self._noise(mean) * (0.5 * log_var).exp())
        mse = (made.float() - x).square().mean()
        divergence = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(1).mean()
        pixels = x[0].numel()
        loss = 0.5 * pixels * (mse + how.noise_floor**2).log() + divergence
        judged = step >= int(how.critic_from * how.steps)
        if judged:
            z = self._noise(mean)
            with half_precision(device):
                sample = self._prior(z).float()
                fooled = self._critic(sample).float().mean()
            loss = loss - how.critic_weight * pixels * fooled
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        gap = torch.zeros((), device=device)
        if judged:  # only now, as the loss above was led through the critic's weights
            gap = _critic_step(self._critic, self._judge, x, sample.detach(), step % 16 == 0)
        nn.utils.clip_grad_norm_(self._learnt, 2e3)
        self._optimiser.step()
        _average(self._kept, self._prior, how.average if step > 100 else 0.9)
        self.done = step + 1
        if step % 50 != 49 and not self.finished:
            return None
        if not math.isfinite(float(loss.detach())):
            raise RunError("The prior's loss is not finite", todo="Lower its learning rate.")
        rmse, nats = float(mse.detach().sqrt()), float(divergence.detach())
        return PriorLog(self.done, rmse, nats, float(gap))

    def finish(self) -> tuple[Prior, Encode]:
        """The averaged prior, frozen, and an encoder to its latents; the trainer is spent."""
        self._kept.eval()
        self._posterior.eval().requires_grad_(False)
        generator = self._kept.generator
        assert isinstance(generator, FaceGenerator)
        return self._kept, _match_standard_normal(
            generator, self._posterior, self._images, self._random
        )

    def state(self) -> dict[str, Tensor]:
        """All that the next steps depend on, as named tensors."""
        found = {"random": self._random.get_state(), "done": torch.tensor(self.done)}
        for name, module in self._modules().items():
            found |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        for name, optimiser in self._optimisers().items():
            for place, slots in optimiser.state_dict()["state"].items():
                found |= {f"{name}.{place}.{slot}": value for slot, value in slots.items()}
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` gave; KeyError or RuntimeError where it is of another shape."""
        for name, module in self._modules().items():
            module.load_state_dict(_below(state, name))
        for name, optimiser in self._optimisers().items():
            slots = _below(state, name)
            for place, weight in enumerate(optimiser.param_groups[0]["params"]):
                own = _below(slots, str(place))
                if own:
                    optimiser.state[weight] = {k: _like(weight, v) for k, v in own.items()}
        self._random.set_state(state["random"])
        self.done = int(state["done"])

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._random).to(like.device)

    def _modules(self) -> dict[str, nn.Module]:
        return {"prior": self._prior, "posterior": self._posterior, "kept": self._kept}

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"optimiser": self._optimiser, "judge": self._judge}


def _like(weight: Tensor, value: Tensor) -> Tensor:
    """A copy laid out in memory like the weight, as if it had never left; a count as it is."""
    return torch.empty_like(weight).copy_(value) if value.dim() else value.clone()


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


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
    trainer = PriorTrainer(images, shape=shape, training=training, rng=rng, mirror=mirror)
    while not trainer.finished:
        log = trainer.advance()
        if log is not None:
            report(log)
    return trainer.finish()


@torch.no_grad()
def _match_standard_normal(
    generator: FaceGenerator, posterior: nn.Module, images: Tensor, random: torch.Generator
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
    with half_precision(real.device):
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
