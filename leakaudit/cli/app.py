"""The entry point: commands, and the one place where exceptions become exit codes."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from typing import Any, NoReturn

import typer
import typer.core

from leakaudit.core.errors import LeakauditError
from leakaudit.core.memory import is_out_of_memory

# Typer carries its own copy of click from 0.26 on; both have this base class of usage errors.
ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

ORDER = (
    "scan", "tune", "protect", "prior", "layers", "doctor", "fetch", "presets", "gate", "report",
    "compare", "study",
)  # fmt: skip
"""The commands as ``--help`` lists them: what one does first stands first."""


WIDE = 90
"""From so many columns on, help is told in tables."""


class _InOrder(typer.core.TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands in ``ORDER``; what isn't listed there comes last."""
        named = super().list_commands(ctx)
        return sorted(named, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="leakaudit",
    cls=_InOrder,
    help="Audit how much of a face leaks from the intermediate features of a split model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from leakaudit.audit.about import tool_version

        typer.echo(f"leakaudit {tool_version()}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Audit how much of a face leaks from the intermediate features of a split model."""
    from leakaudit.cli.config import defaults
    from leakaudit.cli.variables import unread

    group: Any = ctx.command
    typed = ctx.obj or ()
    try:
        ctx.default_map = defaults(group.commands, networks=not _asks_for_demo(typed))
        if strange := unread(group.commands, os.environ):
            _say(f"Warning: no option reads {', '.join(strange)}; --help lists the variables.")
    except LeakauditError:
        if "--help" not in typed and "-h" not in typed:  # help is no run: it says what is right
            raise


def _asks_for_demo(arguments: tuple[str, ...]) -> bool:
    """Whether the demo is asked for by either of its options, typed or as a variable."""
    said = os.environ.get("LEAKAUDIT_DEMO", "").strip().lower()
    return (
        "--demo" in arguments
        or "--encoder=demo" in arguments
        or ("--encoder", "demo") in pairwise(arguments)
        or said in ("1", "true", "t", "yes", "y", "on")
        or os.environ.get("LEAKAUDIT_ENCODER") == "demo"
    )


def _guarded(entry: Callable[[], NoReturn]) -> Callable[[], NoReturn]:
    """``entry``, whose own failures (a broken import) end with 4, never with Python's 1."""

    @wraps(entry)
    def guarded() -> NoReturn:
        try:
            entry()
        except Exception as error:
            sys.exit(_crash(error))

    return guarded


@_guarded
def main() -> NoReturn:
    """Run the command line; exits with the codes of docs/cli.md."""
    import leakaudit.cli.doctor
    import leakaudit.cli.fetch
    import leakaudit.cli.layers
    import leakaudit.cli.prior
    import leakaudit.cli.protect
    import leakaudit.cli.results
    import leakaudit.cli.scan
    import leakaudit.cli.study
    import leakaudit.cli.tune  # noqa: F401 - commands register themselves

    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of one command line."""
    command: Any = typer.main.get_command(app)
    if shutil.get_terminal_size().columns < WIDE:
        _explain_plainly(command)
    try:
        code = command.main(
            arguments, prog_name="leakaudit", standalone_mode=False, obj=tuple(arguments)
        )
        if code == 130:  # typer turns an interruption into this code, without a word
            _say("Interrupted.")
        return code if isinstance(code, int) else 0
    except typer.Exit as leave:
        return int(leave.exit_code)
    except SystemExit:  # typer's answer to a pipe that was closed is 1, which is a breach here
        return 4
    except ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        _say("Interrupted.")
        return 130
    except LeakauditError as error:
        _say(f"Error: {error}")
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 4
    except Exception as error:
        return _no_memory(error) if is_out_of_memory(error) else _crash(error)


def _explain_plainly(command: Any) -> None:
    """Lets the options' help run over lines: a table cuts words that don't fit its columns."""
    subcommands = getattr(command, "commands", {})
    for one in subcommands.values():
        _explain_plainly(one)
    if not subcommands:
        command.rich_markup_mode = None


def _no_memory(error: Exception) -> int:
    if type(error).__name__ == "OutOfMemoryError":  # torch's, for a GPU
        _say("Error: The GPU ran out of memory. Say --device cpu, or give smaller images.")
    else:
        _say("Error: The machine ran out of memory. Give fewer or smaller images.")
    return 4


def _crash(error: Exception) -> int:
    """A bug of ours: never looks like a finding (1), and shows its trace on request only."""
    if os.environ.get("LEAKAUDIT_DEBUG"):
        _say("".join(traceback.format_exception(error)))
    kind = type(error).__name__
    if kind in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in str(error):
        _say("Error: The machine ran out of memory. Give fewer or smaller images.")
        return 4
    _say(
        f"Error: leakaudit failed unexpectedly ({kind}: {error}). This is a bug; "
        "LEAKAUDIT_DEBUG=1 shows where."
    )
    return 4


def _say(text: str) -> None:
    from leakaudit.report.words import clean

    stream: Any = sys.stderr
    stream.write("\n".join(clean(line) for line in text.rstrip().splitlines()) + "\n")
