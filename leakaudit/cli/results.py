"""Commands on finished results: ``gate``, ``report`` and ``compare``, without weights or torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leakaudit.cli import options as opt
from leakaudit.cli.app import app
from leakaudit.cli.listing import columns
from leakaudit.core.errors import UsageError

if TYPE_CHECKING:
    from leakaudit.core.types import Result

ResultFile = Annotated[
    Path, typer.Argument(help="A result.json that a scan wrote, or its run folder.")
]


@app.command("report")
def report_command(
    result: ResultFile,
    output: opt.Output = None,
    layer: Annotated[
        str | None,
        opt.option(
            "--layer",
            "This layer only, of a result of several.",
            variable="LEAKAUDIT_REPORT_LAYER",  # a scan's may list several
        ),
    ] = None,
) -> None:
    """Render a finished result again, in any format."""
    from leakaudit.cli.outputs import parse_outputs, write_outputs
    from leakaudit.report.json import read_result

    outputs = parse_outputs(output, reads=result)
    if not outputs:
        raise UsageError("Nothing to write", todo="Say where, for example -o report.html")
    shown = _at_layer(read_result(result), layer)
    for path in write_outputs(shown, outputs):
        typer.echo(f"Written: {path}", err=True)


def _at_layer(result: Result, layer: str | None) -> Result:
    """The whole result, or that of one layer with the gates that were held against it."""
    from leakaudit.audit.by_layer import concluded
    from leakaudit.core.by_layer import layer_of
    from leakaudit.core.errors import UnknownNameError

    found = {layer_of(part): part for part in concluded(result)}
    if layer is not None and layer not in found:
        raise UnknownNameError("layer", layer, found, where="--layer")
    return result if layer is None else found[layer]


@app.command("presets")
def presets_command(
    name: Annotated[str | None, typer.Argument(help="The preset to print.")] = None,
) -> None:
    """List the presets, each with a line on it, or print one."""
    from leakaudit.core.errors import UnknownNameError
    from leakaudit.core.resources import resource, resource_dir

    files = sorted(resource_dir("presets").glob("*.toml"))
    names = [path.stem for path in files]
    if name is None:
        typer.echo("\n".join(columns([(path.stem, _about(path)) for path in files])))
        return
    if name not in names:
        raise UnknownNameError("preset", name, names)
    typer.echo(resource("presets", f"{name}.toml").read_text(encoding="utf-8").rstrip())


def _about(preset: Path) -> str:
    """What the first line of a preset says of it: ``# NAME: WORDS.``"""
    first = preset.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix(f"# {preset.stem}:").strip(" #")


@app.command("gate")
def gate_command(
    result: ResultFile,
    fail_on: opt.FailOn = None,
    policy: opt.Policy = None,
    output: opt.Output = None,
) -> int:
    """Apply gates to a finished result; the exit code tells."""
    from rich.console import Console

    from leakaudit.cli.outputs import ended, parse_outputs, write_all, write_step_summary
    from leakaudit.report.console import print_result
    from leakaudit.report.json import check_numbers, read_result
    from leakaudit.report.words import clean

    outputs = parse_outputs(output, reads=result)
    if not fail_on and policy is None:
        todo = 'Say one, for example --fail-on "identification>0.2", or a --policy'
        raise UsageError("No gate", todo=todo)
    judge = Judge(tuple(fail_on or ()), policy)
    for remark in judge.remarks():
        typer.echo(f"Warning: {clean(remark)}", err=True)
    read = read_result(result)
    check_numbers(read, where=str(result))
    told = judge(read)
    written, failed = write_all(told, outputs)
    for path in written:
        typer.echo(f"Written: {path}", err=True)
    write_step_summary(told)
    print_result(told, Console(stderr="-" in [path for _, path in outputs]))
    return ended(told.verdict.exit_code, failed)


class Judge:
    """Gates and a policy, read whole before any work; called, it judges a result by them.

    Raises ``UsageError`` for a policy or a baseline that can't be read.
    """

    def __init__(self, exprs: tuple[str, ...], policy: Path | None) -> None:
        from leakaudit.audit.gates import parse_gate
        from leakaudit.audit.policy import Policy, read_policy
        from leakaudit.cli.variables import refuse_empty
        from leakaudit.report.json import check_numbers, read_result

        refuse_empty("LEAKAUDIT_FAIL_ON", exprs)
        refuse_empty("LEAKAUDIT_POLICY", policy)
        for expr in exprs:
            parse_gate(expr)
        self._exprs = exprs
        self._policy = Policy() if policy is None else read_policy(policy)
        files = {path for limit in self._policy.limits for path in limit.results}
        self._baselines = {path: read_result(path) for path in sorted(files)}
        for path, base in self._baselines.items():
            check_numbers(base, where=str(path))

    def asked(self) -> dict[str, str]:
        """All gates, those of baselines' rows too, by the text that the user knows them by."""
        rows = {limit.rule.expr: f"{limit.rule.expr}>0" for limit in self._policy.limits}
        return {**rows, **{e: e for e in (*self._exprs, *(r.expr for r in self._policy.gates))}}

    def remarks(self) -> tuple[str, ...]:
        """A sentence for each gate that may not be what its writer means."""
        from leakaudit.audit.gates import parse_gate, remark

        exprs = (*self._exprs, *(rule.expr for rule in self._policy.gates))
        told = ((expr, remark(parse_gate(expr))) for expr in dict.fromkeys(exprs))
        return tuple(f"gate '{expr}' {said}" for expr, said in told if said)

    def __call__(self, result: Result) -> Result:
        """The result with gates and verdict as of today."""
        from datetime import UTC, datetime

        from leakaudit.audit.judge import judged

        today = datetime.now(UTC).date()
        return judged(result, self._exprs, self._policy, self._baselines, today)


@app.command("compare")
def compare_command(
    one: Annotated[
        Path, typer.Argument(help="A result.json that a scan wrote, or its run folder.")
    ],
    other: Annotated[Path, typer.Argument(help="Another one, of the same encoder and data.")],
) -> None:
    """Show two results side by side; refuses those that can't be compared (exit code 2)."""
    from rich.console import Console

    from leakaudit.audit.comparable import obstacles
    from leakaudit.cli.side_by_side import print_comparison
    from leakaudit.core.errors import InputError
    from leakaudit.report.json import read_result
    from leakaudit.report.words import clean

    a, b = read_result(one), read_result(other)
    found = obstacles(a, b, same_weights=True)
    if found:
        raise InputError(
            f"These results can't be compared; they differ in {clean('; '.join(found))}",
            where=f"{one} and {other}",
            todo="Scan again with the same encoder, layer, people, preset and attacks",
        )
    print_comparison(a, b, Console())
