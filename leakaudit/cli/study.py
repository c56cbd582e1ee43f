"""``leakaudit study``: ask people whom they recognise, and score what they answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakaudit.cli import options as opt
from leakaudit.cli.app import app
from leakaudit.core.errors import InputError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from leakaudit.core.study import Estimate, Study

PAGE, KEY = "questionnaire.html", "key.json"

study_app = typer.Typer(
    help="Ask people whom they recognise in reconstructions, and score their answers.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(study_app, name="study")


@study_app.command("make")
def make_command(
    run: Annotated[
        Path, typer.Argument(help="The run folder of a scan --keep-study, or its result.json.")
    ],
    out: Annotated[Path, opt.option("--out", "Folder for the page and its answer key.")],
    defence: Annotated[
        list[str] | None,
        opt.option("--defence", "A row to ask about; repeatable (all). none always is."),
    ] = None,
    attack: Annotated[
        str | None,
        opt.option("--attack", "Whose reconstructions (the one that names most people)."),
    ] = None,
    questions: Annotated[
        int | None, opt.option("--questions", "How many (24, or one a kept person).", min=1)
    ] = None,
    seed: Annotated[int, opt.option("--seed", "Another seed asks about others.")] = 0,
) -> None:
    """Write a questionnaire page for participants, and its answer key, which they must not see."""
    from leakaudit.audit.questions import draw
    from leakaudit.audit.study_file import read_kept
    from leakaudit.audit.study_key import write_key
    from leakaudit.core.files import atomic_write
    from leakaudit.report.questionnaire import render_questionnaire
    from leakaudit.report.words import clean

    kept = read_kept(run.parent if run.is_file() else run)
    page, key = draw(kept, defences=defence or (), attack=attack, questions=questions, seed=seed)
    text = render_questionnaire(page)
    _private_folder(out)
    write_key(key, out / KEY)
    atomic_write(out / PAGE, text)
    rows = dict.fromkeys(f"{q.defence} by {q.attack}" for q in key.questions)
    typer.echo(clean(f"Questions: {len(key.questions)}, on {', '.join(rows)}"), err=True)
    typer.echo(f"For participants: {out / PAGE}", err=True)
    typer.echo(f"To be kept apart, for leakaudit study score: {out / KEY}", err=True)
    if not kept.synthetic:
        typer.echo(
            "The page shows faces, which are biometric data: only to participants who may see "
            "them, and delete it after the study.", err=True,
        )  # fmt: skip


def _private_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(
            "The folder can't be made", where=f"--out {folder}: {error.strerror or error}"
        ) from error


@study_app.command("score")
def score_command(
    files: Annotated[
        list[Path],
        typer.Argument(help="CSV files of participants; also the result.json to add the study to."),
    ],
    key: Annotated[
        list[Path],
        opt.option(
            "--key", "key.json of the questionnaire; repeatable.", variable="LEAKAUDIT_STUDY_KEY"
        ),
    ],
    output: Annotated[
        list[str] | None,
        opt.option("--output", "[KIND:]PATH of the result with the study.", "-o"),
    ] = None,
) -> int:
    """Score answers: Macro-F1 over five choices, and whether the study can tell at all.

    Exit codes: 0 scored, 2 wrong input, 3 the study has no power (undefended faces weren't
    recognised). With a result.json the study goes into a new one, which gate and report read.
    """
    from rich.console import Console

    from leakaudit.audit.answers import match, read_answers
    from leakaudit.audit.study_key import read_key
    from leakaudit.cli.outputs import parse_outputs
    from leakaudit.cli.running import WITH_STUDY
    from leakaudit.report.words import clean

    result, answers = _sorted(files)
    outputs = parse_outputs(output, reads=result)
    if outputs and result is None:
        raise UsageError("-o writes a result", todo="Name the result.json of the scan as well")
    keys = [read_key(path) for path in dict.fromkeys(key)]
    given = [answer for path in answers for answer in read_answers(path)]
    matched, notes = match(given, keys)

    from leakaudit.audit.study_score import score_study, with_study
    from leakaudit.core.rng import Rng

    study = score_study(matched, keys, notes, Rng(0))
    if result is not None:
        from leakaudit.cli.outputs import write_outputs
        from leakaudit.report.json import read_result

        told = with_study(read_result(result), study, keys)
        outputs = outputs or [("json", str(result.with_name(WITH_STUDY)))]
        for path in write_outputs(told, outputs):
            typer.echo(f"Written: {path}", err=True)
    console = Console(stderr="-" in [path for _, path in outputs])
    console.print(_table(study), highlight=False)
    for note in study.notes:
        console.print(f"note: {clean(note)}", highlight=False, markup=False)
    console.print(_last_line(study), highlight=False, markup=False, soft_wrap=True)
    return 0 if study.status == "usable" else 3


def _sorted(files: list[Path]) -> tuple[Path | None, list[Path]]:
    """The result among the files, if there is one, and the answers."""
    results = [path for path in files if path.suffix.lower() == ".json"]
    answers = [path for path in files if path not in results]
    if len(results) > 1:
        raise UsageError("More than one result", where=", ".join(map(str, results)))
    if not answers:
        raise InputError("No answers", todo="Name the CSV files that participants saved")
    return (results[0] if results else None), list(dict.fromkeys(answers))


def _table(study: Study) -> Table:
    from rich.table import Table
    from rich.text import Text

    from leakaudit.report.words import clean

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Defence", overflow="fold")
    for heading in ("Macro-F1", "Right", "Answers"):
        table.add_column(heading, justify="right")
    for row in study.rows:
        cells = (_told(row.macro_f1), _told(row.accuracy), str(row.answers))
        table.add_row(Text(clean(row.defence)), *map(Text, cells))
    return table


def _told(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _last_line(study: Study) -> str:
    from leakaudit.report.words import clean

    people = f"{study.participants} participant{'s' if study.participants != 1 else ''}"
    word = "SCORED" if study.status == "usable" else "INCONCLUSIVE"
    return f"{word}: {people}, intervals over {study.unit}. {clean(study.reason)}"
