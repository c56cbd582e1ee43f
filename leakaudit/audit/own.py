"""A user's own subject: encoder and folders in; judge, prior and probe trained where missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.audit.doubts_of_faces import face_doubts, shared_note, uncut_doubts
from leakaudit.audit.heads import CLOUD, Head, check_cloud, check_head_options, given_head
from leakaudit.audit.oracles import JudgeInput, Judges, asked_judges, make_judges
from leakaudit.audit.priors import Found, given_prior, trained_prior
from leakaudit.core.errors import UnknownNameError, UsageError
from leakaudit.core.files import overlap
from leakaudit.core.registry import configure
from leakaudit.core.rng import Rng
from leakaudit.core.types import Doubt
from leakaudit.maths.chunks import in_chunks
from leakaudit.models.alignment import aligner_of
from leakaudit.models.devices import CPU
from leakaudit.models.encoder import (
    NO_FILE,
    RANDOM,
    SplitEncoder,
    Wishes,
    check_features,
    load_encoders,
)
from leakaudit.models.faces import Crowd, Faces, Split, load_crowd, load_people
from leakaudit.models.generators import check_side
from leakaudit.models.landmarks import kept_landmarks
from leakaudit.models.oracle import OracleTraining
from leakaudit.models.pairs import read_pairs, split_by_pairs
from leakaudit.models.pictures import check_folder
from leakaudit.models.preprocessing import Channels
from leakaudit.models.prior import Prior, PriorShape, PriorTraining
from leakaudit.models.prior_sessions import PriorTask
from leakaudit.models.subject import Known, Subject
from leakaudit.models.utility import HeadTraining, train_attributes
from leakaudit.models.verification import Comparisons
from leakaudit.models.weights import sha256_of

Say = Callable[[str], None]

PUBLIC_LIMIT = 4000


@dataclass(frozen=True)
class Sources:
    """What a user's own subjects, one a layer, are read and made from.

    ``images`` are private faces, ``public`` those of other people; ``pictures_limit`` pictures a
    person are attacked, the others enrolled, and at most ``people_limit`` people are attacked.
    ``trust`` allows an encoder file that can run code when it is opened. ``folder`` is the run's,
    which keeps a prior that is trained; with ``resume`` it is taken from there. ``prior`` is a file
    or a user's own ``file.py:factory``; ``cache`` keeps a trained one for later scans. ``align``
    brings all faces to one geometry; ``pairs`` (LFW's ``pairs.txt``) says which pictures are taken
    and compared; ``head`` is ``cloud`` for the network's own rest, or a SPEC. Trainings are done on
    ``device``, and the subjects are there.
    """

    encoder: str
    layers: tuple[str, ...]
    images: Path
    public: Path
    folder: Path
    weights: Path | None = None
    trust: bool = False
    labels: Path | None = None
    attributes: Path | None = None
    prior: str | None = None
    prior_weights: Path | None = None
    cache: bool = True
    oracle: tuple[str, ...] | None = None
    oracle_weights: tuple[Path, ...] | None = None
    oracle_input_size: int | None = None
    oracle_mean: str | None = None
    oracle_std: str | None = None
    oracle_channels: str | None = None
    size: int = 64
    crop: str | None = None
    public_crop: str | None = None
    mean: str | None = None
    std: str | None = None
    channels: str | None = None
    align: str | None = None
    pairs: Path | None = None
    head: str | None = None
    head_weights: Path | None = None
    people_limit: int | None = None
    pictures_limit: int = 1
    seed: int = 0
    resume: bool = False
    device: torch.device = CPU

    def __post_init__(self) -> None:
        check_side(self.size)
        if self.prior_weights is not None and self.prior is None:
            raise UsageError("--prior-weights needs --prior file.py:factory")
        refuse_crop_and_align(self.crop, self.align, public=self.public_crop)
        check_head_options(self.head, self.head_weights, self.attributes)

    @property
    def hashes(self) -> dict[str, str]:
        """Of the files that utility and verification rest on, for whoever compares two results."""
        files = {"pairs_sha256": self.pairs, "head_sha256": self.head_weights}
        return {key: sha256_of(path) for key, path in files.items() if path is not None}

    @property
    def wishes(self) -> Wishes:
        """How the encoder wants its pictures, as far as it was said."""
        return Wishes(
            self.size,
            mean=three(self.mean, "--mean"),
            std=three(self.std, "--std"),
            channels=order_of(self.channels),
        )

    @property
    def judge_input(self) -> JudgeInput:
        """How a judge of the user's own wants its pictures, as far as it was said."""
        order = self.oracle_channels
        return JudgeInput(
            self.oracle_input_size,
            mean=three(self.oracle_mean, "--oracle-mean"),
            std=three(self.oracle_std, "--oracle-std"),
            channels=None if order is None else order_of(order, "--oracle-channels"),
        )


@dataclass(frozen=True, eq=False)
class Shared:
    """What the subjects of all layers have in common: faces, public pictures, judges and prior.

    ``trained`` says what was trained on what, ``doubts`` what speaks against any of them.
    """

    attacked: Faces
    enrolled: Faces
    others: Crowd
    comparisons: Comparisons | None
    judges: Judges
    prior: Prior
    prior_sha256: str
    trained: tuple[str, ...]
    doubts: tuple[Doubt, ...]


def own_subjects(
    sources: Sources, *, training: Mapping[str, Any], say: Say, note: Say
) -> tuple[Subject, ...]:
    """The subjects of a scan of the user's own encoder, one for each layer, in the order asked for.

    Faces, public pictures, judges and prior are read or trained once for all. What was trained is
    said by ``note``. ``training`` is the preset's table: ``public`` (how many public pictures),
    ``prior``, ``oracle`` and ``probe`` (their settings). Raises UsageError, InputError or
    WeightsError for what can't be used.
    """
    _refuse_same_folder(sources.images, sources.public)
    rng = Rng(sources.seed, ("own",))
    budget = budget_of(training)
    asked = asked_judges(sources.oracle or (), sources.oracle_weights or ())
    judge_input = sources.judge_input
    splits = load_encoders(
        sources.encoder, weights=sources.weights, layers=sources.layers,
        preprocessing=sources.wishes, trust=sources.trust, whole=sources.head == CLOUD,
    )  # fmt: skip
    if sources.head == CLOUD:
        check_cloud(splits)
    say("reading pictures")
    people, others, doubts = _faces(sources, budget.public, rng, say, note)
    behaviours = [check_features(split, people.images[:8]) for split in splits]
    remarks = [(*s.notes, *b) for s, b in zip(splits, behaviours, strict=True)]
    _say_remarks({s.layer: told for s, told in zip(splits, remarks, strict=True)}, note)
    (enrolled, attacked, too_few), comparisons = _split(sources, people, rng.derive("split"), note)
    if too_few:
        note(f"{len(too_few)} people have too few pictures: they are enrolled and not attacked")
    heads = _given_heads(sources, splits, enrolled)  # refused before anything is trained
    trained: list[str] = []
    judges = make_judges(
        asked, judge_input, encoder=splits[0], enrolled=enrolled, size=sources.size,
        training=budget.oracle, rng=rng, trained=trained, say=say, device=sources.device,
    )  # fmt: skip
    made = _prior(sources, others.images, budget.prior, rng, say, note)
    trained.append(made.remark)
    for remark in trained:
        note(f"Trained: {remark}")
    shared = Shared(
        attacked, enrolled, others, comparisons, judges, made.prior, made.sha256,
        tuple(trained),
        (*doubts, *made.doubts),
    )  # fmt: skip
    for split in splits:  # the judges were held against their weights on the CPU
        split.to(sources.device)
    return tuple(
        _at_layer(
            sources, split, remarks[k], behaviours[k], shared, budget, rng, say, note,
            heads.get(split.layer),
        )
        for k, split in enumerate(splits)
    )  # fmt: skip


def _say_remarks(remarks: Mapping[str, Sequence[str]], note: Say) -> None:
    """Each remark once, with the layer where it isn't of all of them."""
    for remark in dict.fromkeys(remark for told in remarks.values() for remark in told):
        layers = [layer for layer, told in remarks.items() if remark in told]
        at = "" if len(layers) == len(remarks) else f" at {', '.join(layers)}"
        note(f"Encoder{at}: {remark}")


def _at_layer(
    sources: Sources, split: SplitEncoder, remarks: Sequence[str], behaviour: Sequence[str],
    shared: Shared, budget: Budget, rng: Rng, say: Say, note: Say, head: Head | None,
) -> Subject:  # fmt: skip
    """The subject of one layer: the shared parts with the split encoder and its head.

    ``behaviour`` are those of the remarks on the encoder that its features gave; without a ``head``
    that was asked for a probe is trained, where there are attributes.
    """
    trained: list[str] = []
    attacked, enrolled = shared.attacked, shared.enrolled
    where = sources.device
    head = head or _probe(split, enrolled, attacked, budget.probe, rng, trained, say, where)
    for remark in trained:
        note(f"Trained: {remark}")
    signs = (*behaviour, *(note for note in split.notes if note == RANDOM))
    doubts = encoder_doubts(signs, from_file=NO_FILE not in split.notes)
    judge, *further = shared.judges.oracles
    decoder = "Attacks that have a decoder train it in the run, on the public pictures."
    return Subject(
        encoder=split,
        faces=attacked,
        public=shared.others.images,
        oracle=judge,
        prior=shared.prior,
        head=head.module if head else None,
        head_name=head.name if head else "none",
        about={
            "encoder": split.name,
            "weights_sha256": split.weights_sha256,
            "encoder_notes": list(remarks),
            "layer": split.layer,
            "preprocessing": asdict(split.preprocessing),
            "input_size": int(attacked.images.shape[-1]),
            **place(split.depth, split.feature_shape),
            "images": len(attacked),
            "people": attacked.n_people,
            "gallery": judge.gallery_size,
            "public_images": len(shared.others),
            "prior_sha256": shared.prior_sha256,
            "prior": "trained here" if sources.prior is None else "given",
            "oracle": judge.name,
            "align": sources.align or "none",
            "crop": sources.crop or "none",
            "public_crop": sources.public_crop or "none",
            **sources.hashes,
            "oracle_weights_sha256": shared.judges.sha256[0],
            "judges": [
                {"name": other.short, "oracle": other.name, "weights_sha256": sha256}
                for other, sha256 in zip(further, shared.judges.sha256[1:], strict=True)
            ],
        },
        trained=(*shared.trained, *trained, decoder),
        doubts=(*doubts, *shared.doubts, *(head.doubts if head else ())),
        known=Known(enrolled.images, enrolled.people),
        public_marks=shared.others.marks,
        comparisons=shared.comparisons,
        judges=tuple(further),
    ).on(sources.device)


def place(depth: float | None, feature_shape: Sequence[int]) -> dict[str, Any]:
    """Where a network is split, for ``result.json``: depth, shape, and MB (float32) of a face."""
    return {
        "depth": None if depth is None else round(depth, 4),
        "feature_shape": list(feature_shape),
        "megabytes": 4e-6 * torch.Size(feature_shape).numel(),
    }


def _faces(
    sources: Sources, limit: int, rng: Rng, say: Say, note: Say
) -> tuple[Faces, Crowd, list[Doubt]]:
    """Private and public faces by one rule of alignment, and what speaks against them."""
    align = aligner_of(sources.align, remember=kept_landmarks if sources.cache else None)
    pairs = None if sources.pairs is None else read_pairs(sources.pairs)
    if pairs is None and (sources.images / "pairs.txt").is_file():
        note(f"There is a pairs.txt in {sources.images.name}: --pairs takes and compares its pairs")
    people, told_private = load_people(
        sources.images, size=sources.size, attributes=sources.attributes, labels=sources.labels,
        crop=crop_of(sources.crop), align=align, only=None if pairs is None else pairs.stems,
        tell=lambda done, count: say(f"reading private pictures {done}/{count}"),
    )  # fmt: skip
    note(f"Private faces: {told_private.summary()}")
    others, told = load_crowd(
        sources.public, size=sources.size, limit=limit, rng=rng, align=align,
        crop=crop_of(sources.public_crop, "--public-crop"),
        tell=lambda done, count: say(f"reading public pictures {done}/{count}"),
    )  # fmt: skip
    note(f"Public faces: {told.summary()}")
    if both := shared_note(people, others):
        note(both)
    doubts = face_doubts(people, others, told)
    if sources.crop is not None and sources.public_crop is None:
        doubts += uncut_doubts(told_private, told, sources.crop)
    return people, others, doubts


def _split(
    sources: Sources, people: Faces, rng: Rng, note: Say
) -> tuple[Split, Comparisons | None]:
    """Enrolled and attacked pictures, after the given pairs where there are any."""
    each, most = sources.pictures_limit, sources.people_limit
    if sources.pairs is None:
        return people.split_enrolment(rng, each, attacked_people=most), None
    found = split_by_pairs(people, read_pairs(sources.pairs), rng, each, attacked_people=most)
    note(f"Pairs: {found.told}")
    impostors = torch.tensor(found.impostors, dtype=torch.long).reshape(-1, 2)
    return found.split, Comparisons(torch.tensor(found.partners), impostors)


def _refuse_same_folder(images: Path, public: Path) -> None:
    """The adversary's public people must be others: one folder inside the other can't be."""
    if overlap(images, public):
        for folder in (images, public):  # one that isn't there overlaps with nothing
            check_folder(folder)
        raise UsageError(
            "--images and --public overlap: the adversary would be trained on the attacked people",
            todo="Give two separate folders",
        )


def encoder_doubts(remarks: Sequence[str], *, from_file: bool) -> list[Doubt]:
    """What speaks against an encoder's being the deployed one, of the remarks on its features.

    That it looks untrained counts only where its weights came from no file (``from_file``): a
    converter may have folded the statistics of its normalisation into the convolutions.
    """
    signs = ("random", "batch") if from_file else ("random", "batch", "new network")
    return [
        Doubt(
            "encoder-not-as-deployed",
            "serious",
            "the encoder is random, looks untrained, or its features depend on the batch",
            remark if remark.endswith((".", "?")) else f"{remark}.",
            "Give the weights that are deployed (--weights), in evaluation mode.",
        )
        for remark in remarks
        if any(sign in remark for sign in signs)
    ]


@dataclass(frozen=True)
class Budget:
    """What a preset's ``[training]`` table allows: public pictures, and steps of each training."""

    public: int = PUBLIC_LIMIT
    prior: PriorTraining = field(default_factory=lambda: PriorTraining(steps=1500))
    oracle: OracleTraining = field(
        default_factory=lambda: OracleTraining(steps=1200, batch=64, mirror=True)
    )
    probe: HeadTraining = field(default_factory=lambda: HeadTraining(steps=600))


def budget_of(training: Mapping[str, Any]) -> Budget:
    """The budget that a preset's ``[training]`` table sets; UsageError for what it doesn't know."""
    found: Budget = configure(Budget, training, where="preset, [training]")
    return found


def three(text: str | None, flag: str) -> tuple[float, float, float] | None:
    """Three numbers by commas, ``None`` where nothing was said; UsageError for anything else."""
    if text is None:
        return None
    try:
        a, b, c = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError("Three numbers by commas are needed", where=f"{flag} {text}") from None
    return a, b, c


def refuse_crop_and_align(
    crop: str | None, align: str | None, *, public: str | None = None
) -> None:
    """Raise `UsageError` where a fixed box and alignment are both asked for."""
    if align in (None, "none"):
        return
    for flag, box in (("--crop", crop), ("--public-crop", public)):
        if box is not None:
            raise UsageError(
                f"{flag} and --align both say which part of a picture is kept",
                todo=f"Leave out {flag}: an aligned face is found wherever it is",
            )


def order_of(text: str | None, flag: str = "--channels") -> Channels:
    """The order of channels, RGB where nothing was said; UnknownNameError for another one."""
    if text not in (None, "rgb", "bgr"):
        raise UnknownNameError("order of channels", text, ("rgb", "bgr"), where=flag)
    return "bgr" if text == "bgr" else "rgb"


def crop_of(text: str | None, flag: str = "--crop") -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom in pixels, ``None`` where nothing was said; else UsageError."""
    if text is None:
        return None
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            "Four whole numbers by commas are needed", where=f"{flag} {text}"
        ) from None
    return left, top, right, bottom


def _prior(
    sources: Sources, crowd: Tensor, training: PriorTraining, rng: Rng, say: Say, note: Say
) -> Found:
    """The prior that was given, or one trained on the crowd and kept in the run folder."""
    if sources.prior is not None:
        return given_prior(
            sources.prior, sources.prior_weights, size=sources.size, align=sources.align
        )
    task = PriorTask(
        crowd.to(sources.device), PriorShape(size=sources.size), training, rng.derive("prior")
    )
    return trained_prior(
        task, sources.folder / "prior.safetensors", resume=sources.resume, cache=sources.cache,
        say=say, note=note,
    )  # fmt: skip


@final
class LinearProbe(nn.Module):
    """A linear map from standardised, pooled features (N, ...) to attribute logits (N, A)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor, attributes: int) -> None:
        super().__init__()
        pooled = self.pooled(features)
        self.register_buffer("mean", pooled.mean(0))
        self.register_buffer("deviation", pooled.std(0).clamp(min=1e-6))
        self.last = nn.Linear(pooled.shape[1], attributes)
        self.to(features.device)

    @staticmethod
    def pooled(features: Tensor) -> Tensor:
        """Spatial features averaged to at most 4x4, flattened; vectors as they are."""
        if features.dim() == 4 and min(features.shape[-2:]) > 4:
            features = fn.adaptive_avg_pool2d(features, 4)
        return features.flatten(1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, A)."""
        logits: Tensor = self.last((self.pooled(features) - self.mean) / self.deviation)
        return logits


def _given_heads(
    sources: Sources, splits: Sequence[SplitEncoder], enrolled: Faces
) -> dict[str, Head]:
    """The head that was asked for, checked behind each layer; none where none was."""
    if sources.head is None or enrolled.attributes is None:
        return {}
    return {
        split.layer: given_head(sources.head, sources.head_weights, split, enrolled)
        for split in splits
    }


def _probe(
    encoder: SplitEncoder, enrolled: Faces, attacked: Faces, training: HeadTraining, rng: Rng,
    trained: list[str], say: Say, device: torch.device,
) -> Head | None:  # fmt: skip
    """A linear probe, none without attributes."""
    if enrolled.attributes is None or attacked.attributes is None:
        return None
    say("training the probe")
    with torch.no_grad():
        features = in_chunks(lambda x: encoder(x.to(device)), enrolled.images, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive("probe", "init").state)
        probe = LinearProbe(features, enrolled.attributes.shape[1])
    train_attributes(
        probe, features, enrolled.attributes, training=training, rng=rng.derive("probe")
    )
    trained.append(
        f"a linear probe for {len(enrolled.attribute_names)} attributes, "
        f"on {len(enrolled)} enrolled pictures"
    )
    return Head(probe, "a linear probe on pooled features")
