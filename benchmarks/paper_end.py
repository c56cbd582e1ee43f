"""The paper's algorithm run to its end on many faces, kept step by step, for crafter.py to judge.

    python benchmarks/paper_end.py FOLDER --faces 200
    python benchmarks/paper_end.py FOLDER --faces 200 --part 1/2    # beside 2/2, one a core
    python benchmarks/crafter.py --faces 200 --paper-end FOLDER

Batches of 16 go through ``crafter-paper`` as ``crafter.py --paper-steps 450`` would send them, from
the same draws, but the 120 terms of the Neumann series are summed in a Krylov space of 8 products,
which gives the same sum to rounding (1e-6 on the demo) in a fourteenth of its time. FOLDER keeps
every batch each 25 outer steps; the same command again goes on where it was stopped. It takes the
options of one's own subject, as ``crafter.py`` does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from subjects import add_subject, subject_of
from torch import Tensor

from leakaudit.core.errors import LeakauditError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Workshop
from leakaudit.defences.crafter_paper import CrafterPaper, PaperAtWork, State
from leakaudit.models.subject import Subject

KEPT = 25  # outer steps between two looks
PRODUCTS = 8


def about(subject: Subject, how: CrafterPaper, told: argparse.Namespace) -> dict[str, Any]:
    """What a folder's batches belong to."""
    images = subject.faces.images
    seen = {
        "faces": len(images), "picture_sum": float(images.double().sum()), "seed": told.seed,
        "feature_sum": float(subject.query(images[:1]).double().sum()),
    }  # fmt: skip
    return {**seen, "settings": {k: v for k, v in asdict(how).items() if k != "outer_steps"}}


def same_or_exit(folder: Path, told: dict[str, Any]) -> None:
    """Writes what the folder is for, or exits with a line where it's for something else."""
    path = folder / "about.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        other = sorted(key for key in told if kept.get(key) != told[key])
        if other:
            sys.exit(f"{folder} belongs to other {', '.join(other)}: name another folder")
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def run(work: PaperAtWork, images: Tensor, path: Path, rng: Rng, steps: int) -> None:
    """One batch up to ``steps`` outer steps from where ``path`` stands, kept as it goes."""
    state: State
    if path.exists():
        state = torch.load(path, weights_only=False)["state"]
    else:
        state = work.begin(images, rng)
    how = work.how
    while state.step < steps:
        began, here = time.perf_counter(), min(KEPT, steps - state.step)
        work.how = replace(how, outer_steps=here)
        part = work.craft(state, rng)
        if not bool(part.features.isfinite().all()):
            sys.exit(f"{path.stem} left the finite numbers by step {state.step}")
        fresh = path.with_suffix(".tmp")
        torch.save({"state": state, "privacy": part.privacy, "utility": part.utility}, fresh)
        fresh.replace(path)
        torch.save(state.F, path.with_name(f"{path.stem}-at-{state.step:04d}.features"))
        took = (time.perf_counter() - began) / here
        sys.stdout.write(
            f"{path.stem} step {state.step}: {took:.1f} s a step, critic's distance "
            f"{float(part.privacy.mean()):.2f}, |F - F0|^2/d {float(part.utility.mean()):.4f}\n"
        )
        sys.stdout.flush()


def released(folder: Path, faces: int, batch: int, step: int | None = None) -> tuple[Tensor, int]:
    """The features (N, ...) of all batches after ``step`` outer steps, or those all have reached.

    Fewer than ``faces`` where later batches aren't there yet.
    """
    found: dict[int, dict[int, Path]] = {}
    for path in sorted(folder.glob("batch-*-at-*.features")):
        _, number, _, at = path.stem.split("-")
        found.setdefault(int(number), {})[int(at)] = path
    whole = -(-faces // batch)
    there = [found[k] for k in range(whole) if k in found]
    if not there or sorted(found)[: len(there)] != list(range(len(there))):
        sys.exit(f"{folder} lacks its first batches: run benchmarks/paper_end.py {folder}")
    if step is None:
        step = min(max(steps) for steps in there)
    there = [steps for steps in there if step in steps]
    return torch.cat([torch.load(steps[step]) for steps in there]), step


def main() -> None:
    """Runs the batches of this part, the first ones first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faces", type=int, default=200)
    parser.add_argument("--steps", type=int, default=450, help="outer steps")
    parser.add_argument(
        "--part", default="1/1", metavar="I/N", help="each N-th batch from the I-th"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all randomness but the people")
    parser.add_argument("--paper-beta", type=float, default=1.0, help="1 / the paper's beta'")
    parser.add_argument("--inner-rate", type=float, default=5e-3, help="of the paper's descent")
    add_subject(parser)
    told = parser.parse_args()
    subject = subject_of(told, told.faces)
    how = CrafterPaper(
        beta=told.paper_beta, inner_rate=told.inner_rate, outer_steps=told.steps, products=PRODUCTS
    )
    told.folder.mkdir(parents=True, exist_ok=True)
    same_or_exit(told.folder, about(subject, how, told))
    rng = Rng(told.seed, ("benchmark",)).derive("paper")
    work = how.deploy(
        Workshop(subject.encoder, subject.public, subject.prior), rng.derive("deploy")
    )
    assert isinstance(work, PaperAtWork)
    mine, of = (int(x) for x in told.part.split("/"))
    for number, images in enumerate(subject.faces.images.split(how.batch)):
        if number % of == mine - 1:
            path = told.folder / f"batch-{number:03d}.state"
            stream = rng.derive("release").derive(number)
            run(work, images, path, stream, told.steps)
            work.how = how


if __name__ == "__main__":
    try:
        main()
    except LeakauditError as error:
        sys.exit(str(error))
