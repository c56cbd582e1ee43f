"""The layers of the house: a room imports only from rooms below it, and none is unplaced."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import leakaudit

PACKAGE = Path(leakaudit.__file__).parent
HEIGHT = {
    "cli": 6,
    "report": 5,
    "audit": 4,
    "attacks": 3,
    "defences": 3,
    "metrics": 3,
    "demo": 3,
    "models": 2,
    "maths": 1,
    "core": 0,
}
ONLY_CORE = {"report"}  # renders one Result and computes nothing
UNKNOWN_TO_ALL_BUT = {"report": {"cli"}}
TORCHLESS_ROOMS = {"report", "cli"}  # cli reaches torch through audit, when a scan begins
ENTRY = {"leakaudit", "leakaudit.__main__"}  # the lazy public API, and the door to cli
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = ["leakaudit", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "leakaudit" and len(parts) > 1 else None


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports, at its top or inside functions."""
    found = set()
    here = name_of(path).split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = here if path.name == "__init__.py" else here[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def roots_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)}


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after running ``code``."""
    script = f"import sys\n{code}\nsys.stderr.write(' '.join(m.split('.')[0] for m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return set(done.stderr.split())


def test_every_room_is_placed() -> None:
    folders = {p.parent.relative_to(PACKAGE).parts[0] for p in MODULES if p.parent != PACKAGE}
    unplaced = folders - HEIGHT.keys()
    assert not unplaced, f"rooms without a place in the house: {unplaced}"
    loose = {name_of(p) for p in MODULES if p.parent == PACKAGE} - ENTRY
    assert not loose, f"modules outside of any room: {loose}"


def test_a_room_imports_only_from_rooms_below_it() -> None:
    wrong = [
        f"{name_of(path)} imports {imported}: {why}"
        for path in MODULES
        for imported in sorted(imports_of(path))
        if (why := objection(room_of(name_of(path)), room_of(imported)))
    ]
    assert not wrong, "\n".join(wrong)


def objection(own: str | None, other: str | None) -> str | None:
    """Why a room may not import from another one, or nothing."""
    if own in (None, "__main__") or other in (None, own):
        return None
    if other not in HEIGHT or own not in HEIGHT:
        return "a room without a place"
    if HEIGHT[other] >= HEIGHT[own]:
        return "not below it"
    if own in ONLY_CORE and other != "core":
        return f"{own} knows core only"
    if own not in UNKNOWN_TO_ALL_BUT.get(other, {own}):
        return f"only {UNKNOWN_TO_ALL_BUT[other]} may know {other}"
    return None


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("core", "maths"),
        ("attacks", "defences"),
        ("metrics", "attacks"),
        ("models", "demo"),
        ("audit", "cli"),
        ("audit", "report"),
        ("report", "maths"),
        ("kitchen", "core"),
    ],
)
def test_the_rule_itself_forbids(own: str, other: str) -> None:
    assert objection(own, other)


def test_torch_stays_out_of_cli_and_report() -> None:
    heavy = {"torch", "torchvision", "ot", "skimage"}
    wrong = [
        name_of(path)
        for path in MODULES
        if room_of(name_of(path)) in TORCHLESS_ROOMS and roots_of(path) & heavy
    ]
    assert not wrong


def test_templates_the_terminal_and_the_command_line_have_one_room_each() -> None:
    homes = {"jinja2": {"report"}, "typer": {"cli"}, "rich": {"report", "cli"}}
    wrong = [
        f"{name_of(path)} imports {library}"
        for path in MODULES
        for library, rooms in homes.items()
        if library in roots_of(path) and room_of(name_of(path)) not in rooms
    ]
    assert not wrong


def test_nothing_prints() -> None:
    wrong = [
        f"{name_of(path)}, line {node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert not wrong


@pytest.mark.parametrize("module", ["leakaudit", "leakaudit.audit.gates", "leakaudit.cli.results"])
def test_finished_results_are_judged_without_torch(module: str) -> None:
    assert "torch" not in loaded_by(f"import {module}")


def test_help_imports_no_torch() -> None:
    code = (
        "sys.argv = ['leakaudit', '--help']\n"
        "from leakaudit.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code"
    )
    loaded = loaded_by(code)
    assert "typer" in loaded  # the command line did run
    assert not loaded & {"torch", "torchvision", "skimage", "ot"}


def test_the_public_names_are_found() -> None:
    for name in leakaudit.__all__:
        assert getattr(leakaudit, name) is not None
