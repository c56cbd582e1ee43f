"""A user's own subject: encoder and folders in; judge, prior and probe trained where missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from leakaudit.core.errors import UnknownNameError, UsageError, WeightsError
from leakaudit.core.registry import configure
from leakaudit.core.rng import Rng
from leakaudit.core.types import Doubt
from leakaudit.models.encoder import SplitEncoder, Wishes, check_features, load_encoder
from leakaudit.models.faces import Faces, load_people, load_public
from leakaudit.models.modules import load_module
from leakaudit.models.oracle import EmbeddingNet, IdentityOracle, OracleTraining, train_embedding
from leakaudit.models.preprocessing import Channels
from leakaudit.models.prior import Prior, PriorShape, PriorTraining, shape_metadata, train_prior
from leakaudit.models.subject import Known, Subject
from leakaudit.models.utility import HeadTraining, train_attributes
from leakaudit.models.weights import load_into, load_state, save_safetensors, sha256_of

Say = Callable[[str], None]

PUBLIC_LIMIT = 4000
FEW_PUBLIC = 500


@dataclass(frozen=True)
class Sources:
    """What a user's own subject is read and made from.

    ``images`` are private faces, ``public`` those of other people; ``pictures_limit`` pictures a
    person are attacked, the others enrolled, and at most ``people_limit`` people are attacked.
    ``trust`` allows an encoder file that can run code when it is opened. ``folder`` is the run's,
    which keeps a prior that is trained; with ``resume`` it is taken from there.
    """

    encoder: str
    layer: str
    images: Path
    public: Path
    folder: Path
    weights: Path | None = None
    trust: bool = False
    labels: Path | None = None
    attributes: Path | None = None
    prior: Path | None = None
    oracle: str | None = None
    oracle_weights: Path | None = None
    size: int = 64
    crop: str | None = None
    mean: str | None = None
    std: str | None = None
    channels: str | None = None
    people_limit: int | None = None
    pictures_limit: int = 1
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        if self.size & (self.size - 1):
            raise UsageError(f"--input-size must be a power of two, not {self.size}")

    @property
    def wishes(self) -> Wishes:
        """How the encoder wants its pictures, as far as it was said."""
        return Wishes(
            self.size,
            mean=three(self.mean, "--mean"),
            std=three(self.std, "--std"),
            channels=order_of(self.channels),
        )


def own_subject(sources: Sources, *, training: Mapping[str, Any], say: Say, note: Say) -> Subject:
    """The subject of a scan of the user's own encoder; what was trained is said by ``note``.

    ``training`` is the preset's table: ``public`` (how many public pictures), ``prior``, ``oracle``
    and ``probe`` (their settings). Raises UsageError, InputError or WeightsError for what can't be
    used.
    """
    _refuse_same_folder(sources.images, sources.public)
    rng = Rng(sources.seed, ("own",))
    budget: Budget = configure(Budget, training, where="preset, [training]")
    split = load_encoder(
        sources.encoder, weights=sources.weights, layer=sources.layer,
        preprocessing=sources.wishes, trust=sources.trust,
    )  # fmt: skip
    say("reading pictures")
    box, size = crop_of(sources.crop), sources.size
    people, told = load_people(
        sources.images, size=size, attributes=sources.attributes, labels=sources.labels, crop=box
    )
    note(f"Private faces: {told.summary()}")
    crowd, told = load_public(sources.public, size=size, limit=budget.public, rng=rng)
    note(f"Public faces: {told.summary()}")
    behaviour = check_features(split, people.images[:8])
    remarks = (*split.notes, *behaviour)
    for remark in remarks:
        note(f"Encoder: {remark}")
    enrolled, attacked, too_few = people.split_enrolment(
        rng.derive("split"), sources.pictures_limit, attacked_people=sources.people_limit
    )
    if too_few:
        note(f"{len(too_few)} people have too few pictures: they are enrolled and not attacked")
    trained: list[str] = []
    judge = _oracle(
        sources.oracle, sources.oracle_weights, split, enrolled, size, budget.oracle, rng,
        trained, say,
    )  # fmt: skip
    kept, given = sources.folder / "prior.safetensors", sources.prior
    given = kept if given is None and sources.resume and kept.is_file() else given
    made = _prior(given, kept, crowd, size, budget.prior, rng, trained, say)
    probe = _probe(split, enrolled, attacked, budget.probe, rng, trained, say)
    for remark in trained:
        note(f"Trained: {remark}")
    doubts = [_encoder_doubt(remark) for remark in behaviour if _is_grave(remark)]
    if len(crowd) < FEW_PUBLIC:
        doubts.append(
            Doubt(
                "few-public",
                "note",
                f"fewer than {FEW_PUBLIC} public pictures",
                f"Only {len(crowd)} public pictures: attacks and prior are weaker than they could "
                "be.",
                f"Give at least {FEW_PUBLIC} public pictures.",
            )
        )
    return Subject(
        encoder=split,
        faces=attacked,
        public=crowd,
        oracle=judge,
        prior=made,
        head=probe,
        head_name="a linear probe on pooled features" if probe is not None else "none",
        about={
            "encoder": split.name,
            "weights_sha256": split.weights_sha256,
            "encoder_notes": list(remarks),
            "layer": split.layer,
            "feature_shape": list(split.feature_shape),
            "images": len(attacked),
            "people": attacked.n_people,
            "gallery": judge.gallery_size,
            "public_images": len(crowd),
            "prior_sha256": sha256_of(kept if given is None else given),
            "oracle": judge.name,
        },
        trained=(*trained, "The attacks' decoder was trained in this run on the public pictures."),
        doubts=tuple(doubts),
        known=Known(enrolled.images, enrolled.people),
    )


def _refuse_same_folder(images: Path, public: Path) -> None:
    """The adversary's public people must be others: one folder inside the other can't be."""
    a, b = images.resolve(), public.resolve()
    if a == b or a in b.parents or b in a.parents:
        raise UsageError(
            "--images and --public overlap: the adversary would be trained on the attacked people",
            todo="Give two separate folders",
        )


def _is_grave(remark: str) -> bool:
    """Whether a remark on the features says random or batch-dependent, rather than constant."""
    return "random" in remark or "batch" in remark


def _encoder_doubt(remark: str) -> Doubt:
    """An encoder that is random, or mixes the faces of a batch, isn't the one that was deployed."""
    return Doubt(
        "encoder-not-as-deployed",
        "serious",
        "the encoder has random weights or its features depend on the batch",
        remark if remark.endswith(".") else remark + ".",
        "Give the weights that are deployed, in evaluation mode.",
    )


@dataclass(frozen=True)
class Budget:
    """What a preset's ``[training]`` table allows: public pictures, and steps of each training."""

    public: int = PUBLIC_LIMIT
    prior: PriorTraining = field(default_factory=lambda: PriorTraining(steps=1500))
    oracle: OracleTraining = field(
        default_factory=lambda: OracleTraining(steps=1200, batch=64, mirror=True)
    )
    probe: HeadTraining = field(default_factory=lambda: HeadTraining(steps=600))


def three(text: str | None, flag: str) -> tuple[float, float, float] | None:
    """Three numbers by commas, ``None`` where nothing was said; UsageError for anything else."""
    if text is None:
        return None
    try:
        a, b, c = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError("Three numbers by commas are needed", where=f"{flag} {text}") from None
    return a, b, c


def order_of(text: str | None) -> Channels:
    """The order of channels, RGB where nothing was said; UnknownNameError for another one."""
    if text not in (None, "rgb", "bgr"):
        raise UnknownNameError("order of channels", text, ("rgb", "bgr"), where="--channels")
    return "bgr" if text == "bgr" else "rgb"


def crop_of(text: str | None) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom in pixels, ``None`` where nothing was said; else UsageError."""
    if text is None:
        return None
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            "Four whole numbers by commas are needed", where=f"--crop {text}"
        ) from None
    return left, top, right, bottom


def _oracle(
    spec: str | None, weights: Path | None, encoder: SplitEncoder, enrolled: Faces, size: int,
    training: OracleTraining, rng: Rng, trained: list[str], say: Say,
) -> IdentityOracle:  # fmt: skip
    if spec is not None:
        judge = load_module(spec, weights)
        _refuse_shared(judge, encoder)
        return IdentityOracle(
            judge, enrolled.images, enrolled.people, name=f"the user's {Path(spec).name}"
        )
    counts = torch.bincount(enrolled.people)
    known = (counts[enrolled.people] > 1).nonzero()[:, 0]
    if len(known) < 2:
        raise UsageError(
            "No judge can be trained: nobody has two pictures beside the attacked one",
            todo="Give at least three pictures of each person, or a judge with --oracle",
        )
    say(f"training the oracle, {training.steps} steps")
    faces = enrolled.select(known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive("oracle", "init").state)
        net = EmbeddingNet(size=size)
    _, dense = torch.unique(faces.people, return_inverse=True)
    train_embedding(
        faces.images, dense, net=net, training=training, rng=rng.derive("oracle"),
        report=lambda step, loss, hit: say(f"training the oracle {step}/{training.steps}"),
    )  # fmt: skip
    trained.append(
        f"the identity oracle, on {len(faces)} enrolled pictures of {faces.n_people} people "
        "(none of them attacked)"
    )
    name = "embedding trained in this run on the enrolled pictures"
    return IdentityOracle(net, enrolled.images, enrolled.people, name=name)


def _refuse_shared(judge: nn.Module, encoder: nn.Module) -> None:
    """A judge with the encoder's own weights would praise itself."""
    ours = [p for p in encoder.state_dict().values() if p.numel() >= 1000]
    for tensor in judge.state_dict().values():
        if any(tensor.shape == p.shape and torch.equal(tensor, p) for p in ours):
            raise WeightsError(
                "The oracle shares weights with the encoder under audit",
                where="--oracle",
                todo="Give a judge that was trained on its own",
            )


def _prior(
    given: Path | None, kept: Path, crowd: Tensor, size: int, training: PriorTraining, rng: Rng,
    trained: list[str], say: Say,
) -> Prior:  # fmt: skip
    """The prior of the file ``given``, or one trained on the crowd and written to ``kept``."""
    shape = PriorShape(size=size)
    if given is not None:
        prior = Prior(shape)
        load_into(prior, load_state(given), where=given.name)
        trained.append(f"nothing for the prior: it was read from {given.name}")
        prior.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return prior.eval().requires_grad_(False)
    say(f"training the prior, {training.steps} steps")
    prior, _ = train_prior(
        crowd, shape=shape, training=training, rng=rng.derive("prior"), mirror=True,
        report=lambda log: say(f"training the prior {log.step}/{training.steps}"),
    )  # fmt: skip
    trained.append(f"the prior, on {len(crowd)} public pictures, {training.steps} steps")
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    save_safetensors(kept, prior.state_dict(), shape_metadata(shape))
    return prior


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


def _probe(
    encoder: SplitEncoder, enrolled: Faces, attacked: Faces, training: HeadTraining, rng: Rng,
    trained: list[str], say: Say,
) -> nn.Module | None:  # fmt: skip
    if enrolled.attributes is None or attacked.attributes is None:
        return None
    say("training the probe")
    with torch.no_grad():
        features = torch.cat([encoder(x) for x in enrolled.images.split(64)])
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
    return probe
