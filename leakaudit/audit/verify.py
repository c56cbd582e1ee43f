"""Attack what was written: a sample of the stored bytes, read back, under static attacks."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from leakaudit.attacks import ATTACKS
from leakaudit.audit.edge import UNMOVED, Edge
from leakaudit.audit.export import row_name
from leakaudit.audit.gates import conclude, judge
from leakaudit.audit.oracles import JudgeInput, asked_judges, make_judges
from leakaudit.audit.out_folder import read_manifest
from leakaudit.audit.own import budget_of
from leakaudit.audit.plan import NamedDefence, load_preset, make_plan
from leakaudit.audit.recipe import Kit
from leakaudit.audit.run import Findings, Progress, run
from leakaudit.audit.shards import read_shard
from leakaudit.audit.sources import FolderSource, Source
from leakaudit.audit.store import RunStore
from leakaudit.core.counted import counted
from leakaudit.core.errors import InputError, RunError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import WhiteBox
from leakaudit.core.types import GateResult, Score, Verdict
from leakaudit.defences.base import Defence, Deployed, Released, Workshop
from leakaudit.metrics.base import Evidence
from leakaudit.metrics.likeness import Ssim
from leakaudit.models.faces import load_people
from leakaudit.models.oracle import OracleTraining
from leakaudit.models.pictures import Crop
from leakaudit.models.subject import Subject

STATIC = ("blackbox-decoder", "blackbox-ridge", "whitebox-latent")
LABELS = ["none", "written"]
FEWEST_PEOPLE = 5
"""Under so many people an identification rate says nothing."""

FACES = 2000
"""Pictures on which the verifying adversary learns: public ones, then faces of the prior."""

CANT_TELL = (
    "Static attacks only: an adversary who learns the defence may do better; `leakaudit scan` with "
    "the same defence runs those.",
    "A sample of faces, and one key: nothing here speaks of the others, or of a key that leaks.",
)


@final
@dataclass(frozen=True)
class Verification:
    """What the stored features of ``faces`` gave away, as sentences, and what that can't tell.

    ``identification`` are the rows (defence, attack) that name people, empty where nobody knows
    who is on the pictures. ``gates`` are held against the rows of ``written``, and ``verdict`` is
    theirs.
    """

    faces: int
    lines: tuple[str, ...]
    identification: tuple[Score, ...] = ()
    cant_tell: tuple[str, ...] = CANT_TELL
    gates: tuple[GateResult, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The conclusion of the gates, as a scan's."""
        return conclude(self.gates, self.identification)


def verify(
    kit: Kit, source: Source, out: Path, count: int, *, subject: Subject | None = None,
    crop: Crop | None = None, preset: str = "quick", progress: Progress = lambda what, share: None,
    gates: tuple[str, ...] = (),
) -> Verification:  # fmt: skip
    """Attacks the stored features of ``count`` faces, read back from the folder ``out``.

    People are those of ``subject`` (the demo's), or the folders of a `FolderSource` where they have
    pictures enough to enrol; without people likeness is measured only. Raises RunError where a
    stored feature isn't finite or is the undefended one, InputError where nothing is stored.
    """
    stored = _Stored.read(kit, source, out)
    budget = budget_of(load_preset(preset)[1].get("training", {}))
    known = subject or _people(kit, source, stored, count, crop, budget.oracle, progress)
    if known is not None:
        known = replace(known, faces=_stored_faces(known, stored, count))
        images = known.faces.images
    else:
        images = stored.sample(count)
    lines = [*_checked(kit.edge, images, stored.features_of(images), stored.origin)]
    if known is None:
        why = (
            f"So few pictures name nobody (--verify {FEWEST_PEOPLE} or more may)"
            if count < FEWEST_PEOPLE
            else "Nobody knows who is on the pictures (no folder a person with pictures enough)"
        )
        lines += [f"{why}, so no identification: likeness of white-box reconstructions only"]
        lines += _likeness(kit, images, stored.features_of(images), preset, progress)
        return Verification(len(images), tuple(lines), gates=judge(gates, (), (), (), LABELS))
    told, found = _attacked(kit, known, stored, preset, progress)
    judged = judge(gates, found.scores, (), found.doubts, LABELS)
    return Verification(len(images), (*lines, *told), _shown(found.scores), gates=judged)


@final
class _Stored:
    """Rows of the shards that are finished, by the pictures they were made of."""

    def __init__(
        self, kit: Kit, source: Source, rows: Mapping[str, Tensor], *, keep: bool, origin: str
    ) -> None:
        self._source, self._rows, self.origin = source, rows, origin
        shown = {name: row_name(kit, name, keep=keep) for name in source.names}
        self._row_of = {name: row for name, row in shown.items() if row in rows}
        self.names = list(self._row_of)
        self._by_picture: dict[bytes, Tensor] = {}

    @staticmethod
    def read(kit: Kit, source: Source, out: Path) -> _Stored:
        manifest = read_manifest(out)
        made_with, rows = manifest["made_with"], dict[str, Tensor]()
        for shard in manifest["shards"]:
            data = (out / shard["file"]).read_bytes() if (out / shard["file"]).is_file() else b""
            if hashlib.sha256(data).hexdigest() != shard["sha256"]:
                raise InputError(
                    "A shard isn't what the manifest says", where=shard["file"],
                    todo="Run the same command again without --verify: it is made again",
                )  # fmt: skip
            features, names = read_shard(made_with["format"], out / shard["file"])
            rows |= dict(zip(names, features, strict=True))
        if not all(bool(feature.isfinite().all()) for feature in rows.values()):
            raise RunError(
                "Stored features hold NaN or infinite numbers", todo="Don't release them"
            )
        if not rows:
            raise InputError("There are no stored features to attack", where=str(out))
        keep, origin = made_with["names"] == "kept", counted(len(manifest["shards"]), "shard")
        return _Stored(kit, source, rows, keep=keep, origin=origin)

    def picture(self, name: str) -> Tensor:
        """A picture (3, H, W), whose stored feature is remembered by its pixels."""
        image = self._source.read(name)
        self._by_picture[_bytes(image)] = self._rows[self._row_of[name]]
        return image

    def sample(self, count: int) -> Tensor:
        """So many of the stored pictures (N, 3, H, W), drawn at random."""
        order = Rng(0, ("verify",)).numpy().permutation(len(self.names))[:count]
        return torch.stack([self.picture(self.names[int(k)]) for k in sorted(order)])

    def feature(self, image: Tensor) -> Tensor | None:
        """The stored feature of a picture that was looked at."""
        return self._by_picture.get(_bytes(image))

    def features_of(self, images: Tensor) -> Tensor:
        """Stored features (N, ...) of pictures that were looked at."""
        found = [self.feature(image) for image in images]
        return torch.stack([feature for feature in found if feature is not None])


def _bytes(image: Tensor) -> bytes:
    return hashlib.sha256(image.detach().cpu().contiguous().numpy().tobytes()).digest()


def _stored_faces(subject: Subject, stored: _Stored, count: int) -> Any:
    """At most ``count`` of the subject's faces, of which a feature is stored."""
    for name in stored.names if not subject.faces.files else subject.faces.files:
        if name in stored.names:
            stored.picture(name)
    rows = [k for k, image in enumerate(subject.faces.images) if stored.feature(image) is not None]
    if len(rows) < FEWEST_PEOPLE:
        raise InputError(
            f"Only {len(rows)} faces with a known person are stored; {FEWEST_PEOPLE} are needed"
        )
    drawn = Rng(0, ("verify", "faces")).numpy().permutation(len(rows))[:count]
    return subject.faces.select(sorted(rows[int(k)] for k in drawn))


def _checked(edge: Edge, images: Tensor, features: Tensor, origin: str) -> list[str]:
    """Whether what is stored is something else than the undefended feature."""
    clean = edge.clean(images)
    moved = (features - clean).flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1).clamp(1e-12)
    if float(moved.min()) <= UNMOVED:
        raise RunError(
            f"{int((moved <= UNMOVED).sum())} stored features are undefended ones",
            todo="Don't release them",
        )
    return [
        f"{len(images)} stored features, read back from {origin}: all finite; each differs from "
        f"its undefended one by {float(moved.min()):.1%} of its norm or more "
        f"({float(moved.mean()):.1%} on average)"
    ]


def _likeness(
    kit: Kit, images: Tensor, features: Tensor, preset: str, progress: Progress
) -> list[str]:
    """SSIM of white-box reconstructions: undefended, stored, and of somebody else's feature."""
    edge = kit.edge
    if edge.prior is None or not getattr(edge.encoder, "differentiable", True):
        return ["No reconstruction was tried: that needs a prior and the encoder's gradients"]
    progress("verifying: whitebox-latent", 0.3)
    attack = ATTACKS.make(
        "whitebox-latent", load_preset(preset)[1].get("attacks", {}).get("whitebox-latent", {})
    )
    held = WhiteBox(edge.public, edge.encoder, edge.prior)
    rng = Rng(0, ("verify", "latent"))
    ready = attack.prepare(held, rng.derive("prepare"))
    both = torch.cat([edge.clean(images), features]).to(edge.device)
    made = ready.reconstruct(both, rng.derive("go")).images
    assert made is not None
    made = made.cpu()
    bare, guarded = made[: len(images)], made[len(images) :]

    def ssim(guess: Tensor) -> float:
        people = torch.arange(len(images))
        score = Ssim()(Evidence("", "", "", images, guess, people, rng))
        return float("nan") if score.value is None else score.value

    lines = [
        f"SSIM of whitebox-latent: undefended {ssim(bare):.3f}, stored {ssim(guarded):.3f}",
    ]
    if len(images) > 1:
        other = ssim(guarded.roll(1, 0))
        lines.append(f"SSIM of somebody else's reconstruction, the floor: {other:.3f}")
    return lines


def _people(
    kit: Kit, source: Source, stored: _Stored, count: int, crop: Crop | None,
    training: OracleTraining, progress: Progress,
) -> Subject | None:  # fmt: skip
    """Who is on the stored pictures, a judge trained on the others; ``None`` where that fails."""
    if not isinstance(source, FolderSource):
        return None
    edge, rng = kit.edge, Rng(0, ("verify",))
    size = int(edge.public.shape[-1])
    try:
        people, _ = load_people(
            source.folder, size=size, crop=crop, align=source.align,
            limit_people=max(200, 2 * count), limit_per_person=20,
        )  # fmt: skip
        names = set(stored.names)
        enrolled, attacked, _ = people.split_enrolment(
            rng.derive("split"), 1, enrolment_per_person=2
        )
    except InputError:
        return None
    rows = [k for k, file in enumerate(attacked.files) if file in names]
    attacked = attacked.select(rows[:count])
    if len(attacked) < FEWEST_PEOPLE:
        return None
    judge, *_ = make_judges(
        asked_judges((), ()), JudgeInput(), encoder=edge.encoder, enrolled=enrolled, size=size,
        training=training, rng=rng, trained=[],
        say=lambda what: progress(f"verifying: {what}", 0.0), device=edge.device,
    ).oracles  # fmt: skip
    return Subject(
        encoder=edge.encoder, faces=attacked, public=_crowd(edge), oracle=judge, prior=edge.prior,
        head=None,
    ).on(edge.device)  # fmt: skip


def _crowd(edge: Edge) -> Tensor:
    """Public pictures for the adversary to learn on."""
    given = edge.public if edge.has_public else edge.public[:0]
    if edge.prior is None or len(given) >= FACES:
        return given
    made = edge.prior.sample(FACES - len(given), Rng(0, ("verify", "crowd")))
    return torch.cat([given, made.to(given)])


def _attacked(
    kit: Kit, subject: Subject, stored: _Stored, preset: str, progress: Progress
) -> tuple[list[str], Findings]:
    """The audit itself, on undefended and on stored features."""
    plan = make_plan(
        preset=preset, defences=[], attacks=list(STATIC), seed=0,
        has_prior=subject.prior is not None, has_head=False,
        has_gradients=getattr(subject.encoder, "differentiable", True),
    )  # fmt: skip
    written = NamedDefence("written", written_defence(stored.feature, kit.edge))
    plan = replace(plan, defences=(*plan.defences[:1], written))
    with tempfile.TemporaryDirectory(prefix="leakaudit-verify-") as folder:
        store = RunStore(Path(folder), resume=False)
        found = run(
            subject, plan, store, (), lambda what, share: progress(f"verifying: {what}", share)
        )
    rows = [s for s in found.scores if s.metric == "identification" and s.value is not None]
    floor = next(
        (s.floor for s in rows if s.attack == "worst-static" and s.defence == "written"), 0
    )
    lines = [
        f"Named by static attacks, at worst: {_share(rows, 'none')} of undefended and "
        f"{_share(rows, 'written')} of stored features; a blind guess {floor or 0:.1%}; "
        f"{subject.oracle.gallery_size} people known"
    ]
    bare = _worst(rows, "none")
    if bare is None or bare.low is None or bare.low <= (floor or 0):
        lines.append(
            "These attacks don't surely name more than a blind guess of undefended features "
            "either, so this tells nothing of the stored ones: verify more, or scan"
        )
    lines += [
        f"In serious doubt ({doubt.id}): {doubt.why.rstrip('.')}"
        for doubt in found.doubts
        if doubt.severity == "serious" and doubt.id not in _TOLD
    ]
    return lines, found


def _shown(scores: Sequence[Score]) -> tuple[Score, ...]:
    """The rows that the terminal tells."""
    rows = (s for s in scores if s.metric == "identification" and s.value is not None)
    names = (*STATIC, "worst-static")
    return tuple(s for s in rows if s.attack in names or _is_control(s.attack))


_TOLD = ("static-only", "no-power")  # it attacks by static attacks, and tells of their power above


def _is_control(attack: str) -> bool:
    return attack.startswith("control-")


def _worst(rows: list[Score], defence: str) -> Score | None:
    found = (s for s in rows if (s.defence, s.attack) == (defence, "worst-static"))
    return next(found, None)


def _share(rows: list[Score], defence: str) -> str:
    score = _worst(rows, defence)
    if score is None or score.value is None:
        return "nobody knows how many"
    return f"{score.value:.0%} ({score.low or 0:.0%} to {score.high or 0:.0%})"


def written_defence(look_up: Callable[[Tensor], Tensor | None], edge: Edge) -> Defence:
    """A defence whose releases are the stored bytes; other pictures go through the deployment."""

    @final
    class Written(Deployed):
        def __init__(self) -> None:
            self.encoder, self.replays = edge.encoder, True

        def release(self, images: Tensor, rng: Rng) -> Released:
            """Stored features where there are some, else what the deployment releases now."""
            found = [look_up(image) for image in images]
            missing = [row for row, feature in enumerate(found) if feature is None]
            if missing:
                fresh = edge.protect(images[missing])
                # A public picture that the defence can't protect is no secret of anybody's.
                bare = edge.clean(images[missing])
                for k, row in enumerate(missing):
                    found[row] = bare[k] if k in fresh.faults else fresh.features[k]
            every = torch.stack([feature for feature in found if feature is not None])
            return Released(every.to(images.device))

    @final
    @dataclass(frozen=True)
    class WrittenDefence(Defence):
        """What lies on the disk. Source: the export itself."""

        name: ClassVar[str] = "written"
        source: ClassVar[str] = "the files of an export"

        def deploy(self, workshop: Workshop, rng: Rng) -> Deployed:
            """Nothing is deployed again."""
            return Written()

    return WrittenDefence()
