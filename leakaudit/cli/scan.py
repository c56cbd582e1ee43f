"""``leakaudit scan``: the main command."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

from leakaudit.cli import options as opt
from leakaudit.cli.app import app
from leakaudit.cli.asked import asking_for_a_subject
from leakaudit.cli.running import (
    GalleryMode,
    check_names,
    command_line,
    finish,
    gallery_mode,
    paths_of,
    plan_for,
    session,
)
from leakaudit.core.errors import UsageError

if TYPE_CHECKING:
    from leakaudit.audit.scan import Layered
    from leakaudit.audit.store import RunStore
    from leakaudit.cli.results import Judge


@app.command("scan")
@asking_for_a_subject
def scan_command(
    asked: dict[str, Any],
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
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = "auto",
    gallery: Annotated[GalleryMode | None, opt.option("--gallery", "Faces in the report.")] = None,
    keep_study: opt.KeepStudy = 0,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Attack an encoder's features, measure what leaks, and report.

    Without --fail-on nothing is gated. Exit codes: 0 pass or ungated, 1 a gate is breached, 2 wrong
    input, 3 inconclusive, 4 run-time failure, 130 interrupted.
    """
    from leakaudit.cli.outputs import parse_outputs
    from leakaudit.cli.results import Judge
    from leakaudit.cli.subjects import batch_of, is_demo, layer_names, make_subjects
    from leakaudit.cli.tune import tuned_first
    from leakaudit.core.specs import split_specs
    from leakaudit.models.devices import device_of

    where, most = device_of(device), batch_of(batch_size)
    outputs = parse_outputs(output, output_format)
    judge = Judge(tuple(fail_on or ()), policy)
    if output_format is not None and "-" not in (output or []):
        raise UsageError("--format is the kind of '-o -'", todo="Add -o -")
    if keep_study and len(set(layer_names(asked["layer"] or ["last"]))) > 1:
        raise UsageError(
            "A study is of one layer", where=f"--keep-study {keep_study}",
            todo="Scan the layer that the study shall be about by itself",
        )  # fmt: skip
    names = None if attacks is None else split_specs(attacks)
    check_names(preset=preset, attacks=names, defences=defence or [])
    with session(
        run_dir, resume=resume, offline=offline, quiet=quiet, verbose=verbose,
        to_stdout="-" not in paths_of(outputs), device=where, most=most,
    ) as (store, say):  # fmt: skip
        subjects = make_subjects(
            asked, preset=preset, seed=seed, store=store, resume=resume, say=say, device=where
        )
        wanted = ["crafter"] if is_demo(asked) and defence is None else defence or []
        layers = []
        for one in subjects:  # a setting is tuned at each layer
            own = store.part(str(one.about.get("layer"))) if len(subjects) > 1 else store
            found, told = tuned_first(
                one, wanted, own, preset=preset, attacks=names, seed=seed, say=say
            )
            plan = plan_for(told, preset=preset, defences=found, attacks=names, seed=seed)
            layers.append((told, plan))
        return _run(
            layers, store, gates=tuple(fail_on or ()), judge=judge, gallery=gallery,
            outputs=outputs, keep_study=keep_study, say=say,
        )  # fmt: skip


def _say_plan(layers: Layered, say) -> None:  # type: ignore[no-untyped-def]
    """The plan, and how long it will take here; attacks may differ from layer to layer."""
    from leakaudit.audit.estimate import Speed, estimate, in_words
    from leakaudit.core.counted import counted

    say.step("timing this machine")
    subject, plan = layers[0]
    faces = len(subject.faces)
    passes = sum(p.passes_ahead(faces, len(s.public)) for s, p in layers)
    ahead = sum(estimate(s, p, Speed.of(s)) for s, p in layers)
    names = [str(s.about.get("layer", "?")) for s, _ in layers]
    at = f"at each of {len(names)} layers ({', '.join(names)}): " if len(names) > 1 else ""
    say.line(
        f"Plan ({plan.preset}): {at}{counted(len(plan.defences), 'defence')} "
        f"({', '.join(d.label for d in plan.defences)}), "
        f"{counted(len(plan.attacks), 'attack')} and "
        f"{len(plan.controls) + 1} controls on {faces} faces of {subject.faces.n_people} people; "
        f"about {passes:,} encoder passes, {in_words(ahead)} on this machine."
    )
    for name, why in dict.fromkeys(out for _, p in layers for out in p.left_out):
        say.line(f"Left out: {name}, as {why}.")


def _run(  # type: ignore[no-untyped-def]
    layers: Layered, store: RunStore, *, gates: tuple[str, ...], judge: Judge,
    gallery: GalleryMode | None, outputs: list[tuple[str, str]], keep_study: int, say,
) -> int:  # fmt: skip
    from leakaudit.audit.gates_ahead import warnings
    from leakaudit.audit.scan import ScanOptions, scan_layers

    for warning in (*judge.remarks(), *warnings(judge.asked(), layers)):
        say.warn(warning)
    if not say.quiet:  # timing the machine takes a second or two
        _say_plan(layers, say)
    mode = "full" if layers[0][0].synthetic else gallery_mode(gallery)
    options = ScanOptions(gates=gates, gallery=mode, command=command_line(), keep_study=keep_study)
    with contextlib.redirect_stdout(sys.stderr):  # what a user's factory prints is no result
        result = judge(scan_layers(layers, store, options, say.progress))
    code = finish(result, store, outputs, say)
    if keep_study:
        _say_kept(store, say)
    return code


def _say_kept(store: RunStore, say) -> None:  # type: ignore[no-untyped-def]
    from leakaudit.audit.study_file import FILE, RETENTION

    kept = store.folder / FILE
    told = f"Kept for a study: {kept}. {RETENTION}"
    say.line(
        told if kept.is_file() else "Nothing was kept for a study: no attack here makes pictures."
    )
