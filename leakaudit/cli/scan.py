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

from leakaudit.cli import options as opt
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


@app.command("scan")
def scan_command(
    demo: opt.Demo = False,
    encoder: opt.EncoderSpec = None,
    weights: opt.Weights = None,
    layer: opt.LayerName = None,
    trust_encoder: opt.TrustEncoder = False,
    images: opt.Images = None,
    public: opt.Public = None,
    labels: opt.Labels = None,
    attributes: opt.Attributes = None,
    prior: opt.PriorFile = None,
    oracle: opt.OracleSpec = None,
    oracle_weights: opt.OracleWeights = None,
    size: opt.InputSize = 64,
    crop: opt.Crop = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    channels: opt.ChannelOrder = None,
    preset: opt.Preset = "quick",
    attacks: opt.Attacks = None,
    defence: opt.Defences = None,
    fail_on: opt.FailOn = None,
    policy: opt.Policy = None,
    output: opt.Output = None,
    output_format: opt.OutputFormat = None,
    run_dir: opt.RunDir = None,
    resume: opt.Resume = False,
    seed: opt.Seed = 0,
    demo_people: opt.DemoPeople = 0,
    device: opt.Device = "auto",
    people_limit: opt.AttackedPeople = None,
    pictures_limit: opt.AttackedPictures = 1,
    gallery: Annotated[GalleryMode | None, opt.option("--gallery", "Faces in the report.")] = None,
    quiet: opt.Quiet = False,
) -> int:
    """Attack an encoder's features, measure what leaks, and report.

    Without --fail-on nothing is gated. Exit codes: 0 pass or ungated, 1 a gate is breached, 2 wrong
    input, 3 inconclusive, 4 run-time failure, 130 interrupted.
    """
    from leakaudit.cli.outputs import parse_output
    from leakaudit.cli.results import Judge
    from leakaudit.cli.subjects import check_device, make_subject
    from leakaudit.core.specs import split_specs

    check_device(device)
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
        asked = {
            "encoder": encoder, "weights": weights, "layer": layer, "trust": trust_encoder,
            "images": images, "public": public, "labels": labels, "attributes": attributes,
            "prior": prior, "oracle": oracle, "oracle_weights": oracle_weights, "size": size,
            "crop": crop, "mean": mean, "std": std, "channels": channels,
            "people_limit": people_limit, "pictures_limit": pictures_limit,
        }  # fmt: skip
        subject = make_subject(
            asked, demo=demo, demo_people=demo_people, preset=preset, seed=seed, store=store,
            resume=resume, say=say,
        )  # fmt: skip
        ours = demo or encoder == "demo"
        wanted = ["crafter"] if ours and defence is None else defence or []
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
