"""Published weights: names, files, sizes, hashes, licences and where they come from.

The one place that knows them. Nothing here reads a network; `fetching` downloads, on request only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from leakaudit.core.cache import cache_dir
from leakaudit.core.errors import UnknownNameError, WeightsError
from leakaudit.core.files import sha256_of_file

_FACENET = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
_TORCH = "https://download.pytorch.org/models/"
_IMAGENET = "BSD-3-Clause (torchvision); trained on ImageNet, whose terms are for research"
_FACES = "MIT (facenet-pytorch); trained on {}, whose terms are for research"


@dataclass(frozen=True)
class Weights:
    """One published file.

    ``name`` is what ``leakaudit fetch`` takes: the SPEC of the network, with a version behind it
    where the same network has several files. ``mebibytes`` is the size as the publisher tells it
    (2^20 bytes). ``sha256`` is the full hash, or ``None`` where none was published.
    """

    name: str
    url: str
    mebibytes: float
    sha256: str | None
    licence: str

    @property
    def file(self) -> str:
        """The name of the file, the publisher's."""
        return self.url.rpartition("/")[2]

    @property
    def fetch(self) -> str:
        """What to type to get it."""
        return f"leakaudit fetch {self.name}"


def _torchvision(name: str, file: str, mebibytes: float, sha256: str) -> Weights:
    return Weights(f"torchvision:{name}", _TORCH + file, mebibytes, sha256, _IMAGENET)


# Sizes: torchvision's own records, facenet-pytorch's README. torchvision names only the first eight
# digits of a hash, in the file's name; the full ones are those that independent public projects
# record for the same file, at least two of them alike, and begin with those eight. That of the
# vggface2 file is recorded so by ten. Of the casia-webface file no hash was found.
_ALL: Final = (
    Weights(
        "facenet:vggface2",
        _FACENET + "20180402-114759-vggface2.pt",
        106.7,
        "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
        _FACES.format("VGGFace2"),
    ),
    Weights(
        "facenet:casia-webface",
        _FACENET + "20180408-102900-casia-webface.pt",
        111,
        None,
        _FACES.format("CASIA-WebFace"),
    ),
    _torchvision(
        "resnet18", "resnet18-f37072fd.pth", 44.661,
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
    _torchvision(
        "resnet34", "resnet34-b627a593.pth", 83.275,
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
    ),
    _torchvision(
        "resnet50.v1", "resnet50-0676ba61.pth", 97.781,
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    ),
    _torchvision(
        "resnet50.v2", "resnet50-11ad3fa6.pth", 97.79,
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
    ),
    _torchvision(
        "mobilenet_v2.v1", "mobilenet_v2-b0353104.pth", 13.555,
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
    _torchvision(
        "mobilenet_v3_small", "mobilenet_v3_small-047dcff4.pth", 9.829,
        "047dcff4addef86ea5bc2eff13c9614dc11f47ab1160d0a71a25e7db994f4e1f",
    ),
    _torchvision(
        "mobilenet_v3_large.v1", "mobilenet_v3_large-8738ca79.pth", 21.114,
        "8738ca797c879b547d18bbd15da5736ff2557b2036a9af72225393ca61759a04",
    ),
    _torchvision(
        "efficientnet_b0", "efficientnet_b0_rwightman-7f5810bc.pth", 20.451,
        "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934",
    ),
    _torchvision(
        "alexnet", "alexnet-owt-7be5be79.pth", 233.087,
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    _torchvision(
        "vgg16", "vgg16-397923af.pth", 527.796,
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    _torchvision(
        "squeezenet1_1", "squeezenet1_1-b8a52dc0.pth", 4.729,
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    ),
)  # fmt: skip

KNOWN: Mapping[str, Weights] = MappingProxyType({weights.name: weights for weights in _ALL})
"""All of them by name."""

LPIPS_TRUNK: Final = KNOWN["torchvision:alexnet"]
"""The network under LPIPS; its linear layers come with the lpips package."""


def known(name: str) -> Weights:
    """The weights of this name; UnknownNameError with the nearest ones."""
    if name not in KNOWN:
        raise UnknownNameError("weights", name, KNOWN)
    return KNOWN[name]


def weights_dir() -> Path:
    """Where ``leakaudit fetch`` puts weights."""
    return cache_dir() / "weights"


def places(weights: Weights) -> Iterator[Path]:
    """Where the file may lie: where ``fetch`` puts it, and torch's own cache."""
    yield weights_dir() / weights.file
    home = os.environ.get("TORCH_HOME")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    yield Path(home or Path(base) / "torch").expanduser() / "hub" / "checkpoints" / weights.file


def at_hand(weights: Weights) -> Path | None:
    """The file where it lies, its hash checked; ``None`` where it isn't there.

    Raises WeightsError for a file with another hash than the known one, or than the one that was
    noted when it was fetched.
    """
    for path in places(weights):
        if path.is_file():
            wanted = weights.sha256 or noted(path)
            if wanted is not None and _sha256(path, path.stat().st_mtime_ns) != wanted:
                raise WeightsError(
                    f"The file in the cache is not {weights.name}'s: its SHA-256 isn't "
                    f"{wanted[:12]}...",
                    where=str(path),
                    todo=f"Delete it, then {weights.fetch}",
                )
            return path
    return None


@lru_cache(maxsize=32)
def _sha256(path: Path, _changed: int) -> str:
    """The hash of a file as it is now; large ones are asked for often in one run."""
    return sha256_of_file(path)


def note_of(path: Path) -> Path:
    """The file beside weights in which their hash was noted."""
    return path.with_name(f"{path.name}.sha256")


def noted(path: Path) -> str | None:
    """The hash that was noted when the file was first fetched, or ``None``."""
    try:
        words = note_of(path).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0].lower() if words and len(words[0]) == 64 else None


def named_by(spec: str) -> tuple[Weights, ...]:
    """The files that are published for the network of this SPEC, one or several versions."""
    return tuple(w for w in _ALL if w.name == spec or w.name.rpartition(".")[0] == spec)


def missing(spec: str) -> str:
    """What to do where no weights are given for this SPEC."""
    by_hand = "Give the file with --weights FILE (safetensors or a state dict)"
    found = named_by(spec)
    if not found:
        return by_hand
    return f"{by_hand}, or get it once: {' or '.join(w.fetch for w in found)}"
