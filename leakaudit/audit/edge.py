"""A deployed defence as it runs at the edge: fixed blocks, one key, rows that don't know others."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ParamSpec, TypeVar, cast, final

import torch
from torch import Tensor, nn

from leakaudit.core.errors import InputError, RunError, UsageError
from leakaudit.core.keys import keyed_rng, own_key
from leakaudit.defences.base import Defence, Deployed, Workshop
from leakaudit.defences.crafted import MOVED
from leakaudit.defences.crafter import CrafterAtWork
from leakaudit.defences.identity import encode
from leakaudit.maths.hypergradient import linearise
from leakaudit.models.devices import CPU, full_precision
from leakaudit.models.encoder import SplitEncoder, steepest
from leakaudit.models.prior import Prior
from leakaudit.models.programs import Program
from leakaudit.models.weights import sha256_of_state

P = ParamSpec("P")
R = TypeVar("R")
BLOCK = 16
REFERENCE = 256
"""Faces of the prior that stand in for public pictures, where there are none."""

UNMOVED = 1e-4
"""A release this near to the clean feature (of its norm) counts as unprotected."""

NOT_FINITE = "its feature holds NaN or infinite numbers"
LEFT_BARE = "the defence left its feature as it was"
NOT_LED = "no step led its inversion away, so its release would be what an adversary finds anyway"


@final
@dataclass(frozen=True, eq=False)
class Protected:
    """Protected features (N, ...) in the order of the pictures, and what became of each row.

    ``faults`` names the rows that could not be protected and why; their features are NaN.
    ``losses`` hold one number a face (N,) where the defence tells them, NaN where it doesn't.
    """

    features: Tensor
    faults: dict[int, str]
    losses: dict[str, Tensor]

    def loss(self, name: str) -> Tensor:
        """One loss a face (N,), NaN where it wasn't told."""
        return self.losses.get(name, torch.full((len(self.features),), float("nan")))

    @staticmethod
    def joined(parts: Sequence[Protected]) -> Protected:
        """Blocks (at least one) as one, in their order."""
        faults, row = dict[int, str](), 0
        for part in parts:
            faults |= {row + k: why for k, why in part.faults.items()}
            row += len(part.features)
        names = sorted({name for part in parts for name in part.losses})
        losses = {name: torch.cat([part.loss(name) for part in parts]) for name in names}
        return Protected(torch.cat([part.features for part in parts]), faults, losses)

    def whole(self) -> Tensor:
        """The features, where every row is protected; RunError says which are not."""
        if self.faults:
            row, why = next(iter(self.faults.items()))
            raise RunError(
                f"{len(self.faults)} of {len(self.features)} faces can't be protected; row {row}: "
                f"{why}",
                todo="Leave these pictures out, or use another beta",
            )
        return self.features


def _at_work(method: Callable[P, R]) -> Callable[P, R]:
    """The method of an `Edge` with gradients and in full precision, whatever the caller has set.

    Neither inference mode nor autocast of the caller's may make another release of a picture.
    """

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        device = cast("torch.device", kwargs.get("device") or getattr(args[0], "device", CPU))
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
            full_precision(device),
        ):
            return method(*args, **kwargs)

    return call


@final
class Edge:
    """Pictures in, protected features out: the same picture and key give the same bits.

    ``defence`` is deployed once, by draws of a key of its own: it follows from ``key`` (32 bytes),
    the defence with its settings, encoder, layer, preprocessing and prior, so that two settings or
    two layers of one picture have no draw in common. UsageError for an encoder that answers one
    picture in two ways, or has no gradient where the defence needs one. Pictures go through in
    blocks of ``block`` rows, the last one padded, so that every operation always sees one shape. A
    defence that doesn't replay, and every one of a user's own, is asked for one picture at a time,
    with a stream of the picture's own. ``public`` (M, 3, H, W) are pictures that the defence may
    look at; faces of the prior where there are none. Networks are moved to ``device``; pictures may
    lie anywhere, and what is released is on the CPU.
    """

    @_at_work
    def __init__(
        self, encoder: nn.Module, prior: Prior | None, defence: Defence, key: bytes, *,
        block: int = BLOCK, public: Tensor | None = None, device: torch.device = CPU,
    ) -> None:  # fmt: skip
        if block < 1:
            raise UsageError(f"A block of {block} rows holds no picture")
        if defence.name == "none":
            raise UsageError("'none' protects nothing, so there is nothing to export")
        if defence.coupling == "batch":
            raise UsageError(
                f"'{defence.name}' makes the releases of a batch together, and is audited so; here "
                "each picture's release is its own",
                todo="Take one of coupling=image, such as crafter as it is by default",
            )
        encoder, prior = encoder.to(device), None if prior is None else prior.to(device)
        self.encoder, self.prior, self.key, self.device = encoder, prior, key, device
        given = None if public is None else hashlib.sha256(_content(public)).hexdigest()
        public = (reference(prior) if public is None else public).to(device)
        told = _plain(encoder)
        feature = refuse_unsound(encoder, public, differentiable=defence.uses_prior)
        told = [row for row in told if row in _plain(encoder)]  # a counter says nothing
        shapes = (tuple(public.shape[1:]), feature)
        self._own = own_key(key, _deployment(encoder, told, shapes, prior, defence, given))
        deploy = keyed_rng(self._own, "deploy")
        shop = Workshop(encoder, public, prior, self._own)
        self.public, self.has_public = public, given is not None
        self.fell_back = False
        if "batch" in _settings(defence):
            if block > 1 and not rows_are_alone(_with(defence, batch=block), shop, block):
                block, self.fell_back = 1, True
            defence = _with(defence, batch=block)
        self.deployed: Deployed = defence.deploy(shop, deploy)
        self.defence, self.block = defence, block if self.deployed.replays else 1

    @_at_work
    def protect(self, images: Tensor) -> Protected:
        """Protected features of pictures (N, 3, H, W) in [0, 1]."""
        parts = [self._block(images[rows]) for rows in _blocks(len(images), self.block)]
        if not parts:
            raise InputError("There are no pictures to protect")
        return Protected.joined(parts)

    @_at_work
    def protect_features(self, features: Tensor) -> Protected:
        """Protected features of clean ones (N, ...), by draws of the key and the feature's bits.

        UsageError where the defence needs the picture.
        """
        if not isinstance(self.deployed, CrafterAtWork):
            raise UsageError(f"'{self.defence.name}' protects pictures, not features")
        shape = self.feature_shape()
        if not isinstance(features, Tensor):
            raise InputError(f"Features are a tensor (N, ...), not a {type(features).__name__}")
        if tuple(features.shape[1:]) != shape or not len(features):
            raise InputError(f"Features of shape {tuple(features.shape)}, not (N, *{shape})")
        if not bool(features.isfinite().all()):
            raise InputError("The features hold NaN or infinite numbers")
        parts = []
        for rows in _blocks(len(features), self.block):
            given = features[rows].detach().float().to(self.device)
            padded = _padded(given, self.block)
            partners = torch.stack([self.deployed.drawn(_bits(row)) for row in padded])
            made = self.deployed.craft(padded, partners)
            parts.append(made.features.detach()[: len(given)].cpu())
        protected, clean = torch.cat(parts), features.detach().float().cpu()
        whole = torch.ones(len(features), dtype=torch.bool)
        return Protected(protected, _faults(protected, clean, whole), {})

    def clean(self, images: Tensor) -> Tensor:
        """Undefended features (N, ...) of pictures, on the CPU."""
        return encode(self.encoder, images.to(self.device)).cpu()

    @torch.no_grad()
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one feature."""
        return tuple(encode(self.encoder, self.public[:1]).shape[1:])

    def _block(self, images: Tensor) -> Protected:
        """One block; a row that can't be computed is tried alone, and fails alone."""
        count = len(images)
        padded = _padded(images.to(self.device), self.block)
        clean = self.clean(padded)
        finite = clean.isfinite().flatten(1).all(1)
        if not bool(finite[:count].any()):
            return _failed(clean[:count], dict.fromkeys(range(count), NOT_FINITE))
        if not bool(finite.all()):  # such a row would break the solver for all
            stand_in = int(finite[:count].nonzero()[0, 0])
            sound = finite.to(self.device).view(-1, 1, 1, 1)
            padded = torch.where(sound, padded, padded[stand_in])
        try:
            rng = keyed_rng(self._own, "release", _content(padded[0]))
            released = self.deployed.release(padded, rng)
        except RunError as error:  # some row may be to blame
            if count > 1:
                return Protected.joined([self._block(image[None]) for image in images])
            return _failed(clean[:1], {0: str(error)})
        features = released.features.detach().float()[:count].cpu().clone()
        told = {name: torch.tensor(v)[:count] for name, v in released.per_face.items()}
        faults = _faults(features, clean[:count], finite[:count])
        led = told.pop(MOVED, torch.ones(count)) > 0
        faults |= {row: NOT_LED for row in range(count) if not bool(led[row]) and row not in faults}
        if faults:
            features[list(faults)] = float("nan")
        return Protected(features, faults, told)


def _plain(encoder: nn.Module) -> list[list[object]]:
    """Numbers and names that modules hold beside tensors: where to cut, what to add, strides.

    Not those of our own wrapper: where a file lies says nothing of the network in it.
    """
    network = encoder.network if isinstance(encoder, SplitEncoder) else encoder
    return [
        [name, key, repr(value)]
        for name, part in network.named_modules()
        for key, value in sorted(vars(part).items())
        if not key.startswith("_") and key != "training" and _is_plain(value)
    ]


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    # What may be a path would be another one on another machine.
    return isinstance(value, bool | int | float) or (isinstance(value, str) and os.sep not in value)


def _deployment(
    encoder: nn.Module, plain: list[list[object]], shapes: tuple[tuple[int, ...], ...],
    prior: Prior | None, defence: Defence, public: str | None,
) -> str:  # fmt: skip
    """What tells this deployment from another one of the same key.

    ``public`` is the hash of given public pictures: a defence may take its scale from them, and one
    draw at two scales cancels out. Tensors alone don't tell encoders apart: two layers of one
    network, two preprocessings and two programs may have the same, and ``plain`` is what modules
    hold beside tensors. Code of one's own that differs in nothing but its text isn't told apart.
    """
    settings = repr(defence)
    told = defence.name if " at 0x" in settings else settings  # an address says nothing
    kinds = [[name, type(part).__qualname__] for name, part in encoder.named_modules()]
    network: list[object] = [sha256_of_state(encoder), kinds, plain, shapes]
    if isinstance(encoder, SplitEncoder):
        network += [encoder.layer, asdict(encoder.preprocessing)]
        if isinstance(encoder.network, Program):
            network.append(encoder.weights_sha256)
    generator = "" if prior is None else sha256_of_state(prior)
    return "\n".join((told, json.dumps(network), generator, public or ""))


def refuse_unsound(encoder: nn.Module, public: Tensor, *, differentiable: bool) -> tuple[int, ...]:
    """Refuses an encoder whose features couldn't be protected, on a few public faces.

    The shape of a face's feature where they could. RunError where they aren't finite, UsageError
    where one picture has two features, or the defence needs a gradient from feature to picture and
    there is none, or none of that gradient, or features aren't rows of float32 (or float64 where
    pictures are).
    """
    faces = public[:4]
    if len(faces) == 0 or not faces.is_floating_point():
        raise UsageError(
            f"The public pictures are {len(public)} of {public.dtype}",
            todo="Give some, as float numbers (M, 3, H, W) in [0, 1]",
        )
    one, two = (encode(encoder, faces) for _ in range(2))
    if one.dim() < 2:
        raise UsageError(
            f"The encoder gives a feature of shape {tuple(one.shape)} for 4 pictures",
            todo="Let it return a row of numbers a picture, (N, ...)",
        )
    if one.dtype not in (torch.float32, torch.float64) or one.dtype != faces.dtype:
        raise UsageError(
            f"The encoder's features are {one.dtype}, in which nothing can be crafted",
            todo="Let it return them as float32: feature.float()",
        )
    if not bool(one.isfinite().all()):
        raise RunError(
            "The encoder gives NaN or infinite features of public faces",
            todo="Check its weights and preprocessing with leakaudit doctor",
        )
    if float((one - two).norm()) > 1e-3 * float((one - one.mean(0)).norm()):
        raise UsageError(
            "The encoder gives another feature of the same picture each time, so that no release "
            "can be replayed",
            todo="Put it into evaluation mode, and switch off dropout and random layers",
        )
    shape = tuple(one.shape[1:])
    if not differentiable:
        return shape
    try:
        slope = steepest(encoder, faces)
    except RuntimeError:
        slope = torch.zeros_like(faces)
    if not bool(slope.isfinite().all()) or not bool((slope != 0).any()):
        raise UsageError(
            "This defence follows the encoder's gradients, and from its feature to the picture "
            "there is none",
            todo="Take torch.no_grad out of its forward, or protect by another defence",
        )
    at = linearise(lambda x: encoder(x.view_as(faces)), faces.flatten(1))
    try:
        pushed = at.push(slope.flatten(1))
    except RunError as error:
        raise UsageError(error.what, todo=error.todo) from error
    if not bool((pushed != 0).any()):  # along its slope |F|² grows, so that the feature moves
        raise UsageError(
            "The encoder's gradients can't be differentiated again: by them no picture moves its "
            "feature, though its slope isn't 0",
            todo="Write its own backward passes so that they can be, or protect by another defence",
        )
    return shape


def reference(prior: Prior | None) -> Tensor:
    """Faces (M, 3, H, W) of the prior, always the same ones: a stored public reference."""
    if prior is None:
        raise UsageError("Neither a prior nor public pictures: one of them is needed")
    return prior.sample(REFERENCE, keyed_rng(b"public", "reference"))


def rows_are_alone(defence: Defence, shop: Workshop, block: int) -> bool:
    """Whether on this machine a row's bits depend on neither its neighbours nor its place.

    Tried with every operation of the defence, in few steps, on ``block`` faces: each row one place
    on, and half of the rows beside other neighbours. Libraries choose their kernels by shape, and
    some treat the last rows of a matrix otherwise; an encoder may mix its batch.
    """
    few = _with(defence, start_steps=2, outer_steps=2, samples=64, worth=1.0)
    if "search" in _settings(defence):
        few = _with(few, search=replace(_settings(defence)["search"], steps=2))
    rng = keyed_rng(b"public", "rows")
    at_work = few.deploy(shop, rng)
    if not at_work.replays:
        return True
    faces = shop.public[torch.arange(block) % len(shop.public)]

    def released(images: Tensor) -> Tensor:
        return at_work.release(images, rng).features

    first = released(faces)
    moved = released(faces.roll(1, 0)).roll(-1, 0)
    crowd = faces.clone()
    crowd[1::2] = faces[:1]
    beside_others = released(crowd)[::2]
    return torch.equal(first, moved) and torch.equal(first[::2], beside_others)


def _settings(defence: Defence) -> dict[str, Any]:
    """The fields of a defence by name."""
    return {f.name: getattr(defence, f.name) for f in fields(cast("Any", defence))}


def _with(defence: Defence, **values: Any) -> Defence:
    """The defence with these values, as far as it has such settings."""
    known = {name: value for name, value in values.items() if name in _settings(defence)}
    return cast("Defence", replace(cast("Any", defence), **known))


def _blocks(count: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, count)) for start in range(0, count, block))


def _padded(images: Tensor, block: int) -> Tensor:
    """Fresh memory of always the same shape; the rest is filled with the first picture."""
    missing = block - len(images)
    return torch.cat([images, images[:1].expand(missing, *images.shape[1:])]).contiguous().clone()


def _content(image: Tensor) -> bytes:
    return (image.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8).numpy().tobytes()


def _bits(feature: Tensor) -> bytes:
    return feature.detach().cpu().contiguous().numpy().tobytes()


def _faults(features: Tensor, clean: Tensor, finite: Tensor) -> dict[int, str]:
    """Rows that must not leave: not finite, or as they were."""
    gone = ~(features.isfinite().flatten(1).all(1) & finite)
    moved = (features - clean).flatten(1).norm(dim=1)
    bare = moved <= UNMOVED * clean.flatten(1).norm(dim=1)
    why = {}
    for row in range(len(features)):
        if bool(gone[row]):
            why[row] = NOT_FINITE
        elif bool(bare[row]):
            why[row] = LEFT_BARE
    return why


def _failed(clean: Tensor, faults: dict[int, str]) -> Protected:
    return Protected(torch.full_like(clean, float("nan"), dtype=torch.float32), faults, {})
