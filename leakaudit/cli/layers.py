"""``leakaudit layers``: where a network can be split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leakaudit.cli import options as opt
from leakaudit.cli.app import app
from leakaudit.cli.listing import columns, text_or_json

if TYPE_CHECKING:
    from leakaudit.models.layers import Layer


@app.command("layers")
def layers_command(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="An encoder, as in --encoder.")],
    weights: Annotated[
        Path | None,
        opt.option("--weights", "Checked to be readable; shapes don't need weights."),
    ] = None,
    size: Annotated[
        int, opt.option("--input-size", "Side of the pictures, pixels.", min=8, max=2048)
    ] = 64,
    trust_encoder: opt.TrustEncoder = False,
    output_format: Annotated[str, opt.option("--format", "text or json.")] = "text",
    offline: opt.Offline = False,
) -> None:
    """List where an encoder can be split: path, type, shape, size of a face, depth.

    Depth is the share of the multiply-adds that are done; --layer takes a path or a depth.
    """
    as_json = text_or_json(output_format)
    from leakaudit.core.cache import no_network
    from leakaudit.models.layers import layer_table
    from leakaudit.models.modules import build
    from leakaudit.models.preprocessing import Wishes
    from leakaudit.models.weights import load_state
    from leakaudit.report.words import clean

    with no_network(offline):
        built = build(spec, weights=weights, trust=trust_encoder, random=True)
        if weights is not None:
            built.published.check(load_state(weights, trust=trust_encoder), weights.name)
        built.network.requires_grad_(False).eval()
        preprocessing = Wishes(size).over(built.published.native)
        table = layer_table(built.network, preprocessing, name=built.name)
    if as_json:
        height_width = list(preprocessing.height_width)
        rows = [_row(layer) for layer in table]
        found = {"encoder": built.name, "input_size": height_width, "layers": rows}
        typer.echo(json.dumps(found, indent=2))
        return
    height, width = preprocessing.height_width
    typer.echo("\n".join(_lines(table)))
    typer.echo(clean(f"{built.name} on pictures of {height} x {width}"), err=True)
    if any(layer.shape is not None and not layer.cut for layer in table):
        typer.echo("branch: not all of the network's answer flows through it", err=True)
    out = [layer for layer in table if layer.shape is None]
    if out:
        named = f"{', '.join(layer.path for layer in out[:5])}{', ...' if len(out) > 5 else ''}"
        typer.echo(
            f"{len(out)} more can't be split at: they never run, or give no single tensor "
            f"({clean(named)})",
            err=True,
        )


def _row(layer: Layer) -> dict[str, Any]:
    return {
        "path": layer.path,
        "type": layer.kind,
        "shape": None if layer.shape is None else list(layer.shape),
        "megabytes": layer.megabytes,
        "depth": round(layer.depth, 4),
        "runs": layer.runs,
        "cut": layer.cut,
    }


def _lines(table: tuple[Layer, ...]) -> list[str]:
    cells = [("layer", "type", "shape", "MB a face", "depth", "")]
    for layer in table:
        if layer.shape is not None:
            shape = "x".join(map(str, layer.shape))
            again = f"first of {layer.runs} runs" if layer.runs > 1 else ""
            again = again if layer.cut else ", ".join(filter(None, ["branch", again]))
            size = f"{layer.megabytes:.3g}"
            cells.append((layer.path, layer.kind, shape, size, f"{layer.depth:.3f}", again))
    return columns(cells, right=(3, 4))
