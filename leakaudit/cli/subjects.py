"""From options to the subject of a command: the demo's, or the user's own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leakaudit.core.errors import UsageError

if TYPE_CHECKING:
    from leakaudit.audit.store import RunStore
    from leakaudit.cli.progress import Reporter
    from leakaudit.models.devices import Device
    from leakaudit.models.subject import Subject

BROUGHT_BY_DEMO = (
    "encoder", "weights", "layer", "images", "public", "labels", "attributes", "prior", "oracle",
    "prior_weights", "oracle_weights", "oracle_input_size", "oracle_mean", "oracle_std",
    "oracle_channels", "crop", "public_crop", "mean", "std", "channels", "align", "pairs", "head",
    "head_weights",
)  # fmt: skip
"""Options that the demo answers itself."""

REQUIRED = ("encoder", "images", "public", "layer")


def is_demo(asked: Mapping[str, Any]) -> bool:
    """Whether the shipped demo was asked for."""
    return bool(asked["demo"]) or asked["encoder"] == "demo"


def make_subject(
    asked: Mapping[str, Any], *, preset: str, seed: int, store: RunStore, resume: bool,
    say: Reporter, device: Device,
) -> Subject:  # fmt: skip
    """The one subject that ``asked`` says, for commands that take one layer at a time."""
    layers = asked["layer"]
    if layers and len(layer_names(layers)) > 1:
        raise UsageError("Only scan takes several layers", where=f"--layer {','.join(layers)}")
    (found,) = make_subjects(
        asked, preset=preset, seed=seed, store=store, resume=resume, say=say, device=device
    )
    return found


def make_subjects(
    asked: Mapping[str, Any], *, preset: str, seed: int, store: RunStore, resume: bool,
    say: Reporter, device: Device,
) -> tuple[Subject, ...]:  # fmt: skip
    """The subjects, one a layer, that ``asked`` (see ``cli/asked.py``) says, on ``device``.

    Raises UsageError for options that are missing, or that the demo can't take; InputError and
    WeightsError for files that can't be used.
    """
    options = {name: v for name, v in asked.items() if name not in ("demo", "demo_people")}
    if is_demo(asked):
        refuse_beside_demo(options if asked["demo"] else {**options, "encoder": None})
        say.step("rendering the demo's people")
        return (_demo(asked["demo_people"], options["people_limit"]).on(device),)
    missing = [f"--{name}" for name in REQUIRED if options[name] is None]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} missing",
            todo="Add what is missing (leakaudit layers SPEC lists the layers), or try the shipped "
            "demo with --demo",
        )
    from leakaudit.audit.own import Sources, own_subjects
    from leakaudit.audit.plan import load_preset

    own = {name: value for name, value in options.items() if name != "layer"}
    layers = layer_names(options["layer"])
    sources = Sources(
        **own, layers=layers, seed=seed, folder=store.folder, resume=resume, device=device
    )
    training = load_preset(preset)[1].get("training", {})
    with contextlib.redirect_stdout(sys.stderr):  # what a user's factory prints is no result
        return own_subjects(sources, training=training, say=say.step, note=say.line)


def layer_names(asked: Sequence[str]) -> tuple[str, ...]:
    """The layers of all ``--layer``, each of which may list some by commas; UsageError if none."""
    names = tuple(name.strip() for text in asked for name in text.split(","))
    if not all(names):
        raise UsageError(
            "An empty name of a layer", where=f"--layer {','.join(asked)!r}",
            todo="Write --layer layer1,layer2 or --layer layer1 --layer layer2",
        )  # fmt: skip
    return names


def refuse_beside_demo(options: Mapping[str, Any]) -> None:
    """The demo brings everything itself; an option that it would ignore is an error."""
    given = [
        f"--{name.replace('_', '-')}" for name in BROUGHT_BY_DEMO if options.get(name) is not None
    ]
    given += ["--input-size"] if options.get("size", 64) != 64 else []
    given += ["--trust-encoder"] if options.get("trust") else []
    given += ["--attacked-pictures"] if options.get("pictures_limit", 1) != 1 else []
    given += ["--no-cache"] if not options.get("cache", True) else []
    if given:
        raise UsageError(
            f"--demo brings its own encoder and people; it can't take {', '.join(given)}",
            todo="Leave out either --demo or these options",
        )


def _demo(seed: int, limit: int | None) -> Subject:
    from leakaudit.demo.load import ATTACKED, GALLERY, demo_subject

    return demo_subject(seed, attacked=min(limit or ATTACKED, GALLERY))


def batch_of(text: str) -> int | None:
    """The bound that ``--batch-size`` means, none for ``auto``; UsageError for anything else."""
    told = text.strip().lower()
    if told == "auto":
        return None
    if not (told.isascii() and told.isdecimal() and len(told) < 10 and int(told) > 0):
        raise UsageError(
            f"'{text}' is neither auto nor a whole number from 1", where="--batch-size"
        )
    return int(told)
