"""``prior train``: from a folder of public faces to a file, sheets to look at, and figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from leakaudit.audit.about import tool_version
from leakaudit.audit.estimate import Countdown, in_words
from leakaudit.core.errors import UsageError
from leakaudit.core.files import sweep
from leakaudit.core.rng import Rng
from leakaudit.models.alignment import aligner_of
from leakaudit.models.devices import CPU
from leakaudit.models.faces import load_crowd
from leakaudit.models.generators import Prior, PriorShape, check_side, default_shape
from leakaudit.models.landmarks import kept_landmarks
from leakaudit.models.pictures import Crop
from leakaudit.models.prior import Encode, PriorLog, PriorTraining
from leakaudit.models.prior_files import read_facts, save_prior
from leakaudit.models.prior_quality import Quality, best_reconstructions, hold_out, measure
from leakaudit.models.prior_sessions import PriorTask, seconds_ahead, train_resumably
from leakaudit.models.sheets import in_rows, sheet

ACROSS, SAMPLES, REBUILT = 12, 48, 36
Note = Callable[[str], None]
Progress = Callable[[str, float | None], None]


@dataclass(frozen=True)
class PriorRequest:
    """What is to be trained: pictures, sizes, steps and seed; ``None`` is the architecture's own.

    ``out`` is a .safetensors file; the checkpoint and the sheets lie beside it. At most ``limit``
    pictures are read, cut to ``crop`` or aligned as in a scan. ``every`` are the seconds between
    checkpoints. ``device`` is where it is trained; the file's tensors are the CPU's.
    """

    public: Path
    out: Path
    size: int = 64
    latent: int | None = None
    width: int | None = None
    architecture: str = "shuffle"
    training: PriorTraining = field(default_factory=PriorTraining)
    seed: int = 0
    crop: Crop | None = None
    align: str | None = None
    limit: int = 20000
    resume: bool = False
    every: float = 60.0
    device: torch.device = CPU

    def __post_init__(self) -> None:
        check_side(self.size, where="--size")
        if self.out.suffix != ".safetensors":
            raise UsageError(
                f"A prior is a .safetensors file, not '{self.out.name}'",
                where="--out",
                todo=f"Say --out {self.out.stem or 'prior'}.safetensors",
            )
        if self.checkpoint.is_file() and not self.resume:
            raise UsageError(
                "An interrupted training of this prior is kept",
                where=str(self.checkpoint),
                todo="Go on with it by --resume, or remove it",
            )

    @property
    def shape(self) -> PriorShape:
        """The sizes that were asked for, over the architecture's own."""
        usual = default_shape(self.architecture)
        return replace(
            usual,
            size=self.size,
            latent=usual.latent if self.latent is None else self.latent,
            width=usual.width if self.width is None else self.width,
        )

    @property
    def checkpoint(self) -> Path:
        """Where a half-finished training is kept."""
        return self.out.with_suffix(".checkpoint.safetensors")

    def sheet(self, of: str) -> Path:
        """The picture beside the file."""
        return self.out.with_name(f"{self.out.stem}-{of}.png")


@dataclass(frozen=True)
class PriorMade:
    """The file, its sheets, the figures, and whether it had been finished before."""

    out: Path
    sheets: tuple[Path, ...]
    quality: Quality
    before: bool = False


def train_to_file(request: PriorRequest, *, note: Note, progress: Progress) -> PriorMade:
    """The trained prior on disk, measured on public faces that it never saw.

    Raises UsageError and InputError for what can't be used, RunError where the disk is full or the
    loss stops being finite.
    """
    rng, shape = Rng(request.seed, ("prior train",)), request.shape
    progress("reading pictures", None)
    crowd, told = load_crowd(
        request.public, size=request.size, limit=request.limit, rng=rng, crop=request.crop,
        align=aligner_of(request.align, remember=kept_landmarks),
        tell=lambda done, count: progress(f"reading pictures {done}/{count}", None),
    )  # fmt: skip
    images = crowd.images
    note(f"Public faces: {told.summary()}")
    fit, held_out = hold_out(images, rng.derive("held out"))
    where = request.device
    task = PriorTask(_as_bytes(fit).to(where), shape, request.training, rng.derive("prior"))
    sweep(request.out.parent, named=request.out.stem)
    sheets = (request.sheet("samples"), request.sheet("held-out"))
    facts = read_facts(request.out) if request.resume else {}
    if facts.get("key") == task.key and "quality" in facts and not request.checkpoint.is_file():
        return PriorMade(request.out, sheets, Quality(**json.loads(facts["quality"])), before=True)
    if request.out.is_file():
        note(f"The prior in {request.out} will be replaced")
    prior, encode = _trained(task, request, note, progress)
    progress("measuring on held-out faces", None)
    few = held_out[:REBUILT].to(where)
    rebuilt = best_reconstructions(prior, few, encode(few)).cpu()
    prior.cpu()
    quality = measure(prior.sample, rebuilt, fit, held_out, rng.derive("quality"))
    _draw_sheets(sheets, prior, held_out[:REBUILT], rebuilt, rng)
    facts = {
        **task.facts(),
        "quality": json.dumps(asdict(quality), sort_keys=True),
        "held_out": str(len(held_out)),
        "align": request.align or "none",
        "crop": "none" if request.crop is None else ",".join(map(str, request.crop)),
        "tool": f"leakaudit {tool_version()}",
    }
    save_prior(request.out, prior, facts)
    request.checkpoint.unlink(missing_ok=True)
    return PriorMade(request.out, sheets, quality)


def _trained(
    task: PriorTask, request: PriorRequest, note: Note, progress: Progress
) -> tuple[Prior, Encode]:
    steps = task.training.steps
    note(
        f"Training a {task.shape.architecture} prior of {task.shape.size} pixels and "
        f"{task.shape.latent} latent numbers on {len(task.images)} faces, {steps} steps: about "
        f"{in_words(seconds_ahead(task))} on this machine"
    )
    reached, clock = "", Countdown(steps)

    def tick(done: int, log: PriorLog | None) -> None:
        nonlocal reached
        if log is not None:
            reached = f", RMSE {log.rmse:.3f}, {log.divergence:.0f} nats"
        left = clock.left(done)
        progress(f"training the prior {done}/{steps}{reached}, about {left} left", done / steps)

    return train_resumably(
        task, request.checkpoint, resume=request.resume, every=request.every, tick=tick
    )


def _draw_sheets(
    sheets: tuple[Path, ...], prior: Prior, held_out: Tensor, rebuilt: Tensor, rng: Rng
) -> None:
    """Samples; and rows of held-out faces, each above the row of their reconstructions."""
    sheet(sheets[0], in_rows(prior.sample(SAMPLES, rng.derive("sheet")), ACROSS))
    pairs = zip(in_rows(held_out, ACROSS), in_rows(rebuilt, ACROSS), strict=True)
    sheet(sheets[1], torch.stack([row for pair in pairs for row in pair]))


def _as_bytes(images: Tensor) -> Tensor:
    """A quarter of the memory; pictures come from bytes, so nothing is lost."""
    return (images * 255).round().to(torch.uint8)
