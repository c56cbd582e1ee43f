"""The paper's algorithm run to its end on many faces, kept step by step, for crafter.py to judge.

    python benchmarks/paper_end.py FOLDER --faces 200
    python benchmarks/paper_end.py FOLDER --faces 200 --part 1/2    # beside 2/2, one a core
    python benchmarks/crafter.py --faces 200 --paper-end FOLDER

Batches of 16 go through ``crafter-paper`` as ``crafter.py --paper-steps 450`` would send them, from
the same draws, but the 120 terms of the Neumann series are summed in a Krylov space of 8 products,
which gives the same sum to rounding (1e-6 on the demo) in a twelfth of its time. FOLDER keeps
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

from leakaudit.audit.store import digest
from leakaudit.core.errors import LeakauditError
from leakaudit.core.rng import Rng
from leakaudit.defences.base import Workshop
from leakaudit.defences.crafter_paper import CrafterPaper, PaperAtWork, State
from leakaudit.models.subject import Subject
from leakaudit.models.weights import sha256_of_state

KEPT = 25  # outer steps between two looks
PRODUCTS = 8


def algorithm(told: argparse.Namespace) -> CrafterPaper:
    """The paper's algorithm as it is kept."""
    return CrafterPaper(beta=told.paper_beta, inner_rate=told.inner_rate, products=PRODUCTS)


def about(subject: Subject, told: argparse.Namespace) -> dict[str, Any]:
    """What a folder's batches belong to: pictures, networks, settings and seed."""
    assert subject.prior is not None  # its critic is a part of it
    settings = asdict(algorithm(told))
    del settings["outer_steps"]
    return {
        "faces": len(subject.faces), "pictures": digest(subject.faces.images),
        "encoder": sha256_of_state(subject.encoder), "prior": sha256_of_state(subject.prior),
        "settings": settings, "seed": told.seed,
    }  # fmt: skip


def same_or_exit(folder: Path, told: dict[str, Any]) -> None:
    """Exits with a line where the folder is for something else, or for nothing."""
    try:
        kept = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"{folder} holds no end of the paper's algorithm ({error}): run paper_end.py")
    other = sorted(key for key in {*told, *kept} if kept.get(key) != told.get(key))
    if other:
        sys.exit(f"{folder} belongs to other {', '.join(other)}: name another folder")


def kept(path: Path, thing: Any) -> None:
    """Writes a file whole or not at all."""
    fresh = path.with_suffix(".tmp")
    torch.save(thing, fresh)
    fresh.replace(path)


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
        # Features first: a state that is there has all of its own beside it.
        kept(path.with_name(f"{path.stem}-at-{state.step:04d}.features"), state.F)
        kept(path, {"state": state, "privacy": part.privacy, "utility": part.utility})
        took = (time.perf_counter() - began) / here
        sys.stdout.write(
            f"{path.stem} step {state.step}: {took:.1f} s a step, critic's distance "
            f"{float(part.privacy.mean()):.2f}, |F - F0|^2/d {float(part.utility.mean()):.4f}\n"
        )
        sys.stdout.flush()


def released(folder: Path, faces: int, batch: int, step: int) -> tuple[Tensor, Tensor]:
    """The features (N, ...) after ``step`` outer steps, of the batches that have come so far.

    Beside them which of the ``faces`` they are of, (N,).
    """
    paths = [folder / f"batch-{k:03d}-at-{step:04d}.features" for k in range(-(-faces // batch))]
    rows = torch.arange(faces).split(batch)
    there = [(torch.load(path), of) for path, of in zip(paths, rows, strict=True) if path.exists()]
    if not there:
        sys.exit(f"No batch of {folder} has anything kept of step {step}")
    features, of = zip(*there, strict=True)
    return torch.cat(features), torch.cat(of)


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
    how, facts = algorithm(told), about(subject, told)
    told.folder.mkdir(parents=True, exist_ok=True)
    if not (told.folder / "about.json").exists():
        text = json.dumps(facts, indent=2) + "\n"
        (told.folder / "about.json").write_text(text, encoding="utf-8")
    same_or_exit(told.folder, facts)
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
