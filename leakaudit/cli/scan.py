"""``leakaudit scan``: the main command."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import sys
import warnings
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakaudit.cli.app import app
from leakaudit.core.errors import UsageError

if TYPE_CHECKING:
    from leakaudit.audit.plan import Plan
    from leakaudit.audit.store import RunStore
    from leakaudit.cli.results import Judge
    from leakaudit.models.subject import Subject


class GalleryMode(StrEnum):
    """Whether the report shows faces."""

    none = "none"
    redacted = "redacted"
    full = "full"


def _env(name: str) -> str:
    return f"LEAKAUDIT_{name}"


@app.command("scan")
def scan_command(
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", envvar=_env("DEMO"), help="Audit the shipped encoder on rendered people."
        ),
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            envvar=_env("ENCODER"),
            metavar="SPEC",
            help="torchvision:NAME, timm:NAME, facenet:vggface2, file.py:factory, FILE.ts, "
            "FILE.pt2, FILE.onnx or demo.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", envvar=_env("WEIGHTS"), help="The encoder's weights file."),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer",
            envvar=_env("LAYER"),
            help="Where the network is split: a path, last, or a depth such as 0.25.",
        ),
    ] = None,
    trust_encoder: Annotated[
        bool,
        typer.Option(
            "--trust-encoder",
            envvar=_env("TRUST_ENCODER"),
            help="Open encoder files that can run code: .ts, .pt2, full pickles.",
        ),
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option("--images", envvar=_env("IMAGES"), help="Private faces, a folder a person."),
    ] = None,
    public: Annotated[
        Path | None,
        typer.Option("--public", envvar=_env("PUBLIC"), help="Faces of other, public people."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", envvar=_env("LABELS"), help="CSV file,person for a flat folder."),
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option("--attributes", envvar=_env("ATTRIBUTES"), help="CSV file,attr1,attr2,..."),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option("--prior", envvar=_env("PRIOR"), help="A prior that an earlier scan saved."),
    ] = None,
    oracle: Annotated[
        str | None,
        typer.Option(
            "--oracle",
            envvar=_env("ORACLE"),
            metavar="SPEC",
            help="A judge of your own: file.py:factory giving embeddings (N, d).",
        ),
    ] = None,
    oracle_weights: Annotated[
        Path | None,
        typer.Option("--oracle-weights", envvar=_env("ORACLE_WEIGHTS"), help="Its weights."),
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            "--input-size",
            envvar=_env("INPUT_SIZE"),
            min=32,
            max=256,
            help="Side of the pictures, pixels (a power of two).",
        ),
    ] = 64,
    crop: Annotated[
        str | None,
        typer.Option("--crop", envvar=_env("CROP"), help="left,top,right,bottom of private faces."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean", envvar=_env("MEAN"), help="r,g,b; the network's own, else ImageNet's."
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            "--std", envvar=_env("STD"), help="r,g,b; the network's own, else ImageNet's."
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels", envvar=_env("CHANNELS"), help="rgb (default) or bgr: the encoder's order."
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", envvar=_env("PRESET"), help="A preset's name or TOML file.")
    ] = "quick",
    attacks: Annotated[
        str | None,
        typer.Option(
            "--attacks", envvar=_env("ATTACKS"), help="Names or your own file.py:factory, by comma."
        ),
    ] = None,
    defence: Annotated[
        list[str] | None,
        typer.Option(
            "--defence",
            envvar=_env("DEFENCE"),
            help="none, gaussian:sigma=.5, crafter:beta=12, your own file.py:factory; repeatable.",
        ),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on",
            envvar=_env("FAIL_ON"),
            help='A gate, such as "identification>0.2"; repeatable.',
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            envvar=_env("POLICY"),
            help="A TOML file of gates, baselines and suppressions (docs/ci.md).",
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--output",
            envvar=_env("OUTPUT"),
            help="[KIND:]PATH: .html, .json, .md, .xml (JUnit), .sarif, .prom or gitlab:FILE; "
            "repeatable.",
        ),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format", envvar=_env("FORMAT"), help="The kind of '-o -': json, html, markdown, ..."
        ),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", envvar=_env("RUN_DIR"), help="Where the run is kept (private)."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", envvar=_env("RESUME"), help="Go on with the stages of --run-dir."),
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", envvar=_env("SEED"), help="Seed of every random choice.")
    ] = 0,
    demo_people: Annotated[
        int,
        typer.Option(
            "--demo-people", envvar=_env("DEMO_PEOPLE"), min=0, help="Seed of the people."
        ),
    ] = 0,
    device: Annotated[
        str, typer.Option("--device", envvar=_env("DEVICE"), help="auto or cpu.")
    ] = "auto",
    people_limit: Annotated[
        int | None,
        typer.Option(
            "--attacked-people",
            envvar=_env("ATTACKED_PEOPLE"),
            min=1,
            help="Attack at most so many people.",
        ),
    ] = None,
    pictures_limit: Annotated[
        int,
        typer.Option(
            "--attacked-pictures",
            envvar=_env("ATTACKED_PICTURES"),
            min=1,
            help="Attack so many pictures of each person; the others are enrolled.",
        ),
    ] = 1,
    gallery: Annotated[
        GalleryMode | None,
        typer.Option("--gallery", envvar=_env("GALLERY"), help="Faces in the report."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", envvar=_env("QUIET"), help="No progress.")
    ] = False,
) -> int:
    """Attack an encoder's features, measure what leaks, and report.

    Without --fail-on nothing is gated. Exit codes: 0 pass or ungated, 1 a gate is breached, 2 wrong
    input, 3 inconclusive, 4 run-time failure, 130 interrupted.
    """
    from leakaudit.cli.outputs import parse_output
    from leakaudit.cli.results import Judge
    from leakaudit.core.specs import split_specs

    if device not in ("auto", "cpu"):
        raise UsageError(
            f"This version runs on the CPU, not on '{device}'", where="--device", todo="Use cpu"
        )
    outputs = [parse_output(text, output_format if text == "-" else None) for text in output or []]
    judge = Judge(tuple(fail_on or ()), policy)
    if output_format is not None and "-" not in (output or []):
        raise UsageError("--format is the kind of '-o -'", todo="Add -o -")
    if resume and run_dir is not None and not run_dir.is_dir():
        raise UsageError("There is no such run to resume", where=f"--run-dir {run_dir}")
    if resume and run_dir is None:
        raise UsageError("--resume needs the --run-dir of the interrupted run")
    names = None if attacks is None else split_specs(attacks)
    folder = run_dir or _new_run_dir()
    from leakaudit.audit.store import RunStore
    from leakaudit.cli.progress import Reporter

    with (
        contextlib.ExitStack() as leave,
        warnings.catch_warnings(),
        Reporter(quiet=quiet, to_stdout="-" not in dict_values(outputs)) as say,
    ):
        warnings.simplefilter("ignore")  # libraries' warnings aren't findings; doubts are
        store = RunStore(folder, resume=resume)  # before any work: it may not be writable
        say.run_folder = folder
        leave.callback(store.discard_if_empty)
        if demo or encoder == "demo":
            _refuse_beside_demo(
                encoder=None if encoder == "demo" else encoder, weights=weights, layer=layer,
                images=images, public=public, labels=labels, attributes=attributes, prior=prior,
                oracle=oracle, oracle_weights=oracle_weights, crop=crop, mean=mean, std=std,
                channels=channels,
            )  # fmt: skip
            say.step("rendering the demo's people")
            subject = _demo(demo_people, people_limit)
            wanted = ["crafter"] if defence is None else defence
        else:
            subject = _own(
                encoder=encoder, weights=weights, layer=layer, images=images, public=public,
                labels=labels, attributes=attributes, prior=prior, oracle=oracle,
                oracle_weights=oracle_weights, size=size, crop=crop, mean=mean, std=std,
                preset=preset, seed=seed, people_limit=people_limit,
                pictures_limit=pictures_limit, folder=folder, resume=resume, say=say,
                trust=trust_encoder, channels=channels,
            )  # fmt: skip
            wanted = defence or []
        plan = _plan(preset, wanted, names, seed, subject)
        return _run(
            subject, plan, store, gates=tuple(fail_on or ()), judge=judge, gallery=gallery,
            outputs=outputs, say=say,
        )  # fmt: skip


def dict_values(outputs: list[tuple[str, str]]) -> list[str]:
    """The paths of the outputs."""
    return [path for _, path in outputs]


def _new_run_dir() -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return Path("leakaudit-runs") / f"{stamp}-{secrets.token_hex(3)}"


def _refuse_beside_demo(**options: object) -> None:
    """The demo brings everything itself; an option that it would ignore is an error."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"--demo brings its own encoder and people; it can't take {', '.join(given)}",
            todo="Leave out either --demo or these options",
        )


def _demo(seed: int, limit: int | None) -> Subject:
    from leakaudit.demo.load import ATTACKED, demo_subject

    return demo_subject(seed, attacked=min(limit or ATTACKED, ATTACKED))


def _own(**options) -> Subject:  # type: ignore[no-untyped-def]
    required = {
        "encoder": "--encoder",
        "images": "--images",
        "public": "--public",
        "layer": "--layer",
    }
    missing = [flag for name, flag in required.items() if options[name] is None]
    if missing:
        raise UsageError(
            f"A scan needs {', '.join(missing)}",
            todo="Add what is missing, or try: leakaudit scan --demo",
        )
    from leakaudit.audit.own import own_subject
    from leakaudit.audit.plan import load_preset

    training = load_preset(options.pop("preset"))[1].get("training", {})
    say = options.pop("say")
    with contextlib.redirect_stdout(sys.stderr):
        return own_subject(training=training, say=say.step, note=say.line, **options)


def _plan(
    preset: str, defences: list[str], attacks: list[str] | None, seed: int, subject: Subject
) -> Plan:
    from leakaudit.audit.plan import make_plan

    return make_plan(
        preset=preset, defences=defences, attacks=attacks, seed=seed,
        has_prior=subject.prior is not None, has_head=subject.head is not None,
        has_gradients=getattr(subject.encoder, "differentiable", True),
    )  # fmt: skip


def _say_plan(subject: Subject, plan: Plan, say) -> None:  # type: ignore[no-untyped-def]
    """The plan, and how long it will take here."""
    from leakaudit.audit.estimate import Speed, estimate, in_words

    say.step("timing this machine")
    faces = len(subject.faces)
    passes = plan.passes_ahead(faces, len(subject.public))
    ahead = estimate(subject, plan, Speed.of(subject))
    say.line(
        f"Plan ({plan.preset}): {len(plan.defences)} defences "
        f"({', '.join(d.label for d in plan.defences)}), {len(plan.attacks)} attacks and "
        f"{len(plan.controls) + 1} controls on {faces} faces of {subject.faces.n_people} people; "
        f"about {passes:,} encoder passes, {in_words(ahead)} on this machine."
    )
    for name, why in plan.left_out:
        say.line(f"Left out: {name}, as {why}.")


def _run(  # type: ignore[no-untyped-def]
    subject: Subject, plan: Plan, store: RunStore, *, gates: tuple[str, ...], judge: Judge,
    gallery: GalleryMode | None, outputs: list[tuple[str, str]], say,
) -> int:  # fmt: skip
    from leakaudit.audit.scan import ScanOptions, scan
    from leakaudit.cli.outputs import write_outputs, write_step_summary
    from leakaudit.report.console import print_result

    folder = store.folder
    if not say.quiet:  # timing the machine takes a second or two
        _say_plan(subject, plan, say)
    mode = "full" if subject.synthetic else _gallery_mode(gallery)
    options = ScanOptions(gates=gates, gallery=mode, command=_command())
    with contextlib.redirect_stdout(sys.stderr):  # what a user's factory prints is no result
        result = judge(scan(subject, plan, store, options, say.progress))
    say.done()
    written = write_outputs(
        result, [("json", str(folder / "result.json")), ("html", str(folder / "report.html"))]
    )
    store.clear()
    extra = write_outputs(result, outputs)
    write_step_summary(result)
    print_result(result, say.out)
    seconds = result.seconds["scan"]
    spent = sum(row.encoder_passes for row in result.convergence)
    say.line(f"{seconds:.0f} s of scanning, {spent:,} encoder passes. Result: {written[0]}")
    for path in extra:
        say.line(f"Written: {path}")
    say.line(f"Report: {written[1]}")
    return result.verdict.exit_code


def _gallery_mode(asked: GalleryMode | None) -> str:
    if asked is not None:
        return asked.value
    return "none" if os.environ.get("CI") else "redacted"


def _command() -> str:
    """The command as typed, with folders and files by their last name only."""
    return shlex.join(["leakaudit", *(_FOLDERS.sub("", word) for word in sys.argv[1:])])


_FOLDERS = re.compile(rf"[^,:=\s]*{re.escape(os.sep)}")
"""What stands before the last separator of a path, within lists and settings too."""
