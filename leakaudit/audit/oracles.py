"""The judges of a user's own scan: trained here, published, or a network of his own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from leakaudit.audit.estimate import Countdown
from leakaudit.core.errors import LeakauditError, UsageError, WeightsError
from leakaudit.core.rng import Rng
from leakaudit.models.devices import CPU
from leakaudit.models.faces import Faces
from leakaudit.models.modules import identity_of, load_module
from leakaudit.models.oracle import EmbeddingNet, IdentityOracle, OracleTraining, train_embedding
from leakaudit.models.preprocessing import Channels, Prepared, Preprocessing, Three
from leakaudit.models.programs import Program
from leakaudit.models.published import PUBLISHERS
from leakaudit.models.users_code import users_code
from leakaudit.models.weights import sha256_of_state

Say = Callable[[str], None]

TRAINED = "trained"
"""The SPEC of a judge that is trained on the enrolled pictures."""


@dataclass(frozen=True)
class JudgeInput:
    """What a user's own judge does to pictures in [0, 1]; where nothing is said, nothing."""

    size: int | None = None
    mean: Three | None = None
    std: Three | None = None
    channels: Channels | None = None

    @property
    def said(self) -> bool:
        """Whether anything is."""
        return self != JudgeInput()

    def over(self, size: int) -> Preprocessing:
        """The preprocessing of a judge whose pictures are ``size`` a side."""
        return Preprocessing(
            self.size or size,
            mean=self.mean or (0.0, 0.0, 0.0),
            std=self.std or (1.0, 1.0, 1.0),
            channels=self.channels or "rgb",
        )


@dataclass(frozen=True)
class Asked:
    """One judge as asked for: SPEC, weights file, and the name behind his metrics."""

    spec: str
    weights: Path | None
    short: str


@dataclass(frozen=True, eq=False)
class Judges:
    """The judges, the main one first; ``sha256`` are the hashes of their weights."""

    oracles: tuple[IdentityOracle, ...]
    sha256: tuple[str, ...]


def asked_judges(specs: Sequence[str], weights: Sequence[Path]) -> tuple[Asked, ...]:
    """The judges of these SPECs, ``trained`` where there are none.

    Weights go in order to those that aren't trained here; ``-`` leaves one out. Raises UsageError
    for more weights than judges and for a judge that is named twice.
    """
    taking = [spec for spec in specs if spec != TRAINED]
    if len(weights) > len(taking):
        raise UsageError(
            f"{len(weights)} weights files for {len(taking)} judges that take one",
            where="--oracle-weights",
            todo="Give them in the order of --oracle; '-' leaves a judge without",
        )
    files = iter([None if str(path) == "-" else path for path in weights])
    found: list[Asked] = []
    for spec in specs or (TRAINED,):
        own = None if spec == TRAINED else next(files, None)
        if any((other.spec, other.weights) == (spec, own) for other in found):
            raise UsageError("A judge is named twice", where=f"--oracle {spec}")
        found.append(Asked(spec, own, _free(short_of(spec), [other.short for other in found])))
    return tuple(found)


def short_of(spec: str) -> str:
    """The name behind a judge's metrics: letters, digits, ``_`` and ``-``, as gates take them."""
    kind, _, name = spec.rpartition(":")
    if kind in PUBLISHERS:
        text = f"{kind}-{name}"
    elif kind.endswith(".py"):
        text = Path(kind).stem
    else:
        text = kind.rpartition(".")[2] if kind else Path(spec).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "judge"


def _free(short: str, taken: Sequence[str]) -> str:
    count, name = 1, short
    while name in taken:
        count += 1
        name = f"{short}-{count}"
    return name


def make_judges(
    asked: Sequence[Asked], how: JudgeInput, *, encoder: nn.Module, enrolled: Faces, size: int,
    training: OracleTraining, rng: Rng, trained: list[str], say: Say,
    device: torch.device = CPU,
) -> Judges:  # fmt: skip
    """The judges that ``asked`` names, each with the people's enrolled pictures, on ``device``.

    The encoder is on the CPU. What was trained is added to ``trained``. ``how`` is for judges
    without preprocessing of their own. Raises UsageError and WeightsError for a judge that can't be
    used: one that shares weights with the encoder or with another judge, or whose answer is no
    embedding.
    """
    networks: list[nn.Module] = []
    for one in asked:
        made = None if one.spec == TRAINED else _loaded(one, how, enrolled.images, size)
        if made is not None:
            seen = enrolled.images
            _refuse_shared(made, encoder, f"the encoder under audit (--oracle {one.spec})", seen)
            for other in networks:
                _refuse_shared(made, other, f"another judge (--oracle {one.spec})", seen)
            networks.append(made)
    if how.said and not any(isinstance(network, _Owned) for network in networks):
        raise UsageError(
            "No judge takes a preprocessing: one that is trained or published brings its own",
            where="--oracle-input-size, --oracle-mean, --oracle-std, --oracle-channels",
        )
    loaded, oracles, hashes = iter(networks), [], []
    for one in asked:
        net: nn.Module
        if one.spec == TRAINED:
            net = _trained(enrolled, size, training, rng, trained, say, device)
            name = _HERE
        else:
            net, name = next(loaded).to(device), _name(one)
        known = one.spec != TRAINED
        hashes.append(identity_of(one.spec, one.weights, net) if known else sha256_of_state(net))
        say(f"enrolling people with the judge {one.short}")
        oracles.append(
            IdentityOracle(net, enrolled.images, enrolled.people, name=name, short=one.short)
        )
    return Judges(tuple(oracles), tuple(hashes))


_HERE = "embedding trained in this run on the enrolled pictures"


def _name(one: Asked) -> str:
    published = one.spec.rpartition(":")[0] in PUBLISHERS
    return one.spec if published else f"the user's {Path(one.spec).name}"


class _Owned(nn.Module):
    """A user's judge: his network, behind the preprocessing that he asked for."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing | None) -> None:
        super().__init__()
        self.network = Prepared(network, preprocessing) if preprocessing else network

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.network(images.clone())  # some networks normalise in place
        return answer


def _loaded(one: Asked, how: JudgeInput, images: Tensor, size: int) -> nn.Module:
    """The network of a judge, tried on two pictures."""
    try:
        network = load_module(one.spec, one.weights)
    except WeightsError as error:
        if one.weights is None and error.todo and "--weights FILE" in error.todo:
            todo = error.todo.replace("--weights FILE", "--oracle-weights FILE")
            raise WeightsError(
                f"No weights are given for the judge {one.spec}", where="--oracle", todo=todo
            ) from error
        raise
    if not isinstance(network, Prepared):
        network = _Owned(network, how.over(size) if how.said else None).eval()
    with torch.no_grad(), users_code(f"The judge {one.short} on pictures of {size} x {size}"):
        answer = network(images[:2])
    _check_embedding(answer, len(images[:2]), one)
    return network


def _check_embedding(answer: object, rows: int, one: Asked) -> None:
    told = f"The judge {one.short}"
    where, todo = f"--oracle {one.spec}", "Give a network with one embedding (N, d) a picture"
    if not isinstance(answer, Tensor):
        raise UsageError(f"{told} gives a {type(answer).__name__}", where=where, todo=todo)
    if answer.ndim != 2 or len(answer) != rows or not answer.is_floating_point():
        raise UsageError(
            f"{told} gives {answer.dtype} of shape {tuple(answer.shape)} for {rows} pictures",
            where=where,
            todo=todo,
        )
    if not bool(answer.isfinite().all()):
        raise UsageError(
            f"{told} gives NaN or infinite numbers", where=where, todo="Check weights, mean, std"
        )


def _refuse_shared(judge: nn.Module, other: nn.Module, whose: str, images: Tensor) -> None:
    """A judge with the encoder's own weights would praise itself; two with the same are one.

    Found are equal tensors, in whichever precision, equal programs, and equal answers to
    ``images`` (N, 3, H, W) from networks that were saved in other forms.
    """
    if _same_tensors(judge, other) or _same_program(judge, other) or _alike(judge, other, images):
        raise WeightsError(
            f"The oracle shares weights with {whose}",
            where="--oracle",
            todo="Give a judge that was trained on its own",
        )


def _same_tensors(one: nn.Module, other: nn.Module) -> bool:
    """Whether a parameter of the two is the same, but for rounding to half precision.

    Small ones say nothing, nor those that differ from a constant by rounding alone, as scales do
    that are hardly trained, nor tables of positions, which a formula gives.
    """

    def telling(network: nn.Module) -> list[tuple[Tensor, float]]:
        found = [
            p.detach().float().cpu()
            for name, p in network.named_parameters()
            if p.numel() >= 1000 and p.is_floating_point() and "pos" not in name.split(".")[-1]
        ]
        bound = [(p, _ROUNDING * float(p.abs().max())) for p in found]
        return [(p, rounding) for p, rounding in bound if float(p.std()) > rounding]

    def equal(p: Tensor, q: Tensor, rounding: float) -> bool:
        return float((p - q).abs().max()) <= rounding

    theirs = telling(other)
    return any(
        p.shape == q.shape
        and equal(p.flatten()[:64], q.flatten()[:64], rounding)  # few pairs need the whole
        and equal(p, q, rounding)
        for p, _ in telling(one)
        for q, rounding in theirs
    )


_ROUNDING = 2.0**-8
"""bfloat16 keeps eight bits."""


def _same_program(one: nn.Module, other: nn.Module) -> bool:
    def programs(network: nn.Module) -> set[str]:
        return {m.sha256 for m in network.modules() if isinstance(m, Program) and m.sha256}

    return bool(programs(one) & programs(other))


def _alike(judge: nn.Module, other: nn.Module, images: Tensor) -> bool:
    """Whether both give the same direction for every picture, about their own means."""
    few = images[:16]
    if len(few) < 4:
        return False
    try:
        with torch.no_grad():
            ours, theirs = (net(few).flatten(1).float() for net in (judge, other))
    except (LeakauditError, RuntimeError, TypeError, ValueError, AttributeError):
        return False  # what is wrong with either is told elsewhere
    if ours.shape != theirs.shape:
        return False
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    spread = min(float(ours.abs().max()), float(theirs.abs().max()))
    return spread > 0 and float(torch.cosine_similarity(ours, theirs).min()) > 0.9999


def _trained(
    enrolled: Faces, size: int, training: OracleTraining, rng: Rng, trained: list[str], say: Say,
    device: torch.device,
) -> EmbeddingNet:  # fmt: skip
    """An embedding of those who have two enrolled pictures or more."""
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
    clock = Countdown(training.steps, begun=0)

    def tick(step: int, loss: float, hit: float) -> None:
        say(f"training the oracle {step}/{training.steps}, about {clock.left(step)} left")

    train_embedding(
        faces.images.to(device), dense, net=net, training=training, rng=rng.derive("oracle"),
        report=tick,
    )  # fmt: skip
    trained.append(
        f"the identity oracle, on {len(faces)} enrolled pictures of {faces.n_people} people "
        "(none of them attacked)"
    )
    return net
