"""Commands on finished results: ``gate`` and ``report``, without weights, images or torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leakaudit.cli.app import app
from leakaudit.core.errors import UsageError

ResultFile = Annotated[Path, typer.Argument(help="A result.json that a scan wrote.")]


@app.command("report")
def report_command(
    result: ResultFile,
    output: Annotated[
        list[str] | None, typer.Option("-o", "--output", help="[KIND:]PATH, repeatable.")
    ] = None,
) -> None:
    """Render a finished result again, in any format."""
    from leakaudit.cli.outputs import parse_output, write_outputs
    from leakaudit.report.json import read_result

    outputs = [parse_output(text) for text in output or []]
    if not outputs:
        raise UsageError("Nothing to write", todo="Say where, for example -o report.html")
    for path in write_outputs(read_result(result), outputs):
        typer.echo(f"Written: {path}", err=True)


@app.command("presets")
def presets_command(
    name: Annotated[str | None, typer.Argument(help="The preset to print.")] = None,
) -> None:
    """List the presets, or print one."""
    from leakaudit.core.errors import UnknownNameError
    from leakaudit.core.resources import resource, resource_dir

    names = sorted(path.stem for path in resource_dir("presets").glob("*.toml"))
    if name is None:
        typer.echo("\n".join(names))
        return
    if name not in names:
        raise UnknownNameError("preset", name, names)
    typer.echo(resource("presets", f"{name}.toml").read_text(encoding="utf-8").rstrip())


@app.command("gate")
def gate_command(
    result: ResultFile,
    fail_on: Annotated[
        list[str] | None,
        typer.Option("--fail-on", help="[DEFENCE.][ATTACK.]METRIC OP NUMBER[@value], repeatable."),
    ] = None,
) -> int:
    """Apply gates to a finished result; the exit code tells."""
    from dataclasses import replace

    from rich.console import Console

    from leakaudit.audit.gates import conclude, judge
    from leakaudit.report.console import print_result
    from leakaudit.report.json import read_result

    if not fail_on:
        raise UsageError("No gate", todo='Say one, for example --fail-on "identification>0.2"')
    found = read_result(result)
    labels = list(found.plan.get("defences", {"none": {}}))
    gates = judge(fail_on, found.scores, found.utility, found.doubts, labels)
    judged = replace(found, gates=gates, verdict=conclude(gates, found.scores))
    print_result(judged, Console())
    return judged.verdict.exit_code
