"""Our Crafter beside the paper's algorithm on demo features: what it costs, hides and keeps.

    python benchmarks/crafter.py --quick
    python benchmarks/crafter.py --faces 200 --json figures.json
    python benchmarks/crafter.py --faces 200 --paper-end FOLDER --beta 2
    python benchmarks/crafter.py --encoder torchvision:resnet18 --weights FILE --images DIR ...

The second form runs the paper's algorithm whole, at a cost that it tells; the third judges what
`paper_end.py FOLDER` kept of it, and only times the algorithm. The last takes one's own subject,
with scan's options.

How to read it. One row a defence, all on the same encoder, prior and faces. ``named`` is the share
of faces that any of four static attacks (decoder, ridge, latent search, hybrid) names right,
``eps`` the epsilon-PII of the latent one's, in thousandths of a distance a pixel; the
first line says what two samples of the prior have, and what undefended reconstructions have (with
few faces the second may lie below the first, and then ``eps`` says little). ``AUC drop`` is the
mean over the head's attributes. A pass is a face sent forward through encoder and prior; a backward
pass or a product with a Jacobian counts as two more. Deployment is spent once and stands apart.
Seconds are of this machine, as loaded as it was; rows of one run may be compared, ratios best.

The paper's algorithm is ``crafter-paper``: 450 outer steps, each of 80 inner passes, 10 critic
updates and 120 Neumann terms, for batches of 16. Where ``--paper-steps`` is below 450 (2 with
--quick) its cost is what these steps took times 450 over their number, said so, and it has no
quality but by ``--paper-end``: an unfinished release is nobody's defence. Beside it stand our rows'
paired differences to it on the same faces, with 95 % intervals over people: above 0, ours has more
faces named, or loses more AUC. The stopping criterion is each algorithm's own
number of steps; ours is also told with the step at which it came within 5 % of its last objective.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from paper_end import about, released, same_or_exit
from subjects import add_subject, subject_of
from torch import Tensor, nn

from leakaudit.attacks import ATTACKS
from leakaudit.audit.knobs import with_setting
from leakaudit.core.errors import LeakauditError
from leakaudit.core.registry import parse_spec
from leakaudit.core.rng import Rng
from leakaudit.core.specs import split_specs
from leakaudit.core.threats import Bench, ThreatModel
from leakaudit.defences import DEFENCES
from leakaudit.defences.base import Defence, Workshop
from leakaudit.defences.crafter import Crafter, CrafterAtWork
from leakaudit.defences.crafter_paper import CrafterPaper, PaperAtWork
from leakaudit.defences.crafting import POWER_STEPS
from leakaudit.maths.emd import emd
from leakaudit.maths.hypergradient import Linearised
from leakaudit.maths.intervals import bootstrap_statistic, paired_rate_difference
from leakaudit.metrics.utility import head_outputs, mean_auc
from leakaudit.models.prior import Prior, PriorShape
from leakaudit.models.subject import Subject

OURS = "crafter,crafter-residual,crafter-z"
LAYERS = ((64, 16), (128, 16), (64, 32))
SAY = sys.stdout.write


@dataclass(frozen=True)
class Row:
    """What one defence cost and reached; ``None`` where it wasn't measured."""

    name: str
    faces: int
    deploy_seconds: float
    seconds: float
    passes: float
    shares: dict[str, float]
    extrapolated: bool = False
    named: float | None = None
    epsilon: float | None = None
    auc_drop: float | None = None
    near_at: int | None = None
    ended_at: int | None = None


class Watch:
    """Seconds by part of the work; parts don't nest."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time put under ``part``."""

        def call(*args: Any, **more: Any) -> Any:
            began = time.perf_counter()
            made = work(*args, **more)
            self.spent[part] = self.spent.get(part, 0.0) + time.perf_counter() - began
            return made

        return call

    def shares(self, whole: float) -> dict[str, float]:
        """Each part's share of ``whole`` seconds; what is left is the rest."""
        parts = {part: spent / whole for part, spent in self.spent.items()}
        return {**parts, "rest": max(0.0, 1 - sum(parts.values()))}


def watched(work: Any) -> Watch:
    """A watch on the parts of our algorithms: inversion, linearising, products, stationarity."""
    watch, measures = Watch(), work.measures
    measures.invert = watch.timed("first inversion", measures.invert)
    measures.unsettled = watch.timed("stationarity", measures.unsettled)
    linearised = watch.timed("linearising", measures.linearised)

    def both(*args: Any) -> Linearised:
        at: Linearised = linearised(*args)
        push, back = watch.timed("J products", at.push), watch.timed("J' products", at.back)
        return replace(at, push=push, back=back)

    measures.linearised = both
    return watch


@dataclass(frozen=True, eq=False)
class Verdict:
    """A release judged: who is named by any attack (N,), epsilon, and what the head says (N, K).

    ``rows`` (N,) are the subject's faces that it is of.
    """

    named: Tensor
    epsilon: float
    told: Tensor
    rows: Tensor

    def of(self, rows: Tensor) -> Verdict:
        """The same of fewer faces, of one that has them all."""
        return replace(self, named=self.named[rows], told=self.told[rows], rows=rows)


class Judge:
    """Four static attacks, prepared once, and what the head and the prior say of a release."""

    def __init__(self, subject: Subject, rng: Rng, *, quick: bool) -> None:
        self.subject, self.rng = subject, rng
        few: dict[str, dict[str, Any]] = {
            "blackbox-decoder": {"training.steps": 250},
            "blackbox-ridge": {"pairs": 1000},
            "whitebox-latent": {"restarts": 1, "samples": 1000, "widening.stages": 0},
            "whitebox-hybrid": {"descent.steps": 20},  # goes on from the others, so it comes last
        }
        self.ready, self.bench = {}, Bench()
        for name, settings in few.items():
            attack = ATTACKS.make(name, settings if quick else {})
            made = partial(attack.prepare, self._held(attack.holds), rng.derive(name, "prepare"))
            self.ready[name] = self.bench.once(name, made)
        self.clean = subject.query(subject.faces.images)
        assert subject.head is not None
        self.told = head_outputs(subject.head, self.clean)
        prior, count = subject.prior, len(subject.faces)
        assert prior is not None
        self.prior = [prior.sample(count, rng.derive("prior", k)) for k in range(4)]
        self.floor = _emd(self.prior[0], self.prior[1])

    def __call__(self, released: Tensor, rows: Tensor | None = None) -> Verdict:
        """What is to be said of features (N, ...), of these ``rows`` of the subject's faces."""
        rows = torch.arange(len(released)) if rows is None else rows
        people, head = self.subject.faces.people[rows], self.subject.head
        images = {n: self._images(n, released) for n in self.ready}
        hits = [self.subject.oracle.name_faces(made) == people for made in images.values()]
        assert head is not None
        epsilon = self._distance(images["whitebox-latent"])
        return Verdict(torch.stack(hits).any(0), epsilon, head_outputs(head, released), rows)

    def figures(self, found: Verdict) -> dict[str, Any]:
        """``named``, ``epsilon`` and ``auc_drop`` of a row."""
        lost = self.drop(found, torch.arange(len(found.rows)))
        named = float(found.named.float().mean())
        return {"named": named, "epsilon": found.epsilon, "auc_drop": lost}

    def drop(self, found: Verdict, index: Tensor) -> float | None:
        """How much less AUC the head has on these of its pictures than undefended."""
        truth, at = self.subject.faces.attributes, found.rows[index]
        assert truth is not None
        before, after = (mean_auc(x, truth[at]) for x in (self.told[at], found.told[index]))
        return None if before is None or after is None else before - after

    def against(self, ours: Verdict, theirs: Verdict, rng: Rng) -> dict[str, Any]:
        """Paired differences, ours minus theirs, on the faces that theirs has."""
        ours, people = ours.of(theirs.rows), self.subject.faces.people[theirs.rows]
        named = paired_rate_difference(ours.named, theirs.named, people, rng.torch())

        def lost(index: Tensor) -> float | None:
            both = self.drop(ours, index), self.drop(theirs, index)
            return None if both[0] is None or both[1] is None else both[0] - both[1]

        drop = bootstrap_statistic(lost, people, rng.derive("drop").torch())
        return {"faces": len(people), "named": asdict(named), "auc_drop": asdict(drop)}

    def _images(self, name: str, released: Tensor) -> Tensor:
        guess = self.ready[name].reconstruct(released, self.rng.derive(name, "reconstruct"))
        self.bench.keep_guess(name, released, guess)
        assert guess.images is not None
        return guess.images

    def _distance(self, made: Tensor) -> float:
        samples = [sample[: len(made)] for sample in self.prior[2:]]
        return sum(_emd(made, sample) for sample in samples) / len(samples)

    def _held(self, kind: type[ThreatModel]) -> ThreatModel:
        encoder = self.subject.encoder
        things: dict[str, Any] = {
            "public": self.subject.public, "encoder": encoder, "query": self.subject.query,
            "prior": self.subject.prior, "head": self.subject.head, "bench": self.bench,
            "recogniser": None,
        }  # fmt: skip
        return kind(**{f.name: things[f.name] for f in fields(kind)})


def _emd(a: Tensor, b: Tensor) -> float:
    """A thousand times the distance a pixel between equally many pictures (N, 3, H, W)."""
    pixels = a.shape[-1] * a.shape[-2]
    return 1000 * float(emd(a.flatten(1).double(), b.flatten(1).double())) / pixels


def ours(subject: Subject, how: Defence, judge: Judge, rng: Rng) -> tuple[Row, Verdict]:
    """One of our defences on all faces."""
    began = time.perf_counter()
    work: Any = how.deploy(_workshop(subject), rng.derive("deploy"))
    deployed = time.perf_counter()
    watch = watched(work)
    out = work.release(subject.faces.images, rng.derive("release"))
    took, count = time.perf_counter() - deployed, len(subject.faces)
    curve = out.curve
    near = next(k for k, v in enumerate(curve) if v <= curve[-1] + 0.05 * abs(curve[-1]))
    found = judge(out.features)
    row = Row(
        how.name, count, deployed - began, took / count,
        (out.passes - work.measures.at_deployment) / count, watch.shares(took), near_at=near,
        **judge.figures(found),
    )  # fmt: skip
    return row, found


def paper(
    subject: Subject, how: CrafterPaper, steps: int, judge: Judge, rng: Rng
) -> tuple[Row, Verdict | None]:
    """The paper's algorithm: whole, or ``steps`` of one batch and the rest by proportion."""
    work = how.deploy(_workshop(subject), rng.derive("deploy"))
    assert isinstance(work, PaperAtWork)
    watch: Any = Watch()
    parts = {
        "invert": "inner descent", "train_critic": "critic", "differentiate": "Neumann",
        "descend": "Adam",
    }  # fmt: skip
    for method, part in parts.items():
        setattr(work, method, watch.timed(part, getattr(work, method)))
    whole = steps >= how.outer_steps
    if not whole:
        work.how = replace(how, outer_steps=steps)
    images = subject.faces.images if whole else subject.faces.images[: how.batch]
    began = time.perf_counter()
    out = work.release(images, rng.derive("release"))
    took, times = time.perf_counter() - began, 1.0 if whole else how.outer_steps / steps
    found = judge(out.features) if whole else None
    told = {} if found is None else judge.figures(found)
    stepped, once = sum(watch.spent.values()), 6 + 4 * POWER_STEPS  # what isn't done at each step
    seconds = (took - stepped + stepped * times) / len(images)
    passes = (out.passes / len(images) - once) * times + once
    shares = watch.shares(took)
    return Row(how.name, len(images), 0.0, seconds, passes, shares, not whole, **told), found


def _workshop(subject: Subject) -> Workshop:
    return Workshop(subject.encoder, subject.public, subject.prior)


def small_encoder(channels: int, side: int) -> nn.Module:
    """A random network of four convolutions from 64 px to (channels, side, side)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        halves = [2, 2] if side == 16 else [2, 1]
        net = nn.Sequential(
            nn.Conv2d(3, 32, 3, halves[0], 1), nn.ReLU(),
            nn.Conv2d(32, channels, 3, halves[1], 1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
        )  # fmt: skip
    return net.eval().requires_grad_(False)


def growth(subject: Subject, steps: int) -> list[dict[str, Any]]:
    """Seconds a face with ``steps`` start and outer steps, by feature size, latent and faces.

    Encoders and larger priors are random: only their size matters here. ``peak_mb`` is how far the
    process's memory rose at its highest while these faces were crafted, 8 at a time (Linux only).
    """
    how = replace(Crafter(), start_steps=steps, outer_steps=steps, samples=64, batch=8, worth=1.0)
    how = replace(how, search=replace(how.search, steps=10))
    images, rows = subject.public, []
    assert subject.prior is not None

    def run(what: str, encoder: nn.Module, prior: Prior, count: int) -> None:
        work = how.deploy(Workshop(encoder, subject.public, prior), Rng(0))
        assert isinstance(work, CrafterAtWork)
        before, began = _fresh_peak(), time.perf_counter()
        work.release(images[:count], Rng(1))
        spent = (time.perf_counter() - began) / count
        risen = None if before is None else _memory("VmHWM") - before
        rows.append({"what": what, "seconds": spent, "peak_mb": risen})

    for channels, side in LAYERS:
        net = small_encoder(channels, side)
        run(f"feature {channels}x{side}x{side}", net, subject.prior, 8)
    for latent in (96, 192, 384):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            prior = Prior(PriorShape(latent=latent)).eval().requires_grad_(False)
        run(f"latent {latent}", small_encoder(64, 16), prior, 8)
    for count in (8, 16, 32):
        run(f"{count} faces", small_encoder(64, 16), subject.prior, count)
    return rows


def _fresh_peak() -> float | None:
    """Starts the process's memory peak anew and gives what it holds now in MB; None if unknown."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _memory("VmRSS")
    except OSError:
        return None


def _memory(what: str) -> float:
    """VmRSS (now) or VmHWM (the peak) in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(float(x.split()[1]) / 1024 for x in lines if x.startswith(what + ":"))


def forward_seconds(subject: Subject) -> float:
    """What one pass of one face through prior and encoder takes, in batches of 16."""
    prior, z = subject.prior, torch.zeros(16, 1)
    assert prior is not None
    z = prior.draw(16, Rng(0))
    with torch.no_grad():
        subject.encoder(prior(z))
        began = time.perf_counter()
        for _ in range(5):
            subject.encoder(prior(z))
    return (time.perf_counter() - began) / 80


HEAD = (
    f"{'defence':18s} {'faces':>5s} {'s deploy':>8s} {'s a face':>9s} {'passes':>9s} "
    f"{'named':>6s} {'eps':>6s} {'AUC drop':>8s}  parts"
)


def line(row: Row) -> str:
    """One row of the table."""

    def shown(value: float | None, form: str, width: int) -> str:
        return f"{'-' if value is None else format(value, form):>{width}s}"

    parts = ", ".join(f"{part} {share:.0%}" for part, share in row.shares.items())
    mark = " (extrapolated)" if row.extrapolated else ""
    mark += f" (end kept at step {row.ended_at})" if row.ended_at else ""
    return (
        f"{row.name:18s} {row.faces:5d} {row.deploy_seconds:8.1f} {row.seconds:9.2f} "
        f"{row.passes:9.0f} {shown(row.named, '.0%', 6)} {shown(row.epsilon, '.3f', 6)} "
        f"{shown(row.auc_drop, '.3f', 8)}  {parts}{mark}"
    )


def told_pair(name: str, paired: dict[str, Any]) -> str:
    """A line of one row's differences to the paper's."""

    def shown(value: dict[str, float]) -> str:
        return f"{value['value']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"

    return (
        f"{name} less the paper's, {paired['faces']} faces: named {shown(paired['named'])}, "
        f"AUC drop {shown(paired['auc_drop'])}\n"
    )


def keep(path: Path, judge: Judge, found: dict[str, Verdict], told: dict[str, Any]) -> None:
    """Writes who was named and what the head said, by row, of the faces that the paper's has.

    ``told`` says whose they are.
    """
    at = min((verdict.rows for verdict in found.values()), key=len)
    faces = judge.subject.faces
    assert faces.attributes is not None
    same = {n: v if len(v.rows) == len(at) else v.of(at) for n, v in found.items()}
    things = {
        "about": told, "people": faces.people[at], "names": faces.names,
        "truth": faces.attributes[at], "undefended": judge.told[at],
        "rows": {name: (verdict.named, verdict.told) for name, verdict in same.items()},
    }  # fmt: skip
    torch.save(things, path)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="16 faces, 2 steps of the paper's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep what pooled.py reads there")
    parser.add_argument("--faces", type=int, help="how many (200; 16 with --quick)")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness but the people")
    parser.add_argument(
        "--defences",
        default=OURS,
        help=f"ours, with settings as scan takes them, by commas ({OURS})",
    )
    parser.add_argument("--beta", help="of ours, several by commas (each one's own default)")
    parser.add_argument("--paper-end", type=Path, metavar="FOLDER", help="what paper_end.py kept")
    parser.add_argument(
        "--paper-end-step", type=int, default=450, metavar="K", help="after K outer steps (450)"
    )
    parser.add_argument(
        "--paper-steps", type=int, help="outer steps (450; 2 with --quick or --paper-end)"
    )
    parser.add_argument("--paper-beta", type=float, default=1.0, help="1 / the paper's beta'")
    parser.add_argument("--inner-rate", type=float, default=5e-3, help="of the paper's descent")
    parser.add_argument("--no-growth", action="store_true", help="leave out the growth with sizes")
    add_subject(parser)
    return parser.parse_args()


def defences(told: argparse.Namespace) -> dict[str, Defence]:
    """Ours as they were asked for, each with each beta."""
    betas = [None] if told.beta is None else told.beta.split(",")
    specs = itertools.product(split_specs(told.defences), betas)
    shown = [spec if beta is None else with_setting(spec, "beta", beta) for spec, beta in specs]
    return {spec: DEFENCES.make(*parse_spec(spec, what="defence")) for spec in shown}


def main() -> None:
    """Runs all rows and says them as they come."""
    told, rng = arguments(), Rng(arguments().seed, ("benchmark",))
    faces = told.faces or (16 if told.quick else 200)
    steps = told.paper_steps or (2 if told.quick or told.paper_end else 450)
    asked = defences(told)
    if told.keep and not told.paper_end and steps < CrafterPaper().outer_steps:
        sys.exit("--keep needs the paper's end: add --paper-end, or leave out --paper-steps")
    subject = subject_of(told, faces)
    faces = len(subject.faces)
    if told.paper_end:
        same_or_exit(told.paper_end, about(subject, told))
    judge = Judge(subject, rng.derive("judge"), quick=told.quick)
    clean = judge.figures(judge(judge.clean))
    SAY(f"{faces} faces, people {told.people_seed}, {torch.get_num_threads()} threads; ")
    SAY(f"undefended: {clean['named']:.0%} named, eps {clean['epsilon']:.3f} ")
    SAY(f"(prior against prior {judge.floor:.3f})\n{HEAD}\n")
    rows, found = [], []
    for shown, defence in asked.items():
        row, verdict = ours(subject, defence, judge, rng.derive(defence.name))
        rows.append(replace(row, name=shown))
        found.append(verdict)
        row = rows[-1]
        SAY(line(row) + "\n")
        sys.stdout.flush()
    how = CrafterPaper(beta=told.paper_beta, inner_rate=told.inner_rate)
    reference, end = paper(subject, how, steps, judge, rng.derive("paper"))
    if told.paper_end:
        end = judge(*released(told.paper_end, faces, how.batch, told.paper_end_step))
        count, at = len(end.named), told.paper_end_step
        reference = replace(reference, faces=count, ended_at=at, **judge.figures(end))
    SAY(line(reference) + "\n")
    once = forward_seconds(subject)
    for row in rows:
        SAY(
            f"{row.name}: {reference.seconds / row.seconds:.0f} times fewer seconds and "
            f"{reference.passes / row.passes:.0f} times fewer passes than the paper's; its passes "
            f"alone would take {row.passes * once / row.seconds:.0%} of its time; within 5 % of "
            f"its last objective at step {row.near_at}\n"
        )
    paired = {}
    if end is not None:
        for row, verdict in zip(rows, found, strict=True):
            paired[row.name] = judge.against(verdict, end, rng.derive("paired"))
            SAY(told_pair(row.name, paired[row.name]))
    if told.keep and end is not None:
        names = (*(row.name for row in rows), reference.name)
        same = about(subject, told)
        keep(told.keep, judge, dict(zip(names, (*found, end), strict=True)), same)
    grown = [] if told.no_growth else growth(subject, 2 if told.quick else 12)
    for point in grown:
        SAY(f"{point['what']:18s} {point['seconds']:.2f} s a face, ")
        risen = point["peak_mb"]
        SAY("peak unknown\n" if risen is None else f"peak {risen:+.0f} MB\n")
    if told.json:
        options = {key: str(value) for key, value in vars(told).items() if key != "json"}
        figures = {
            "about": {**options, "faces": faces, "paper_steps": steps, "pass_seconds": once},
            "undefended": {**clean, "epsilon_floor": judge.floor},
            "rows": [asdict(row) for row in (*rows, reference)],
            "paired": paired,
            "growth": grown,
        }  # fmt: skip
        told.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except LeakauditError as error:
        sys.exit(str(error))
