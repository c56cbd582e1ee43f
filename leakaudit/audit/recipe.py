"""How features are protected, in words that fit into a manifest and travel to another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leakaudit.audit.edge import BLOCK, Edge
from leakaudit.audit.own import crop_of, order_of, refuse_crop_and_align, three
from leakaudit.audit.plan import NamedDefence, named_defence
from leakaudit.audit.priors import Found, given_prior
from leakaudit.audit.sources import FolderSource
from leakaudit.core.errors import UsageError
from leakaudit.core.keys import key_id, read_key, seed_key
from leakaudit.core.rng import Rng
from leakaudit.core.specs import is_factory, parse_factory
from leakaudit.models.alignment import aligner_of
from leakaudit.models.devices import device_of
from leakaudit.models.encoder import SplitEncoder, Wishes, load_encoder
from leakaudit.models.faces import load_crowd
from leakaudit.models.generators import check_side
from leakaudit.models.weights import sha256_of

Say = Callable[[str], None]
PUBLIC_LIMIT = 1024
SEED_WARNING = (
    "The draws come from a seed: whoever knows it can try candidate pictures. "
    "Use --key for anything but demonstrations and tests"
)


@dataclass(frozen=True)
class Recipe:
    """What protected features are made with; paths are read when it is carried out.

    ``defence`` is a specification as in a scan; ``prior`` the file of a prior, or a user's own
    ``file.py:factory`` with ``prior_weights``; ``public`` a folder of public pictures, faces of the
    prior where there is none. Exactly one of ``key``, the file of a secret key, and ``seed`` says
    where draws come from. ``block`` is the fixed number of rows; ``device`` is ``cpu``, ``cuda`` or
    ``cuda:N``, looked for when the recipe is carried out.
    """

    encoder: str
    layer: str
    prior: Path | str | None
    defence: str = "crafter"
    weights: Path | None = None
    prior_weights: Path | None = None
    trust: bool = False
    public: Path | None = None
    key: Path | None = None
    seed: int | None = None
    size: int = 64
    crop: str | None = None
    public_crop: str | None = None
    align: str | None = None
    mean: str | None = None
    std: str | None = None
    channels: str | None = None
    block: int = BLOCK
    preset: str = "quick"
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_side(self.size)
        if (self.key is None) == (self.seed is None):
            raise UsageError(
                "Draws come from a secret key or from a seed: give one of them",
                todo="--key FILE makes a key where there is none; --seed is for tests",
            )
        if self.prior_weights is not None and self.prior is None:
            raise UsageError("--prior-weights needs --prior file.py:factory")
        crop_of(self.crop)
        crop_of(self.public_crop, "--public-crop")
        refuse_crop_and_align(self.crop, self.align, public=self.public_crop)
        if self.public_crop is not None and self.public is None:
            raise UsageError(
                "--public-crop needs --public",
                todo="Name the folder of public pictures, or leave it out",
            )

    def secret(self) -> bytes:
        """The 32 bytes that draws come from."""
        return seed_key(self.seed or 0) if self.key is None else read_key(self.key)

    def source(self, images: Path) -> FolderSource:
        """The pictures under this folder, cut as the recipe says."""
        align = aligner_of(self.align)
        return FolderSource(images, size=self.size, crop=crop_of(self.crop), align=align)

    def load(self, say: Say = lambda text: None) -> Kit:
        """The defence at work, and the facts that go into a manifest."""
        named = named_defence(self.defence, self.preset)
        secret, device = self.secret(), device_of(self.device)
        wishes = Wishes(
            self.size, mean=three(self.mean, "--mean"), std=three(self.std, "--std"),
            channels=order_of(self.channels),
        )  # fmt: skip
        say("loading the encoder")
        encoder = load_encoder(
            self.encoder, weights=self.weights, layer=self.layer, preprocessing=wishes,
            trust=self.trust,
        )  # fmt: skip
        refuse_without_gradients(encoder, named)
        found_prior = self._prior()
        prior = None if found_prior is None else found_prior.prior
        crowd = None
        if self.public is not None:
            say("reading public pictures")
            found, _ = load_crowd(
                self.public, size=self.size, limit=PUBLIC_LIMIT, rng=Rng(0, ("protect",)),
                align=aligner_of(self.align), crop=crop_of(self.public_crop, "--public-crop"),
            )  # fmt: skip
            crowd = found.images
        say("deploying the defence")
        edge = Edge(
            encoder, prior, named.defence, secret, block=self.block, public=crowd, device=device
        )
        sha256 = None if found_prior is None else found_prior.sha256
        facts = self._facts(encoder, edge, named, secret, sha256)
        weak = () if found_prior is None else tuple(d.why for d in found_prior.doubts)
        return Kit(edge, named.label, facts, (*encoder.notes, *weak))

    def _prior(self) -> Found | None:
        """The prior with its hash, where one was given."""
        if self.prior is None:
            return None
        return given_prior(str(self.prior), self.prior_weights, size=self.size, align=self.align)

    def _facts(
        self, encoder: SplitEncoder, edge: Edge, named: NamedDefence, secret: bytes,
        prior_sha256: str | None,
    ) -> dict[str, Any]:  # fmt: skip
        own = self.prior is not None and not Path(self.prior).is_file()
        code, generator = _code_of(self.encoder), _code_of(str(self.prior)) if own else None
        return {
            **facts_of(edge, named, secret=secret, seed=self.seed),
            "encoder": {
                "name": encoder.name,
                "weights_sha256": encoder.weights_sha256,
                "layer": encoder.layer,
                "preprocessing": asdict(encoder.preprocessing),
                **({} if code is None else {"code_sha256": code}),
            },
            "prior_sha256": prior_sha256,
            **({} if generator is None else {"prior_code_sha256": generator}),
            "input_size": self.size,
            "crop": self.crop,
            **({} if self.public_crop is None else {"public_crop": self.public_crop}),
            "align": self.align or "none",
        }


@dataclass(frozen=True, eq=False)
class Kit:
    """A defence at work, its label, what a manifest says of it, and notes for the user."""

    edge: Edge
    label: str
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()


def facts_of(edge: Edge, named: NamedDefence, *, secret: bytes, seed: int | None) -> dict[str, Any]:
    """What every manifest says: the defence, its settings, the block, and which key."""
    from leakaudit.audit.store import digest

    return {
        "defence": {"label": named.label, "name": named.defence.name, **asdict_of(edge.defence)},
        "block": edge.block,
        "key_id": key_id(secret) if seed is None else None,
        "seed": seed,
        "public_sha256": digest(edge.public),
    }


def asdict_of(defence: Any) -> dict[str, Any]:
    """The settings of a defence as a table of its own."""
    return {"settings": asdict(defence)}


def refuse_without_gradients(encoder: Any, named: NamedDefence) -> None:
    """A defence that searches the prior through the encoder needs the encoder's gradients."""
    if named.defence.uses_prior and not getattr(encoder, "differentiable", True):
        raise UsageError(
            "This defence follows the encoder's gradients, and the encoder gives none",
            where=f"--defence {named.label}",
            todo="Give a differentiable form of the encoder, or another defence",
        )


def _code_of(spec: str) -> str | None:
    """The hash of the user's own file that makes a network, which weights alone don't tell."""
    if not is_factory(spec) or spec.endswith((".ts", ".pt2", ".onnx")):
        return None
    source = parse_factory(spec, what="encoder").source
    return sha256_of(Path(source)) if source.endswith(".py") else None
