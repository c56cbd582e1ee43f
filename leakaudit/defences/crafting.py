"""What the crafted defences measure with: simulated adversary, units of the losses, partners."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar, final

import torch
from torch import Tensor
from torch.nn import functional as fn

from leakaudit.core.errors import UsageError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Workshop
from leakaudit.defences.identity import encode
from leakaudit.maths.chunks import bounded, in_chunks
from leakaudit.maths.emd import pairwise_distance
from leakaudit.maths.hypergradient import Linearised, linearise, stationarity
from leakaudit.maths.mean_curvature import summed_normal
from leakaudit.maths.transport import Transport
from leakaudit.models.best_response import Amortiser, LatentSearch, Reader, search
from leakaudit.models.prior import Prior, PriorShape

T = TypeVar("T")
SMOOTH = 0.02  # of a stranger's distance: keeps the distance differentiable at the partner
CROWD = 64  # faces of the prior over which the curvature is averaged
SAMPLES = 10  # products with J' for that, a coordinate of the latent: an error of about a third
POWER_STEPS = 4  # of the power iteration behind the stationarity that is reported


class Settings(Protocol):
    """The settings that every crafted defence has; see ``Crafter`` for what they mean."""

    @property
    def plan_size(self) -> int: ...  # noqa: D102
    @property
    def pool(self) -> int: ...  # noqa: D102
    @property
    def unshade(self) -> bool: ...  # noqa: D102
    @property
    def samples(self) -> int: ...  # noqa: D102
    @property
    def search(self) -> LatentSearch: ...  # noqa: D102


def prior_of(workshop: Workshop, name: str) -> Prior:
    """The defender's prior; UsageError where there is none."""
    if workshop.prior is None:
        raise UsageError(f"{name} needs a prior", todo="Give public images (--public) to train one")
    return workshop.prior


def curvature_ahead() -> int:
    """Encoder passes that the mean curvature takes, for a prior of the usual size."""
    return 3 * CROWD + 2 * SAMPLES * PriorShape().latent


def key_of(rng: Rng) -> bytes:
    """The key of the partners' draws: as secret as the stream."""
    stream = rng.derive("crafter-key")
    return stream.octets(32) if rng.secret else stream.state.to_bytes(8, "big")


def drawn_by(key: bytes, images: Tensor) -> Rng:
    """The stream that this key and these pixels, in 8 bits, draw."""
    content = (images.detach().cpu() * 255).round().to(torch.uint8).numpy().tobytes()
    return drawn_from(key, content)


def drawn_from(key: bytes, content: bytes) -> Rng:
    """The stream that this key and this content draw: HMAC-SHA256."""
    digest = hmac.new(key, content, hashlib.sha256).digest()
    if len(key) < len(digest):  # of an audit's seed, which is no secret
        return Rng(int.from_bytes(digest[:8], "big"), ("crafter", "partners"))
    return Rng(int.from_bytes(digest, "big"), ("crafter", "partners"), secret=True)


def without_ramps(images: Tensor) -> Tensor:
    """Pictures (N, C, H, W) less each channel's least-squares slope across and down."""
    for axis in (-1, -2):
        line = torch.linspace(-1, 1, images.shape[axis], dtype=images.dtype, device=images.device)
        line = line if axis == -1 else line.unsqueeze(1)
        ramp = line.expand(images.shape[-2:])
        slope = (images * ramp).sum((-1, -2), keepdim=True) / ramp.square().sum().clamp(min=1e-12)
        images = images - slope * ramp
    return images


@final
class Measures:
    """What a defence crafts with: the simulated adversary, a unit for each loss, and partners.

    ``scale`` is the variance of the prior's features, summed over elements; ``stranger`` the mean
    distance of two faces of the prior; ``draws`` (samples, latent) of the prior, ``looks`` what
    pictures are pooled by; ``stored`` pooled inversions of public faces (plan_size - 1, d).
    ``passes`` counts faces through the encoder: a backward pass, or a product with a Jacobian,
    is two more; what another deployment left in the workshop counts as if it were done again.
    """

    def __init__(
        self, how: Settings, workshop: Workshop, rng: Rng, *, name: str, curved: bool = True
    ) -> None:
        self.prior = prior = prior_of(workshop, name)
        self.encoder, self._how, self.passes = workshop.encoder, how, 0
        self._kept = workshop.kept
        self._same = (self.encoder, prior, rng.state, how.samples, how.search)
        self._transport, public = Transport(), workshop.public
        self._stream = rng
        self.looks = (how.pool, how.unshade)
        self._curvature: tuple[Tensor, Tensor] | None = None
        draws = self.draws = prior.draw(how.samples, rng.derive("amortiser"))
        self._amortiser = self.once(("amortiser",), draws, lambda: Amortiser(self.response, draws))
        self.scale = self._amortiser.scale
        with torch.no_grad():
            shown = in_chunks(prior, draws[:256], 64)
            if how.pool > min(shown.shape[-2:]):
                raise UsageError(
                    f"pool={how.pool} is larger than the prior's faces of {shown.shape[-1]} pixels",
                    where=name,
                    todo="Take a smaller pool",
                )
            faces = self.pooled(shown)
        apart = pairwise_distance(faces[: len(faces) // 2], faces[len(faces) // 2 :])
        self.stranger = float(apart.mean().clamp(min=1e-12))
        others = public[: how.plan_size - 1]
        self.stored = faces[:0]
        if len(others):
            latents = self.invert(self.encoded(others))
            with torch.no_grad():
                self.stored = self.pooled(prior(latents))
        if curved:
            self.mean_curvature()
        self.at_deployment = self.passes

    def once(self, what: tuple[Hashable, ...], given: Tensor, make: Callable[[], T]) -> T:
        """What ``make`` makes of ``given``, or what an equal deployment made of the same."""
        if self._kept is None:
            return make()
        content = given.detach().cpu().contiguous().numpy().tobytes()
        key = (*what, *self._same, hashlib.sha256(content).digest())
        if key in self._kept:
            made, passes = self._kept[key]
            self.passes += passes
        else:
            before = self.passes
            made = make()
            self._kept[key] = made, self.passes - before
        found: T = made
        return found

    def mean_curvature(self) -> tuple[Tensor, Tensor]:
        """The mean of J'J over faces of the prior, (latent, latent): of feature and pooled face.

        Each in the unit of its loss: features by ``scale``, pooled faces by ``stranger`` squared.
        """
        if self._curvature is None:
            self._curvature = self.once(("curvature", *self.looks), self.draws, self._averaged)
        return self._curvature

    def _averaged(self) -> tuple[Tensor, Tensor]:
        latents = self.draws[:CROWD]
        probes = math.ceil(SAMPLES * latents.shape[1] / len(latents))
        streams = [self._stream.derive("curvature", row) for row in range(len(latents))]
        size = (latents.shape[1], latents.shape[1])
        feature = face = torch.zeros(size, dtype=latents.dtype, device=latents.device)
        step = bounded(16)
        for start in range(0, len(latents), step):
            z, own = latents[start : start + step], streams[start : start + step]
            feature = feature + summed_normal(self.linearised(z), probes, own)
            at = linearise(lambda z: self.pooled(self.prior(z)), z)
            face = face + summed_normal(at, probes, own)
        return feature / (len(latents) * self.scale), face / (len(latents) * self.stranger**2)

    def reader(self, targets: Tensor) -> Reader:
        """The ridge regression of ``targets`` (samples, k) by the features of ``draws``."""
        return self._amortiser.reader(targets)

    def response(self, z: Tensor) -> Tensor:
        """``Enc(G(z))``, (N, ...), for latents (N, latent)."""
        self.passes += len(z) * (3 if z.requires_grad and torch.is_grad_enabled() else 1)
        feature: Tensor = self.encoder(self.prior(z))
        return feature

    @torch.no_grad()
    def answered(self, z: Tensor) -> Tensor:
        """The response, of which no derivative is wanted."""
        return self.response(z)

    def apart(self, one: Tensor, other: Tensor) -> Tensor:
        """The utility loss (N,) of features (N, ...) that stand for others."""
        return (one - other).flatten(1).square().sum(1) / self.scale

    def encoded(self, images: Tensor) -> Tensor:
        """Features (N, ...) of pictures (N, 3, H, W)."""
        self.passes += len(images)
        return encode(self.encoder, images)

    def linearised(
        self, z: Tensor, response: Callable[[Tensor], Tensor] | None = None
    ) -> Linearised:
        """The response (or another one through the encoder) near ``z``, its products counted."""
        count = len(z)
        before = self.passes
        at = linearise(response or self.response, z)
        self.passes = before + 3 * count  # forward, and back once to be differentiated

        def counted(product: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def call(p: Tensor) -> Tensor:
                self.passes += 2 * count
                return product(p)

            return call

        return Linearised(at.feature, counted(at.push), counted(at.back))

    def invert(self, features: Tensor) -> Tensor:
        """The simulated adversary's best response: latents (N, latent) for features (N, ...)."""
        start = self._amortiser(features)
        how = self._how.search
        return search(self.response, features, start, scale=self.scale, how=how).latents

    def unsettled(self, z: Tensor, features: Tensor) -> Tensor:
        """Inner stationarity (N,) of z for features: 0 where no small step gets nearer."""
        self.passes += len(z) * (5 + 4 * POWER_STEPS)

        def response(z: Tensor) -> Tensor:
            feature: Tensor = self.encoder(self.prior(z))
            return feature

        return stationarity(response, z, features, iterations=POWER_STEPS)

    def pooled(self, images: Tensor) -> Tensor:
        """Pictures as vectors (N, d): pooled, and without the ramps of light from a side."""
        pooled = fn.avg_pool2d(images, self._how.pool)
        return (without_ramps(pooled) if self._how.unshade else pooled).flatten(1)

    @torch.no_grad()
    def drawn(self, rng: Rng, count: int) -> Tensor:
        """Pooled faces (count, d) of the prior."""
        return self.pooled(self.prior(self.prior.draw(count, rng)))

    def partners(self, image: Tensor, key: bytes) -> Tensor:
        """Pooled faces of the prior (plan_size, d) that this key and picture (3, H, W) draw."""
        return self.drawn(drawn_by(key, image), self._how.plan_size)

    def charged(self, made: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
        """Costs (N, plan_size) of pooled faces (N, d) towards partners, and the plan's shares."""
        apart = (made.unsqueeze(1) - partners).square().sum(2)
        cost = (apart + (SMOOTH * self.stranger) ** 2).sqrt() / self.stranger
        return cost, self.shares(made.detach(), partners).to(cost)

    def shares(self, made: Tensor, partners: Tensor) -> Tensor:
        """Where the plan sends each face (N, plan_size); rows sum to 1."""
        if partners.shape[1] == 1:
            return torch.ones(len(made), 1, device=made.device)
        rows = []
        for face, goals in zip(made, partners, strict=True):
            crowd = torch.cat([face.unsqueeze(0), self.stored])
            plan = self._transport.plan(pairwise_distance(crowd, goals))
            rows.append(plan[0] * len(crowd))
        return torch.stack(rows)

    def by(self, transport: Transport) -> None:
        """Takes plans by this transport from now on."""
        self._transport = transport
