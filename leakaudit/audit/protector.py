"""Crafter for programs: in front of one's own call of the cloud, or mapped over a lake of data."""

from __future__ import annotations

import contextlib
import copy
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from leakaudit.audit.edge import BLOCK, Edge, Protected
from leakaudit.audit.export import SHARD_SIZE, ExportOptions, export, parts_of
from leakaudit.audit.out_folder import OutFolder
from leakaudit.audit.own import crop_of
from leakaudit.audit.recipe import Recipe
from leakaudit.core.errors import InputError, UsageError
from leakaudit.core.files import overlap
from leakaudit.core.keys import LENGTH, new_key, read_key, seed_key
from leakaudit.core.registry import configure
from leakaudit.core.rng import Rng
from leakaudit.defences.crafter import Crafter as CrafterSettings
from leakaudit.defences.foreign import OVERSHOOT
from leakaudit.models.alignment import Aligner, aligner_of
from leakaudit.models.devices import CPU, device_of, full_precision
from leakaudit.models.generators import Prior
from leakaudit.models.own_prior import wrapped
from leakaudit.models.pictures import UnusableError, fit_picture
from leakaudit.models.prior_files import load_prior


@final
class Crafter:
    """Protects pictures or features in front of one's own code; see `defences.crafter.Crafter`.

    ``encoder`` maps pictures (N, 3, H, W) in [0, 1] to features (N, ...); a frozen copy of it is
    used. ``prior`` is a `Prior`, the file of one, or a generator of faces (N, 3, H, W) from
    standard normal latents (N, ``latent``). Larger ``beta`` means more privacy. ``key`` is 32
    secret bytes or the file that holds them, ``seed`` a number for tests; without either a fresh
    key is drawn, so that this object replays and another one doesn't. ``public`` (M, 3, H, W) are
    public pictures; ``settings`` are further ones of the defence, by name. Raises UsageError for
    what can't be used.
    """

    def __init__(
        self, encoder: nn.Module, prior: Prior | nn.Module | str | Path, beta: float = 4.0, *,
        latent: int | None = None, key: bytes | str | Path | None = None, seed: int | None = None,
        block: int = BLOCK, public: Tensor | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        if not isinstance(encoder, nn.Module):
            raise UsageError(f"The encoder is a {type(encoder).__name__}, not a torch.nn.Module")
        block = _whole(block, "block")
        public = None if public is None else pictures_of(public)
        how = configure(CrafterSettings, {"beta": beta, **settings}, where="Crafter")
        self._encoder, faces = _frozen(encoder).to(CPU), _prior(prior, latent).to(CPU)
        _try(self._encoder, faces, public)
        self._edge = Edge(self._encoder, faces, how, _key(key, seed), block=block, public=public)

    @property
    def block(self) -> int:
        """The fixed number of rows; 1 where this machine or encoder can't keep rows apart."""
        return self._edge.block

    def protect_images(self, images: Tensor | np.ndarray) -> Tensor:
        """Protected features (N, ...) of pictures, float32, in their order.

        ``images`` are a tensor (N, 3, H, W), float in [0, 1] or uint8, or an array (N, H, W, 3) of
        uint8; N may be 1. Raises RunError where a face can't be protected, and then gives nothing.
        """
        return self.try_images(images).whole()

    def try_images(self, images: Tensor | np.ndarray) -> Protected:
        """As ``protect_images``, with the rows that failed named and filled with NaN."""
        pictures = pictures_of(images)
        self._refuse_other_shape(pictures[:1])
        return self._edge.protect(pictures)

    def protect_features(self, features: Tensor) -> Tensor:
        """Protected features (N, ...) of clean ones, for an encoder that runs elsewhere.

        Draws come from the key and the bits of the feature, so that the same bits are released
        alike; a feature that differs by rounding is drawn anew.
        """
        return self._edge.protect_features(features).whole()

    def _refuse_other_shape(self, pictures: Tensor) -> None:
        with torch.no_grad():
            try:
                ours = self._encoder(pictures).shape[1:]
                made = self._encoder(self._edge.public[:1]).shape[1:]
            except (RuntimeError, ValueError, TypeError) as error:
                raise UsageError(
                    f"The encoder can't take pictures of shape {tuple(pictures.shape[1:])}: {error}"
                ) from error
        if ours == made and pictures.shape[1:] != self._edge.public.shape[1:]:
            raise UsageError(
                f"The pictures are {_size(pictures)}, and the prior's faces "
                f"{_size(self._edge.public)}: faces of another scale can't be led",
                todo="Resize the pictures to those of the prior",
            )
        if ours != made:
            raise UsageError(
                f"The encoder gives features of shape {tuple(ours)} for these pictures and "
                f"{tuple(made)} for those of the prior",
                todo="Give pictures of the prior's size",
            )


def _try(encoder: nn.Module, prior: Prior, public: Tensor | None) -> None:
    """UsageError where the encoder doesn't turn each face of the prior into a row of numbers."""
    with torch.no_grad():
        faces = prior.sample(3, Rng(0, ("try",)))
        if public is not None and public.shape[1:] != faces.shape[1:]:
            raise UsageError(
                f"The public pictures are {_size(public)}, and the prior's faces {_size(faces)}",
                todo="Resize them to those of the prior",
            )
        for count in (1, 2, 3):
            try:
                feature = encoder(faces[:count])
            except Exception as error:
                raise UsageError(
                    f"The encoder can't take pictures {tuple(faces[:count].shape)} of float32: "
                    f"{error}",
                    todo="Give it as float32, encoder.float(), and so that it takes any number of "
                    "pictures (N, 3, H, W) of the prior's size",
                ) from error
            _check_rows(feature, count)


def _check_rows(feature: object, count: int) -> None:
    if not isinstance(feature, Tensor):
        raise UsageError(
            f"The encoder gives a {type(feature).__name__}, not a tensor (N, ...)",
            todo="Wrap it in a torch.nn.Module whose forward returns the feature alone",
        )
    if feature.ndim < 2 or len(feature) != count:
        raise UsageError(
            f"The encoder gives a feature of shape {tuple(feature.shape)} for {count} pictures",
            todo="Let it return a row of numbers a picture, (N, ...)",
        )


def _size(pictures: Tensor) -> str:
    height, width = pictures.shape[-2:]
    return f"{width} x {height}"


@final
class Protector:
    """A plain callable for data engines: picklable, and loaded in the worker that first calls it.

    The arguments are those of `Recipe`: ``encoder``, ``layer``, ``prior``, ``defence`` such as
    ``"crafter:beta=2"``, ``key`` (the file of a secret key), and so on. Called with an array
    (N, H, W, 3) of uint8 it gives protected features (N, ...) in float32; called with a mapping it
    takes the column ``image`` out and puts the column ``feature`` in. Pictures of another size are
    cut as ``crop`` or ``align`` say, else to a centred square, and resized. A row that can't be
    protected is NaN.
    """

    def __init__(self, **recipe: Any) -> None:
        for name in ("prior", "prior_weights", "weights", "public", "key"):
            if recipe.get(name) is not None:
                recipe[name] = Path(recipe[name])
        try:
            self.recipe = Recipe(**recipe)
        except TypeError as error:
            told = str(error).replace("Recipe.__init__()", "Protector")
            raise UsageError(told) from error
        self._edge: Edge | None = None
        self._align: Aligner | None = None

    def __call__(self, batch: np.ndarray | Mapping[str, Any]) -> Any:
        """Protected features of a batch, or the batch with them in place of its pictures."""
        if isinstance(batch, Mapping):
            if "image" not in batch:
                raise InputError(f"The batch has no column 'image' but {', '.join(batch)}")
            rest = {name: column for name, column in batch.items() if name != "image"}
            return {**rest, "feature": self(batch["image"])}
        edge = self._loaded()
        side, crop = self.recipe.size, crop_of(self.recipe.crop)
        given = [np.asarray(picture) for picture in batch]
        _refuse_other_form(given)
        pictures, rows = [], []
        for row, picture in enumerate(given):
            with contextlib.suppress(UnusableError):
                pictures.append(fit_picture(picture, size=side, crop=crop, align=self._align))
                rows.append(row)
        return _features(edge, pictures, rows, batch)

    def __getstate__(self) -> dict[str, Any]:
        """The recipe alone travels; networks are loaded where they are needed."""
        return {"recipe": self.recipe, "_edge": None, "_align": None}

    def _loaded(self) -> Edge:
        if self._edge is None:
            self._align = aligner_of(self.recipe.align)
            self._edge = self.recipe.load().edge
        return self._edge


def protect(
    images: str | Path, out: str | Path, *, output_format: str = "safetensors",
    shard: str = "1/1", shard_size: int = SHARD_SIZE, keep_names: bool = False, **recipe: Any,
) -> dict[str, Any]:  # fmt: skip
    """What ``leakaudit protect`` does: every picture under ``images`` protected into ``out``.

    ``recipe`` are the arguments of `Protector`, whose key must be there (`secret_key`), and the
    others those of the command. Gives the manifest; the same call goes on where an interrupted one
    stopped. Raises UsageError, InputError, WeightsError and RunError as the command says them.
    """
    how, source, folder = Protector(**recipe).recipe, Path(images), Path(out)
    refuse_overlap(source, folder)
    options = ExportOptions(output_format, parts_of(shard), shard_size, keep_names)
    OutFolder(folder).refuse_others()
    pictures = how.source(source)
    with full_precision(device_of(how.device)):
        return export(how.load(), pictures, folder, options)


def refuse_overlap(images: Path | None, out: Path) -> None:
    """UsageError where one of the folders lies in the other."""
    if images is not None and overlap(images, out):
        raise UsageError(
            "--images and --out overlap: originals and protected features would be mixed",
            todo="Give two separate folders",
        )


def _refuse_other_form(rows: list[np.ndarray]) -> None:
    """InputError where no row is a picture, as then the batch was meant otherwise."""
    if rows and not any(r.shape[2:] == (3,) and r.dtype == np.uint8 for r in rows):
        raise InputError(
            f"No row of the batch is a picture (H, W, 3) of uint8: the first is an array of "
            f"{rows[0].dtype}, {rows[0].shape}",
            todo="Give an array (N, H, W, 3) of uint8, one picture as picture[None]",
        )


def _features(edge: Edge, pictures: list[np.ndarray], rows: list[int], batch: Any) -> np.ndarray:
    """Features in the rows of their pictures, NaN elsewhere."""
    shape = (len(batch), *edge.feature_shape())
    made = np.full(shape, np.nan, dtype=np.float32)
    if pictures:
        made[rows] = edge.protect(pictures_of(np.stack(pictures))).features.numpy()
    return made


def pictures_of(images: Tensor | np.ndarray) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] from any of the forms that are taken; InputError else."""
    if isinstance(images, np.ndarray):
        if images.ndim == 4 and images.shape[-1] == 3 and images.dtype == np.uint8:
            return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float().div(255).contiguous()
        told = f"an array of {images.dtype}, {images.shape}"
    elif isinstance(images, Tensor):
        told = f"a tensor of {images.dtype}, {tuple(images.shape)}"
        if images.ndim == 4 and images.shape[1] == 3:
            if images.dtype == torch.uint8:
                return images.float().div(255).contiguous()
            if images.is_floating_point():
                return _in_range(images.detach())
    else:
        told = f"a {type(images).__name__}"
    raise InputError(
        f"These are no pictures but {told}",
        todo="Give a tensor (N, 3, H, W) in [0, 1] or uint8, or an array (N, H, W, 3) of uint8",
    )


def _in_range(images: Tensor) -> Tensor:
    if not bool(images.isfinite().all()):
        raise InputError("The pictures hold NaN or infinite numbers")
    least, most = (float(images.min()), float(images.max())) if len(images) else (0.0, 1.0)
    if min(least, 1 - most) < -OVERSHOOT:
        raise InputError(
            f"The pictures lie between {least:.4g} and {most:.4g}",
            todo="Scale them to [0, 1]; mean and std belong into the encoder",
        )
    return images.float().clamp(0, 1).contiguous()


def _prior(given: Prior | nn.Module | str | Path, latent: int | None) -> Prior:
    if isinstance(given, (str, Path)):
        path = Path(given)
        return load_prior(path)[0]
    if not isinstance(given, nn.Module):
        raise UsageError(f"The prior is a {type(given).__name__}, not a network or a file")
    frozen = _frozen(given)
    if isinstance(frozen, Prior):
        return frozen
    if latent is None:
        latent = getattr(given, "latent", None)
    if latent is None:
        raise UsageError(
            "A generator of your own needs the length of its latents",
            todo="Say latent=, the number that the generator takes",
        )
    return wrapped(frozen, latent)


def _frozen(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode that later training of the original doesn't touch."""
    try:
        with torch.no_grad():  # else the copy of a program has tensors that were computed
            copied = copy.deepcopy(module)
    except Exception as error:
        raise UsageError(
            f"This {type(module).__name__} can't be copied: {error}",
            todo="Take what hangs on its tensors away (remove_weight_norm), or copy it yourself",
        ) from error
    for parameter in copied.parameters():  # a program's module has no requires_grad_
        parameter.requires_grad_(False)
    return copied.eval()


def _key(key: bytes | str | Path | None, seed: int | None) -> bytes:
    seed = None if seed is None else _whole(seed, "seed")
    if key is not None and seed is not None:
        raise UsageError("Give a key or a seed, not both")
    if isinstance(key, bytes):
        if len(key) != LENGTH:
            raise UsageError(f"A key has {LENGTH} bytes, not {len(key)}")
        return key
    if key is not None:
        return read_key(Path(key))
    return new_key() if seed is None else seed_key(seed)


def _whole(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name} is {value!r}, not a whole number") from None


__all__ = ["Crafter", "Protector", "pictures_of"]
