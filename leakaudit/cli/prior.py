"""``leakaudit prior``: priors of public faces, trained ahead of a scan."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakaudit.cli import options as opt
from leakaudit.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leakaudit.cli.progress import Reporter

prior_app = typer.Typer(
    name="prior",
    help="Priors: generators of public faces, which attacks search and Crafter defends by.",
    no_args_is_help=True,
)
app.add_typer(prior_app)


@prior_app.command("train")
def prior_train_command(
    public: Annotated[Path, opt.option("--public", "Public faces, any layout.")],
    out: Annotated[Path, opt.option("--out", "The .safetensors file to write.")],
    size: Annotated[
        int,
        opt.option("--size", "Side of the pictures, pixels: 16 times 2 to 16.", min=32, max=256),
    ] = 64,
    latent: Annotated[
        int | None, opt.option("--latent", "Length of the latent.", min=1, max=4096)
    ] = None,
    architecture: Annotated[
        str, opt.option("--architecture", "shuffle (latent 96) or residual (latent 128).")
    ] = "shuffle",
    width: Annotated[int | None, opt.option("--width", "Channels.", min=8, max=256)] = None,
    steps: Annotated[int, opt.option("--steps", "Steps of the training.", min=1)] = 4000,
    batch: Annotated[int, opt.option("--batch", "Pictures a step.", min=2, max=1024)] = 64,
    limit: Annotated[int, opt.option("--limit", "Read at most so many pictures.", min=64)] = 20000,
    crop: Annotated[
        str | None,
        opt.option("--crop", "left,top,right,bottom: the pixels kept of each picture."),
    ] = None,
    align: opt.Align = None,
    seed: opt.Seed = 0,
    resume: Annotated[
        bool, opt.option("--resume", "Go on with the checkpoint beside --out.")
    ] = False,
    every: Annotated[
        float, opt.option("--checkpoint-every", "Seconds between checkpoints.", min=0.0)
    ] = 60.0,
    device: opt.Device = "auto",
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train a prior on public faces; prints how good it is on faces it never saw.

    Beside FILE lie sheets of samples and of reconstructions, and during the training a checkpoint:
    a training that was killed goes on with --resume, to the same bits.
    """
    from leakaudit.cli.progress import Reporter
    from leakaudit.core.cache import no_network
    from leakaudit.report.words import clean

    with (
        no_network(offline),
        warnings.catch_warnings(),
        Reporter(quiet=quiet, to_stdout=True) as say,
        _told_how_to_go_on(say),
    ):
        warnings.simplefilter("ignore")  # libraries' warnings aren't findings
        from leakaudit.audit.own import crop_of, refuse_crop_and_align
        from leakaudit.audit.prior_training import PriorRequest, train_to_file
        from leakaudit.models.devices import device_of
        from leakaudit.models.prior import PriorTraining

        refuse_crop_and_align(crop, align)
        request = PriorRequest(
            public=public, out=out, size=size, latent=latent, width=width,
            architecture=architecture, training=PriorTraining(steps=steps, batch=batch), seed=seed,
            crop=crop_of(crop), align=align, limit=limit, resume=resume, every=every,
            device=device_of(device),
        )  # fmt: skip
        made = train_to_file(request, note=say.line, progress=say.progress)
        say.done()
        if made.before:
            say.line("This training was finished before; nothing is done again")
        typer.echo(f"Prior: {made.quality.words()}")
        written = ", ".join(str(path) for path in (made.out, *made.sheets))
        typer.echo(f"Written: {clean(written)}")


@contextlib.contextmanager
def _told_how_to_go_on(say: Reporter) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say.done()
        say.line("The last checkpoint is kept; go on with --resume")
        raise
