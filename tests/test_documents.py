"""What README and docs point to exists, and each command and option is told in docs/."""

import re
from pathlib import Path

import pytest
import typer

import leakaudit.cli.doctor
import leakaudit.cli.fetch
import leakaudit.cli.layers
import leakaudit.cli.prior
import leakaudit.cli.protect
import leakaudit.cli.results
import leakaudit.cli.scan
import leakaudit.cli.study
import leakaudit.cli.tune  # noqa: F401 - commands register themselves
from leakaudit.cli.app import ORDER, app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "leakaudit" / "README.md", *(ROOT / "docs").glob("*.md")]
)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHARED = {"--help"}
# Where a command's options are told; the names that stand there may be those of ``scan``.
TOLD_IN = {
    "scan": ["cli.md"], "tune": ["tune.md", "cli.md"], "protect": ["cli.md"], "gate": ["cli.md"],
    "report": ["cli.md"], "compare": ["cli.md"], "presets": ["cli.md"],
    "layers": ["encoders.md", "cli.md"], "doctor": ["encoders.md", "cli.md"],
    "fetch": ["weights.md"], "prior train": ["priors.md"], "study make": ["study.md"],
    "study score": ["study.md", "cli.md"],
}  # fmt: skip


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", without_code(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(without_code(page)):
        path, _, anchor = link.partition("#")
        if ":" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def commands() -> dict[str, typer.core.TyperCommand]:
    """Every command by what one types, subcommands with their group in front."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {k}": v for k, v in inner.items()} if inner else {name: command}
    return found


def flags(command: typer.core.TyperCommand) -> set[str]:
    every = {flag for parameter in command.params for flag in parameter.opts}
    return {flag for flag in every if flag.startswith("--")} - SHARED


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# One: a head\n[x](b.md) [y](#one-a-head) [z](#two) [w](https://e.org)\n")
    assert broken(page) == ["b.md", "#two"]


def test_every_page_is_reached_from_the_readme():
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    missing = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - linked
    assert not missing


@pytest.mark.parametrize("name", sorted(commands()))
def test_each_option_of_a_command_is_told(name):
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in TOLD_IN[name])
    told = set(re.findall(FLAG, text))
    assert flags(commands()[name]) - told == set()


@pytest.mark.parametrize("page", ["cli.md", "tune.md", "protect.md", "priors.md", "encoders.md"])
def test_no_option_is_told_that_no_command_has(page):
    known = set().union(*map(flags, commands().values())) | SHARED
    known |= {"--version", "--install-completion", "--show-completion"}
    told = set(re.findall(FLAG, (ROOT / "docs" / page).read_text("utf-8")))
    assert told - known == set()


def test_help_lists_each_command_in_its_place():
    group = typer.main.get_command(app)
    assert tuple(group.list_commands(None)) == ORDER


@pytest.mark.parametrize("name", sorted(commands()))
def test_no_help_text_holds_what_rich_takes_for_an_emoji(name):
    texts = [getattr(p, "help", None) or "" for p in commands()[name].params]
    assert [text for text in texts if re.search(r":[a-z_]+:", text)] == []
