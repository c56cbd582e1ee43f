"""A subject that is audited in a second: coloured squares for faces, averages for features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.attacks import decoder
from leakaudit.audit import edge
from leakaudit.audit.edge import rows_are_alone
from leakaudit.audit.plan import Plan, make_plan
from leakaudit.audit.store import digest
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Defence, Workshop
from leakaudit.maths.intervals import bootstrap_counts
from leakaudit.metrics import indistinguishability, utility
from leakaudit.models.decoder import DecoderLog, DecoderTraining, train_decoder
from leakaudit.models.faces import Faces
from leakaudit.models.oracle import IdentityOracle
from leakaudit.models.prior import Prior, PriorShape
from leakaudit.models.subject import Subject
from leakaudit.models.weights import sha256_of_state

SIZE, LATENT = 32, 8
PRESET = """
[attacks.blackbox-decoder]
training.steps = {steps}
training.batch = 16
training.rate = 0.01

[attacks.whitebox-latent]
restarts = 2
search.steps = 5
samples = 30

[attacks.control-attributes]
features = 16

[defences.crafter]
worth = 1
start_steps = 1
outer_steps = 1
solve_steps = 2
plan_size = 2
samples = 30
search.steps = 3
"""


class Pooling(nn.Module):
    """A planted leak: pictures (N, 3, 32, 32) to averages (N, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4) / 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x)


class Constant(Pooling):
    """The same feature whatever the picture, with a path for (zero) gradients."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(self.mix(x)) + 0 * self.mix(x)


class Broken(Pooling):
    """NaN for every picture brighter than the darkest ones."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x) * float("nan")


class Head(nn.Module):
    """Two attributes: brighter above than below, and redder than blue."""

    def forward(self, features: Tensor) -> Tensor:
        f = features.mean(3)
        above, below = f[:, :, :4].mean((1, 2)), f[:, :, 4:].mean((1, 2))
        return 10 * torch.stack([above - below, f[:, 0].mean(1) - f[:, 2].mean(1)], 1)


def people(count: int, pictures: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """Pictures (count * pictures, 3, 32, 32) and their people: 4x4 patches of colour and noise."""
    patches = torch.rand(count, 3, 4, 4, generator=rng.torch()).repeat_interleave(pictures, 0)
    noise = torch.randn(len(patches), 3, SIZE, SIZE, generator=rng.derive("noise").torch())
    images = (fn.interpolate(patches, SIZE) + 0.03 * noise).clamp(0, 1)
    return images, torch.arange(count).repeat_interleave(pictures)


def embed(images: Tensor) -> Tensor:
    """What the toy's judge looks at: the patches of colour, centred."""
    return fn.adaptive_avg_pool2d(images, 4).flatten(1) - 0.5


def toy_subject(
    encoder: nn.Module | None = None,
    *,
    attacked: int = 32,
    gallery: int = 48,
    prior: bool = True,
    head: bool = True,
) -> Subject:
    """``attacked`` people with one picture each among ``gallery`` names, 96 public pictures."""
    rng = Rng(0, ("toy",))
    known, who = people(gallery, 3, rng.derive("private"))
    seen = known[::3][:attacked]
    enrolled = torch.cat([known[1::3], known[2::3]])
    public, _ = people(96, 1, rng.derive("public"))
    split = (encoder or Pooling()).eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Prior(PriorShape(size=SIZE, latent=LATENT, width=8))
    generator.eval().requires_grad_(False)
    judge = Head().eval()
    truth = (judge(Pooling()(seen)) > 0).float()
    return Subject(
        encoder=split,
        faces=Faces(
            seen, torch.arange(attacked), tuple(f"person {k}" for k in range(gallery)),
            truth.detach(), ("bright", "red"),
        ),
        public=public,
        oracle=IdentityOracle(embed, enrolled, who[::3].repeat(2), name="toy"),
        prior=generator if prior else None,
        head=judge if head else None,
        synthetic=True,
        about={"encoder": "toy", "layer": "mix", "images": attacked, "people": attacked},
        trained=("The decoder was trained in this run.",),
    )  # fmt: skip


_ALONE: dict[tuple[object, ...], bool] = {}


def _once_a_deployment(defence: Defence, shop: Workshop, block: int) -> bool:
    """Whether rows are alone, tried once for each encoder, prior and defence."""
    assert shop.prior is not None
    encoder = repr(shop.encoder), sha256_of_state(shop.encoder)
    key = (*encoder, sha256_of_state(shop.prior), repr(defence), block, str(shop.public.device))
    if key not in _ALONE:
        _ALONE[key] = rows_are_alone(defence, shop, block)
    return _ALONE[key]


def cheapen(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Few draws in the slow intervals, and no LPIPS, whose weights are in torch's cache or not.

    What an export tries before each run is tried once for each deployment.
    """
    patch.setattr(edge, "rows_are_alone", _once_a_deployment)
    patch.setenv("TORCH_HOME", str(folder / "torch-home"))
    patch.setenv("LEAKAUDIT_CACHE", str(folder / "cache"))
    patch.setattr(indistinguishability, "DRAWS", 4)
    patch.setattr(
        utility,
        "bootstrap_counts",
        lambda statistic, groups, generator, *, draws: bootstrap_counts(
            statistic, groups, generator, draws=min(draws, 40)
        ),
    )


def train_once(patch: pytest.MonkeyPatch) -> None:
    """Equal trainings of a decoder (pairs, settings, stream) are done once for many tests.

    For tests of what comes after a training; where repeatability is tested, train again.
    """
    patch.setattr(decoder, "train_decoder", _trained_once)


def _trained_once(
    features: Tensor, images: Tensor, *, training: DecoderTraining, rng: Rng
) -> tuple[nn.Module, DecoderLog]:
    key = (digest(features, images), training, rng)
    if key not in _TRAINED:
        _TRAINED[key] = train_decoder(features, images, training=training, rng=rng)
    return _TRAINED[key]


_TRAINED: dict[tuple[str, DecoderTraining, Rng], tuple[nn.Module, DecoderLog]] = {}


def toy_preset(folder: Path, *, steps: int = 40) -> str:
    """The path of a preset that is done in a second."""
    path = folder / "toy.toml"
    path.write_text(PRESET.format(steps=steps), encoding="utf-8")
    return str(path)


def toy_plan(
    folder: Path,
    *defences: str,
    attacks: list[str] | None = None,
    seed: int = 0,
    steps: int = 40,
    prior: bool = True,
    head: bool = True,
) -> Plan:
    """The plan of the toy's preset."""
    return make_plan(
        preset=toy_preset(folder, steps=steps), defences=list(defences), attacks=attacks, seed=seed,
        has_prior=prior, has_head=head,
    )  # fmt: skip
