"""``leakaudit tune``: the setting of a defence that meets a target, and the trade-off around it."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
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
    from leakaudit.audit.knobs import Knob
    from leakaudit.audit.store import RunStore
    from leakaudit.audit.tune import Target, TuneOptions
    from leakaudit.cli.progress import Reporter
    from leakaudit.core.types import Result
    from leakaudit.models.subject import Subject

Targets = Annotated[
    list[str] | None,
    opt.option(
        "--target",
        "What shall hold, [ATTACK.]METRIC<=NUMBER, such as "
        '"worst-static.identification_excess<=0.1" (default); repeatable.',
        metavar="EXPR",
    ),
]
Tunables = Annotated[
    list[str] | None,
    opt.option(
        "--defence",
        "crafter (default), gaussian, your own file.py:factory; KEY=auto says which setting, such "
        "as crafter:beta=auto,outer_steps=8. The first is decided on, further ones are compared.",
        metavar="SPEC",
    ),
]


@app.command("tune")
@asking_for_a_subject
def tune_command(
    asked: dict[str, Any],
    target: Targets = None,
    defence: Tunables = None,
    surely: Annotated[
        bool, opt.option("--surely", "Hold targets by the unfavourable end of the interval.")
    ] = False,
    evaluations: Annotated[
        int,
        opt.option(
            "--evaluations", "Settings to measure a defence, at most, and one to confirm.", min=1
        ),
    ] = 6,
    precision: Annotated[
        float, opt.option("--precision", "Stop within this factor of the setting.", min=1.01)
    ] = 1.3,
    values: Annotated[
        str | None, opt.option("--values", "Settings to measure in any case, by comma.")
    ] = None,
    between: Annotated[
        str | None, opt.option("--between", "LEAST,MOST: the settings to search.")
    ] = None,
    preset: opt.Preset = "quick",
    attacks: opt.Attacks = None,
    output: opt.Output = None,
    run_dir: opt.RunDir = None,
    resume: opt.Resume = False,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    batch_size: opt.BatchSize = "auto",
    gallery: Annotated[GalleryMode | None, opt.option("--gallery", "Faces in the report.")] = None,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Find the least beta that meets a privacy target, and draw the trade-off around it.

    Each setting is a scan of its own by the attacks that the targets read. Targets on
    utility.METRIC bound the cost; alone, they ask for the most privacy at that cost. Exit codes: 0
    met, 1 can't be met, 3 inconclusive, else as in scan.
    """
    from leakaudit.audit.gates_ahead import rows_ahead
    from leakaudit.audit.knobs import knob_of
    from leakaudit.audit.scan import ScanOptions
    from leakaudit.audit.tune import (
        DEFAULT_TARGET,
        Target,
        TuneOptions,
        check_targets,
        refuse_beyond,
        refuse_twins,
        tune,
    )
    from leakaudit.cli.outputs import parse_outputs
    from leakaudit.cli.subjects import batch_of, make_subject
    from leakaudit.cli.variables import refuse_empty
    from leakaudit.core.specs import split_specs
    from leakaudit.models.devices import device_of

    where, most = device_of(device), batch_of(batch_size)
    outputs = parse_outputs(output)
    refuse_empty("LEAKAUDIT_TARGET", target)
    goals = [Target.parse(expr, surely=surely) for expr in target or [DEFAULT_TARGET]]
    ends = _numbers(between, "--between")
    if ends and len(ends) != 2:
        raise UsageError("Two numbers by a comma are needed", where=f"--between {between}")
    span = (ends[0], ends[1]) if ends else None
    knobs = [knob_of(spec, preset=preset, between=span) for spec in defence or ["crafter"]]
    how = TuneOptions(evaluations, precision, _numbers(values, "--values"))
    refuse_twins(knobs)
    refuse_beyond(knobs, how.values)
    names = None if attacks is None else split_specs(attacks)
    check_names(preset=preset, attacks=names)
    with session(
        run_dir, resume=resume, offline=offline, quiet=quiet, verbose=verbose,
        to_stdout="-" not in paths_of(outputs), device=where, most=most,
    ) as (store, say):  # fmt: skip
        subject = make_subject(
            asked, preset=preset, seed=seed, store=store, resume=resume, say=say, device=where
        )
        plan = plan_for(subject, preset=preset, defences=[], attacks=names, seed=seed)
        check_targets(rows_ahead(subject, plan), plan, goals)
        say.line(_told_plan(knobs, goals, how))
        mode = "full" if subject.synthetic else gallery_mode(gallery)
        options = ScanOptions(gallery=mode, command=command_line())
        with contextlib.redirect_stdout(sys.stderr):
            result = tune(subject, plan, knobs, goals, store, options, how, say.progress)
        return finish(result, store, outputs, say)


def _numbers(text: str | None, flag: str) -> tuple[float, ...]:
    """Numbers above 0 by commas; UsageError for anything else."""
    if text is None:
        return ()
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = (-1.0,)
    if not all(0 < number < float("inf") for number in numbers):
        raise UsageError("Numbers above 0 by commas are needed", where=f"{flag} {text}")
    return numbers


def _told_plan(knobs: Sequence[Knob], goals: Sequence[Target], how: TuneOptions) -> str:
    searched = ", ".join(f"{k.spec} within {k.least:g} to {k.most:g}" for k in knobs)
    aims = " and ".join(goal.expr for goal in goals)
    most = f"at most {how.evaluations} scans each, and one to confirm"
    return f"Tuning {searched}, by {most}, until {aims}."


def tuned_first(
    subject: Subject, specs: Sequence[str], store: RunStore, *, preset: str,
    attacks: Sequence[str] | None, seed: int, say: Reporter,
) -> tuple[list[str], Subject]:  # fmt: skip
    """``specs`` with each ``KEY=auto`` replaced by the setting that meets its ``target=``.

    The search is on the subject's own attacked faces, by the attacks that the targets read: a doubt
    of the subject that is returned says so. Raises UsageError where no setting meets the targets:
    what should be scanned isn't known then.
    """
    from leakaudit.audit.knobs import is_auto, split_targets, with_setting
    from leakaudit.audit.tuned import chosen_here

    done = []
    for spec in specs:
        if not is_auto(spec):
            done.append(spec)
            continue
        search = _settled(subject, spec, store, preset, attacks, seed, say)
        found = search.tuning[0]
        done.append(with_setting(split_targets(spec)[0], found.knob, f"{found.chosen:g}"))
        subject = replace(subject, doubts=(*subject.doubts, chosen_here(search, found)))
    return done, subject


def tuned_demo(spec: str, *, preset: str, quiet: bool) -> Result:
    """The search for a setting on the shipped demo by the default target, nothing kept."""
    from leakaudit.demo.load import demo_subject

    with (
        tempfile.TemporaryDirectory() as folder,
        session(
            Path(folder) / "run", resume=False, offline=False, quiet=quiet, verbose=False,
            to_stdout=False,
        ) as (store, say),
    ):  # fmt: skip
        return _searched(demo_subject(0), spec, store, preset, None, 0, say)


def _settled(
    subject: Subject, spec: str, store: RunStore, preset: str, attacks: Sequence[str] | None,
    seed: int, say: Reporter,
) -> Result:  # fmt: skip
    search = _searched(subject, spec, store, preset, attacks, seed, say)
    found = search.tuning[0]
    # One that is undecided is scanned: the scan has the same doubts, and says them.
    if found.chosen is None or found.status == "missed":
        raise UsageError(
            f"No setting {'is sure to meet' if found.status == 'undecided' else 'meets'} the "
            f"target: {found.reason}",
            where=f"--defence {spec}",
            todo="Ask for less, or see the whole trade-off by leakaudit tune",
        )
    return search


def _searched(
    subject: Subject, spec: str, store: RunStore, preset: str, attacks: Sequence[str] | None,
    seed: int, say: Reporter,
) -> Result:  # fmt: skip
    """The search for the open setting of ``spec``, by its own targets or the default one."""
    from leakaudit.audit.knobs import knob_of, split_targets
    from leakaudit.audit.scan import ScanOptions
    from leakaudit.audit.tune import DEFAULT_TARGET, Target, TuneOptions, tune

    bare, exprs = split_targets(spec)
    goals = [Target.parse(expr) for expr in exprs or (DEFAULT_TARGET,)]
    knob, how = knob_of(bare, preset=preset), TuneOptions()
    plan = plan_for(subject, preset=preset, defences=[], attacks=attacks, seed=seed)
    say.line(_told_plan([knob], goals, how))
    with contextlib.redirect_stdout(sys.stderr):
        result = tune(subject, plan, [knob], goals, store, ScanOptions(), how, say.progress)
    say.line(f"Tuned: {result.tuning[0].reason}.")
    return result
