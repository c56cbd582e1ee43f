r"""Our attacks beside the authors' on undefended demo features: what is named, at what cost.

    python benchmarks/attacks.py --quick
    python benchmarks/attacks.py --faces 40 --people-seed 2 --layer 2 --json figures.json
    python benchmarks/attacks.py --encoder torchvision:resnet18 --weights FILE --layer layer3 \
        --images DIR --public DIR --prior FILE --oracle SPEC --oracle-weights FILE

The second form takes one's own subject, with scan's options; `benchmarks/rendered.py` makes one.

How to read it. One row an attack, all on the same encoder, prior and faces. ``identified`` and
``SSIM`` are measured against the originals after the attack has returned. A pass is a face sent
forward through the encoder, a backward pass counts as two more; they are counted in the encoder
itself. ``prepare`` is spent once (samples for the amortiser, public pictures, a decoder's pairs),
``a face`` on each face; the columns ``at 40`` and ``at 2,000`` are what a face costs with prepare
shared by so many. Seconds are of this machine, as loaded as it was. ``against reference`` is the
difference in identification to the best reference row, on the same faces, with its 95 % interval.

The reference descends 100 |Enc(G(z)) - F| with momentum .9 from one random start, 600 steps
(Crafter, NDSS 2024, and its code). Its norm is taken a face, not over the batch. Its rate suits the
scale of the authors' features: a short pilot on public pictures finds the rate for these ones
among half decades from theirs, 5e-3, down; that one and its two neighbours run, and the best of
the three by identification (then SSIM), with the answer in hand, is the reference. Its best iterate
counts, not its last. The pilot and the other two rates aren't charged to it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from skimage.metrics import structural_similarity
from subjects import add_subject, subject_of
from torch import Tensor, nn

from leakaudit.attacks import ATTACKS
from leakaudit.attacks.base import Attack
from leakaudit.core.rng import Rng
from leakaudit.core.threats import Bench, Informed, ThreatModel
from leakaudit.demo.load import demo_subject
from leakaudit.maths.intervals import paired_rate_difference
from leakaudit.models.subject import Subject

STEPS, PILOT_STEPS, PILOT_FACES, BATCH = 600, 60, 8, 32
LADDER = tuple(5e-3 * 10 ** (-k / 2) for k in range(8))
BUDGETS: dict[str, dict[str, Any]] = {
    "lean": {"search.steps": 12, "widening.steps": 8, "restarts": 1, "public": 300},
    "default": {},
    "long": {"search.steps": 120, "widening.stages": 3, "restarts": 4, "samples": 2000},
}


@dataclass(frozen=True)
class Row:
    """What one attack reached and spent; passes and seconds of preparing, and of all faces."""

    name: str
    faces: int
    hits: tuple[bool, ...]
    ssim: float
    prepare_passes: int
    face_passes: float
    prepare_seconds: float
    face_seconds: float

    @property
    def identified(self) -> float:
        """The share of faces that the oracle names right."""
        return sum(self.hits) / self.faces

    def passes_at(self, faces: int) -> float:
        """Passes a face where preparing is shared by so many."""
        return self.prepare_passes / faces + self.face_passes


class Counting(nn.Module):
    """An encoder that counts the passes made through it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.passes = encoder, 0

    def forward(self, x: Tensor) -> Tensor:
        """Features, counted: one a face, three where a gradient will be asked for."""
        self.passes += len(x) * (3 if x.requires_grad else 1)
        feature: Tensor = self.encoder(x)
        return feature


@dataclass(frozen=True)
class Target:
    """Who is attacked, through what, and what they look like to the encoder."""

    subject: Subject
    encoder: Counting
    features: Tensor

    @staticmethod
    def of(subject: Subject, *behind: str) -> Target:
        """The subject's encoder, with these parts of its head after it."""
        net: nn.Module = subject.encoder
        for name in behind:
            assert subject.head is not None
            net = nn.Sequential(net, subject.head.get_submodule(name))
        net = net.eval().requires_grad_(False)
        return Target(subject, Counting(net), _features(net, subject.faces.images))

    def held(self, kind: type[ThreatModel]) -> ThreatModel:
        """What this adversary may hold, with nothing defended."""
        encoder = self.encoder
        things: dict[str, Any] = {
            "public": self.subject.public,
            "encoder": encoder,
            "query": encoder,
            "prior": self.subject.prior,
            "head": self.subject.head,
            "release": lambda x, count: torch.stack([_features(encoder, x)] * count),
            "recogniser": None,
            "bench": Bench(),
        }
        return kind(**{f.name: things[f.name] for f in fields(kind)})

    def measured(
        self, name: str, images: Tensor, spent: tuple[int, int], took: tuple[float, float]
    ) -> Row:
        """A row from pictures, passes and seconds, each (preparing, all faces)."""
        faces = self.subject.faces
        hits = self.subject.oracle.name_faces(images) == faces.people
        return Row(
            name, len(images), tuple(hits.tolist()), _ssim(images, faces.images),
            spent[0], spent[1] / len(images), took[0], took[1] / len(images),
        )  # fmt: skip


@torch.no_grad()
def _features(encoder: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([encoder(x) for x in images.split(BATCH)])


def _ssim(made: Tensor, real: Tensor) -> float:
    def arrays(images: Tensor) -> Any:
        return images.permute(0, 2, 3, 1).double().numpy()

    values = [
        structural_similarity(
            a, b, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(arrays(made), arrays(real), strict=True)
    ]  # fmt: skip
    return float(sum(values) / len(values))


def ours(target: Target, name: str, attack: Attack, rng: Rng) -> Row | None:
    """One of our attacks; ``None`` where it gives no picture."""
    if issubclass(attack.holds, Informed):
        return None
    encoder, looks = target.encoder, attack.looks()
    encoder.passes, began = 0, time.perf_counter()
    ready = attack.prepare(target.held(attack.holds), rng.derive("prepare"))
    prepared, then = encoder.passes, time.perf_counter()
    seen = target.features if looks == 1 else torch.stack([target.features] * looks)
    images = ready.reconstruct(seen, rng.derive("reconstruct")).images
    done = time.perf_counter()
    if images is None:
        return None
    spent = prepared, encoder.passes - prepared
    return target.measured(name, images, spent, (then - began, done - then))


def reference(target: Target, rng: Rng, *, steps: int = STEPS) -> list[Row]:
    """The authors' attack at three rates, the best one first."""
    rates = _rates(target, rng.derive("pilot"))
    rows = []
    for rate in rates:
        target.encoder.passes, began = 0, time.perf_counter()
        latents, _ = _momentum(target, target.features, rng.derive("start"), rate, steps)
        took = time.perf_counter() - began
        prior = target.subject.prior
        assert prior is not None
        with torch.no_grad():
            images = torch.cat([prior(z) for z in latents.split(BATCH)])
        name = f"reference, rate {rate:.1e}"
        rows.append(target.measured(name, images, (0, target.encoder.passes), (0.0, took)))
    return sorted(rows, key=lambda row: (-row.identified, -row.ssim))


def _rates(target: Target, rng: Rng) -> tuple[float, ...]:
    """The best rate of the pilot, and its neighbours."""
    few = _features(target.encoder, target.subject.public[:PILOT_FACES])
    losses = [float(_momentum(target, few, rng, rate, PILOT_STEPS)[1].mean()) for rate in LADDER]
    best = min(range(len(LADDER)), key=lambda k: (not math.isfinite(losses[k]), losses[k]))
    middle = min(max(best, 1), len(LADDER) - 2)
    return LADDER[middle - 1 : middle + 2]


def _momentum(
    target: Target, features: Tensor, rng: Rng, rate: float, steps: int
) -> tuple[Tensor, Tensor]:
    """The best iterate (N, latent) a face and its distance (N,)."""
    prior = target.subject.prior
    assert prior is not None
    draws = prior.draw(len(features), rng)
    found = [
        _momentum_in_batch(target, f, z, rate, steps)
        for f, z in zip(features.split(BATCH), draws.split(BATCH), strict=True)
    ]
    return torch.cat([z for z, _ in found]), torch.cat([gap for _, gap in found])


def _momentum_in_batch(
    target: Target, features: Tensor, start: Tensor, rate: float, steps: int
) -> tuple[Tensor, Tensor]:
    prior = target.subject.prior
    assert prior is not None
    z, speed = start.clone().requires_grad_(), torch.zeros_like(start)
    best, least = start.clone(), torch.full((len(start),), math.inf)
    for _ in range(steps):
        gap = (target.encoder(prior(z)) - features).flatten(1).norm(dim=1)
        with torch.no_grad():
            better = gap < least
            least = torch.where(better, gap, least)
            best = torch.where(better[:, None], z, best)
        (slope,) = torch.autograd.grad(100 * gap.sum(), z)
        speed = 0.9 * speed + slope
        with torch.no_grad():
            z -= rate * speed
    return best, least


HEAD = (
    f"{'attack':34s} {'identified':>10s} {'SSIM':>6s} | passes: {'prepare':>8s} {'a face':>7s} "
    f"{'at 40':>7s} {'at 2,000':>8s} | seconds: {'prepare':>7s} {'a face':>6s} | against reference"
)


def line(row: Row, against: str) -> str:
    """One row of the table."""
    return (
        f"{row.name:34s} {row.identified:10.1%} {row.ssim:6.3f} |         {row.prepare_passes:8d} "
        f"{row.face_passes:7.1f} {row.passes_at(40):7.1f} {row.passes_at(2000):8.1f} |          "
        f"{row.prepare_seconds:7.1f} {row.face_seconds:6.2f} | {against}"
    )


def compared(row: Row, best: Row, people: Tensor, rng: Rng) -> tuple[float, float, float]:
    """The difference in identification to the reference, low and high."""
    a, b = torch.tensor(row.hits), torch.tensor(best.hits)
    told = paired_rate_difference(a, b, people, rng.torch())
    return told.value, told.low, told.high


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="16 faces, no long budget")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--faces", type=int, help="how many are attacked (40; 16 with --quick)")
    parser.add_argument("--seed", type=int, default=0, help="of the attacks' randomness")
    parser.add_argument("--attacks", default="blackbox-decoder", help="further ones, by commas")
    parser.add_argument("--budgets", help="of whitebox-latent: lean,default,long")
    add_subject(parser)
    return parser.parse_args()


def target_of(told: argparse.Namespace, faces: int) -> Target:
    """The demo's people behind its encoder, or those of the user's folders behind his."""
    layer = told.layer or "layer1"
    if told.encoder is None:
        known = {"layer1": (), "1": (), "layer2": ("layer2",), "2": ("layer2",)}
        if layer not in known:
            sys.exit(f"The demo has layer1 and layer2, not {layer}; others by --encoder")
        behind = known[layer]
        return Target.of(demo_subject(told.people_seed, attacked=faces), *behind)
    return Target.of(subject_of(told, faces))


def attempts(told: argparse.Namespace) -> list[tuple[str, Callable[[], Attack]]]:
    """The rows that are ours, by name."""
    quick = {"blackbox-decoder": {"training.steps": 300}} if told.quick else {}
    budgets = told.budgets or ("lean,default" if told.quick else "lean,default,long")
    rows: list[tuple[str, Callable[[], Attack]]] = [
        (f"whitebox-latent, {size}", lambda size=size: ATTACKS.make(NAME, BUDGETS[size]))  # type: ignore[misc]
        for size in budgets.split(",")
    ]
    for name in filter(None, told.attacks.split(",")):
        rows.append((name, lambda name=name: ATTACKS.make(name, quick.get(name, {}))))  # type: ignore[misc]
    return rows


NAME = "whitebox-latent"


def main() -> None:
    """Runs all rows and says them as they come; the reference first."""
    told, say = arguments(), sys.stdout.write
    faces, rng = told.faces or (16 if told.quick else 40), Rng(told.seed, ("benchmark",))
    target = target_of(told, faces)
    people, faces = target.subject.faces.people, len(target.subject.faces)
    real = target.subject.oracle.name_faces(target.subject.faces.images) == people
    whose = f"people {told.people_seed}" if told.encoder is None else str(told.images)
    say(f"{faces} faces, {whose}, {told.layer or 'layer1'}; ")
    say(f"the originals themselves: {float(real.float().mean()):.1%}\n{HEAD}\n")
    references = reference(target, rng.derive("reference"))
    rows, figures = list(references), []
    for row in references:
        say(line(row, "the best" if row is references[0] else "") + "\n")
    for name, make in attempts(told):
        made = ours(target, name, make(), rng.derive(name))
        if made is None:
            say(f"{name:34s} no picture, or an informed adversary: not comparable here\n")
            continue
        value, low, high = compared(made, references[0], people, rng)
        say(line(made, f"{value:+.1%} ({low:+.1%} to {high:+.1%})") + "\n")
        sys.stdout.flush()
        rows.append(made)
    for row in rows:
        value, low, high = compared(row, references[0], people, rng)
        costs = {"passes_at_40": row.passes_at(40), "passes_at_2000": row.passes_at(2000)}
        gain = {"against_reference": value, "low": low, "high": high}
        figures.append({**asdict(row), "identified": row.identified, **costs, **gain})
    if told.json:
        about = {key: str(value) for key, value in vars(told).items() if key != "json"}
        text = json.dumps({"about": {**about, "faces": faces}, "rows": figures}, indent=2)
        told.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
