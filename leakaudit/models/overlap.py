"""Do private and public faces overlap? By near-duplicate pictures, and by the names of people."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leakaudit.models.faces import Faces
from leakaudit.models.pictures import MARK

_NUMBERED = re.compile(r"(.+?)[-_ ]+\d+")
_GENERIC = re.compile(r"([a-z]|person|people|subject|identity|id|user|class|face|faces)?[-_ ]*\d+")


class Twin(NamedTuple):
    """A private picture, the public one nearest to it, and the distance between them."""

    private: int
    public: int
    distance: float


class Shared(NamedTuple):
    """People named on both sides: by true names, and by mere numbers that anybody may have."""

    named: tuple[str, ...]
    numbered: tuple[str, ...]


def overlap(
    private: Faces,
    public_images: Tensor,
    *,
    public_marks: Tensor | None = None,
    threshold: float = 0.02,
) -> list[Twin]:
    """Private pictures that (nearly) stand among the public ones, each with its nearest there.

    A cheap check: root mean square difference of 16 x 16 grey averages, at most ``threshold``
    (saved again as JPEG: below .01; another picture: above .05). Compared is every view with every
    other, as it is and mirrored: the audited crop and, where there are marks, the centred square
    and the whole picture, squeezed. It finds copies, not people.
    """
    if not len(private) or not len(public_images):
        return []
    ours = _views(private.images, private.marks)
    theirs = _views(public_images, public_marks)
    theirs = torch.cat([theirs, theirs.flip(-1)], 1)
    count, each = len(private), theirs.shape[1]
    table = theirs.flatten(0, 1).flatten(1)
    twins = []
    for start in range(0, count, 128):  # bounds the table of distances
        block = ours[start : start + 128]
        near = torch.cdist(block.flatten(0, 1).flatten(1), table) / MARK
        distances, places = near.unflatten(0, block.shape[:2]).amin(1).min(dim=1)
        twins += [
            Twin(start + i, int(place) // each, float(value))
            for i, (value, place) in enumerate(zip(distances, places, strict=True))
            if value <= threshold
        ]
    return twins


def _views(images: Tensor, marks: Tensor | None) -> Tensor:
    """Small greys (N, V, 16, 16) about zero of the audited pictures, and of the uncut ones."""
    grey = images.detach().cpu().float().mean(dim=1, keepdim=True)
    crop = torch.nn.functional.adaptive_avg_pool2d(grey, MARK)
    whole = crop if marks is None else torch.cat([crop, marks.cpu().to(crop)], 1)
    return whole - 0.5


def shared_people(private: Faces, public_files: Sequence[str]) -> Shared:
    """Names of private people that public folders or numbered files (``Ann_Lee_0001.jpg``) bear.

    Case, spaces, hyphens and how accents are coded don't count. A name that is only a number, or a
    common word with one (``s12``, ``person_3``), is told apart: two collections may count their
    people alike.
    """
    present = {private.names[int(i)] for i in private.people.unique()}
    ours = {_plain(name): name for name in present}
    theirs: set[str] = set()
    for file in public_files:
        folder, _, base = file.rpartition("/")
        found = _NUMBERED.fullmatch(posixpath.splitext(base)[0])
        theirs |= {_plain(part) for part in folder.split("/") if part}
        theirs |= {_plain(found[1])} if found else set()
    both = sorted(ours[name] for name in ours.keys() & theirs)
    numbered = tuple(name for name in both if _GENERIC.fullmatch(name.lower()))
    return Shared(tuple(name for name in both if name not in numbered), numbered)


def _plain(name: str) -> str:
    told = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[-_ ]+", "_", told).strip("_")
