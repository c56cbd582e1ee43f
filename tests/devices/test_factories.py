"""A tensor that is made without ``device=`` lies on the CPU: here each such call has its reason."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "leakaudit"
ROOMS = ("maths", "models", "attacks", "defences", "metrics")
FACTORIES = frozenset(
    (
        "zeros", "ones", "empty", "full", "arange", "linspace", "eye", "tensor", "as_tensor",
        "randn", "rand", "randint", "randperm",
    )
)  # fmt: skip
STATISTICS = "statistics of numbers that were brought to the CPU"
READ = "pictures and tables are read on the CPU"
LIKE = "stands in where a network has no parameter"
ALLOWED = {
    "maths/intervals.py": STATISTICS,
    "metrics/likeness.py": STATISTICS,
    "metrics/indistinguishability.py": STATISTICS,
    "metrics/utility.py": STATISTICS,
    "models/faces.py": READ,
    "models/verification.py:of": STATISTICS,
    "models/oracle.py:__init__": "an oracle's embeddings are on the CPU",
    "models/own_prior.py:wrapped": "a user's generator is tried on the CPU",
    "models/prior.py:state": "a count, for the checkpoint",
    "models/preprocessing.py:__init__": "a buffer, which is moved with its module",
    "models/encoder.py:_never_used": LIKE,
    "models/layers.py:layer_table": LIKE,
    "models/generators.py:draw": LIKE,
    "defences/crafted.py:__init__": "a count a face that decides when to stop, on the CPU",
    "defences/crafted.py:settled": "likewise",
    "defences/crafter_paper.py:craft": "likewise",
    "attacks/linkage_maps.py:bag": "rounded to the same places everywhere, then moved",
    "attacks/linkage_naming.py:naming": "a number for the curve",
    "attacks/dip.py:__init__": "joined with draws, and moved with them",
}
"""By file, or by file and function."""


def bare_factories() -> dict[str, list[int]]:
    """Where tensors are made without a device, but for draws: a CPU generator makes them there."""
    found: dict[str, list[int]] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).glob("*.py")):
            visit(ast.parse(path.read_text(encoding="utf-8")), f"{room}/{path.name}", "", found)
    return found


def visit(node: ast.AST, file: str, function: str, found: dict[str, list[int]]) -> None:
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef) else function
        if isinstance(child, ast.Call) and is_bare(child):
            found.setdefault(f"{file}:{inside}", []).append(child.lineno)
        visit(child, file, inside, found)


def is_bare(call: ast.Call) -> bool:
    name = call.func
    ours = isinstance(name, ast.Attribute) and name.attr in FACTORIES
    if not (ours and isinstance(name.value, ast.Name) and name.value.id == "torch"):
        return False
    return not {"device", "generator"} & {keyword.arg for keyword in call.keywords}


def test_tensors_are_made_on_a_device_that_is_said():
    found = bare_factories()
    surplus = {
        place: lines
        for place, lines in found.items()
        if place not in ALLOWED and place.partition(":")[0] not in ALLOWED
    }
    assert not surplus, f"say device=, or why the CPU is right, for {surplus}"


def test_no_reason_outlives_its_call():
    places = set(bare_factories())
    places |= {place.partition(":")[0] for place in places}
    assert set(ALLOWED) <= places


def test_the_rule_finds_what_it_is_for():
    tree = ast.parse("def f(x):\n    return torch.zeros(3), torch.ones(2, device=x.device)")
    found: dict[str, list[int]] = {}
    visit(tree, "attacks/new.py", "", found)
    assert found == {"attacks/new.py:f": [2]}
