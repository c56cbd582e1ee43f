"""Priors and half-finished trainings on disk: safetensors with text beside the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from leakaudit.core.errors import UsageError, WeightsError
from leakaudit.models.generators import Prior, PriorShape, default_shape
from leakaudit.models.prior import PriorTrainer, shape_metadata
from leakaudit.models.weights import load_into, load_state, save_safetensors


def save_prior(path: Path, prior: Prior, facts: Mapping[str, str] | None = None) -> None:
    """Write a prior of ours with its shape, and ``facts`` on where it comes from; whole or not.

    For its owner's eyes (0600): what it makes can resemble the people it was made of.
    """
    told = {**(facts or {}), **shape_metadata(prior.shape)}
    save_safetensors(path, prior.state_dict(), told, mode=0o600)


def load_prior(path: Path, *, size: int | None = None) -> tuple[Prior, dict[str, str]]:
    """The frozen prior of a file, and the text beside it.

    A file without a shape in it is taken for the usual one. Raises `WeightsError` for a file that
    isn't a prior's, `UsageError` where its pictures have another side than ``size``.
    """
    state = load_state(path)
    facts = read_facts(path)
    shape = _shape_of(facts, path, size or PriorShape().size)
    if size is not None and shape.size != size:
        raise UsageError(
            f"The prior makes pictures of {shape.size} pixels, and the scan's have {size}",
            where=path.name,
            todo=f"Say --input-size {shape.size}, or give a prior of the other size",
        )
    with torch.random.fork_rng(devices=[]):
        prior = Prior(shape)
    load_into(prior, state, where=path.name)
    prior.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return prior.eval().requires_grad_(False), facts


def read_facts(path: Path) -> dict[str, str]:
    """The text beside the tensors of a safetensors file; none for other kinds of file."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return {}


def _shape_of(facts: Mapping[str, str], path: Path, size: int) -> PriorShape:
    if "latent" not in facts:
        return PriorShape(size=size)
    architecture = facts.get("architecture", "shuffle")  # older files don't say it
    default_shape(architecture)
    names = [field.name for field in fields(PriorShape) if field.name != "architecture"]
    try:
        numbers = {name: int(facts[name]) for name in names}
    except (KeyError, ValueError) as error:
        raise WeightsError(
            "The file doesn't say the prior's shape", where=path.name, todo="Train it again"
        ) from error
    if not all(0 < number <= 4096 for number in numbers.values()):
        raise WeightsError("The file gives a shape no prior has", where=path.name)
    return PriorShape(**numbers, architecture=architecture)


def save_checkpoint(path: Path, trainer: PriorTrainer, *, key: str) -> None:
    """Write all that the training's next step depends on, for the training named ``key``."""
    save_safetensors(path, trainer.state(), {"key": key}, mode=0o600)


def restore_checkpoint(path: Path, trainer: PriorTrainer, *, key: str) -> bool:
    """Whether the trainer goes on from the file: it must be whole, and of the training ``key``."""
    if read_facts(path).get("key") != key:
        return False
    try:
        trainer.restore(_tensors(path))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError):
        return False
    return True


def _tensors(path: Path) -> dict[str, Tensor]:
    return load_file(path)
