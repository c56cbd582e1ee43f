"""``leakaudit doctor``: the machine, and an encoder on labelled faces, before an audit."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leakaudit.cli import options as opt
from leakaudit.cli.app import app
from leakaudit.cli.listing import columns, text_or_json
from leakaudit.core.errors import UsageError

if TYPE_CHECKING:
    from leakaudit.audit.doctor import Checkup
    from leakaudit.audit.environment import Item


@app.command("doctor")
def doctor_command(
    context: typer.Context,
    encoder: opt.OwnEncoderSpec = None,
    weights: opt.Weights = None,
    layer: Annotated[
        str, opt.option("--layer", "A path, last, or a depth such as 0.25.", metavar="NAME")
    ] = "last",
    images: Annotated[
        Path | None,
        opt.option("--images", "Faces, a folder a person, two pictures or more of each."),
    ] = None,
    labels: opt.Labels = None,
    size: Annotated[
        int, opt.option("--input-size", "Side of the pictures, pixels.", min=8, max=1024)
    ] = 64,
    crop: opt.Crop = None,
    align: opt.Align = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    channels: Annotated[str, opt.option("--channels", "rgb or bgr.")] = "rgb",
    trust_encoder: opt.TrustEncoder = False,
    output_format: Annotated[str, opt.option("--format", "text or json.")] = "text",
    offline: opt.Offline = False,
) -> None:
    """Check the machine, and, with --encoder and --images, whether an encoder makes sense.

    Findings end with 0, wrong input with 2.
    """
    as_json = text_or_json(output_format)
    if (encoder is None) != (images is None) and not _typed(context, "encoder", "images"):
        # What a file or the environment says for scans: here it isn't enough to look at.
        typer.echo("Only the machine is looked at: an encoder needs --images too", err=True)
        encoder = images = None
    if (encoder is None) != (images is None):
        raise UsageError(
            "A check-up of an encoder needs --encoder and --images",
            todo="Give both, or neither to look at the machine only",
        )
    from leakaudit.audit.environment import environment
    from leakaudit.core.cache import no_network

    # What a user's factory prints is no result.
    with no_network(offline), contextlib.redirect_stdout(sys.stderr):
        items, found = environment(), None
        if encoder is not None and images is not None:
            found = _examined(
                encoder, weights, layer, images, labels, size, crop, mean, std, channels,
                trust_encoder, align,
            )  # fmt: skip
    if as_json:
        told = {"environment": [asdict(item) for item in items], "encoder": _as_json(found)}
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo("\n".join([*_machine(items), *(_checkup(found) if found else [])]))


def _typed(context: typer.Context, *names: str) -> bool:
    """Whether any of these parameters was typed, not taken from a file or the environment."""
    sources = [context.get_parameter_source(name) for name in names]
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)


def _examined(
    spec: str, weights: Path | None, layer: str, images: Path, labels: Path | None, size: int,
    crop: str | None, mean: str | None, std: str | None, channels: str, trust: bool,
    align: str | None,
) -> Checkup:  # fmt: skip
    from leakaudit.audit.doctor import examine
    from leakaudit.audit.own import crop_of, order_of, refuse_crop_and_align, three
    from leakaudit.models.alignment import aligner_of
    from leakaudit.models.encoder import Wishes, load_encoder
    from leakaudit.models.faces import load_people
    from leakaudit.report.words import clean

    refuse_crop_and_align(crop, align)
    wishes = Wishes(
        size, mean=three(mean, "--mean"), std=three(std, "--std"), channels=order_of(channels)
    )
    encoder = load_encoder(spec, weights=weights, layer=layer, preprocessing=wishes, trust=trust)
    for note in encoder.notes:
        typer.echo(clean(f"Encoder: {note}"), err=True)
    faces, told = load_people(
        images, size=size, labels=labels, crop=crop_of(crop), align=aligner_of(align)
    )
    typer.echo(clean(f"Faces: {told.summary()}"), err=True)
    return examine(encoder, faces)


def _as_json(found: Checkup | None) -> dict[str, Any] | None:
    return None if found is None else {**asdict(found), "auc": found.auc}


def _machine(items: tuple[Item, ...]) -> list[str]:
    rows = [("ok" if item.there else "--", item.name, item.found, item.todo) for item in items]
    return columns(rows)


def _checkup(found: Checkup) -> list[str]:
    from leakaudit.report.words import clean

    slope = found.gradient
    shape = "x".join(map(str, found.feature_shape))
    facts = [
        ("encoder", f"{found.encoder}, layer {found.layer}, feature {shape}"),
        ("faces", f"{found.pictures} pictures of {found.people} people"),
        ("separation", f"AUC {found.auc:.3f} of cosines, same against other people (0.5: chance)"),
        ("norm", f"{found.norm:.4g} on average, deviation {found.norm_spread:.2g}"),
        ("dead", f"{found.dead:.1%} of the elements never vary"),
        ("gradient", "none" if slope.size is None else f"{slope.size:.3g} a pixel, "
         f"exactly zero at {slope.blind:.1%} of them"),
    ]  # fmt: skip
    trials = [("preprocessing tried", "AUC", "gain", "misfit")]
    for trial in found.trials:
        misfit = "" if trial.misfit is None else f"{trial.misfit:.3g}"
        gain = f"{trial.gain:+.3f} ± {trial.error:.3f}"
        trials.append((trial.words, f"{trial.auc:.3f}", gain, misfit))
    trials[1] = (*trials[1][:2], "as given", trials[1][3])
    return [
        "",
        *columns(facts),
        "",
        *columns(trials, right=(1, 2, 3)),
        "",
        *(clean(f"Warning: {warning}.") for warning in found.warnings),
        clean(f"Verdict: {found.verdict}."),
    ]
