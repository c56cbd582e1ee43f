"""Faces: pictures of named people as one tensor, read from folders, split and compared."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leakaudit.core.errors import InputError, UsageError
from leakaudit.core.rng import Rng
from leakaudit.models.labels import read_attributes, read_people
from leakaudit.models.pictures import (
    CUT_OFF,
    Crop,
    Listing,
    LoadReport,
    Picture,
    UnusableError,
    check_size,
    list_folder,
    load_picture,
    printable,
)

if TYPE_CHECKING:
    from leakaudit.models.alignment import Aligner

__all__ = ["Crowd", "Faces", "LoadReport", "Split", "load_crowd", "load_people", "load_public"]


Tell = Callable[[int, int], None]


def _silent(done: int, count: int) -> None:
    pass


def several_of_each(whose: Tensor, *, people: int, pictures: int) -> Tensor:
    """Rows of the first ``people`` who have two pictures or more, at most ``pictures`` of each.

    ``whose`` (N,) are person indices; where nobody has two there are no rows.
    """
    kept = []
    for person in whose.unique():
        own = (whose == person).nonzero()[:, 0]
        kept += [own[:pictures]] if len(own) > 1 else []
    return torch.cat([torch.zeros(0, dtype=torch.long), *kept[:people]])


@dataclass(frozen=True)
class Faces:
    """Pictures of people, all of one size.

    ``images`` (N, 3, H, W) float32 in [0, 1]; ``people`` (N,) int64, indices into ``names``;
    ``attributes`` (N, A) 0, 1 or NaN where unknown, or ``None``; ``files`` are names relative to
    the folder they came from. ``marks`` (N, 2, 16, 16) are small greys of the uncut pictures (see
    `pictures.Picture`). ``names`` stays whole when faces are selected, so that an index names the
    same person in every part.
    """

    images: Tensor
    people: Tensor
    names: tuple[str, ...]
    attributes: Tensor | None = None
    attribute_names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    marks: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        fits = self.images.ndim == 4 and self.people.shape == (n,)
        fits &= self.marks is None or len(self.marks) == n
        fits &= self.files == () or len(self.files) == n
        fits &= self.attributes is None or self.attributes.shape == (n, len(self.attribute_names))
        if not fits:
            raise InputError("Images, people, attributes and files don't belong together")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def n_people(self) -> int:
        """How many different people are on these pictures."""
        return len(torch.unique(self.people))

    def select(self, indices: Tensor | Sequence[int]) -> Faces:
        """These faces only, in this order; a boolean mask is understood as well."""
        chosen = torch.as_tensor(indices, device="cpu")
        chosen = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen.long()
        return Faces(
            images=self.images[chosen],
            people=self.people[chosen],
            names=self.names,
            attributes=None if self.attributes is None else self.attributes[chosen],
            attribute_names=self.attribute_names,
            files=tuple(self.files[int(i)] for i in chosen) if self.files else (),
            marks=None if self.marks is None else self.marks[chosen],
        )

    def split_enrolment(
        self,
        rng: Rng,
        attacked_per_person: int,
        *,
        enrolment_per_person: int = 1,
        attacked_people: int | None = None,
    ) -> Split:
        """Pictures that the oracle may know and, apart from them, pictures that are attacked.

        Of each person ``attacked_per_person`` pictures, drawn at random, are attacked and all
        others enrolled, at least ``enrolment_per_person``. People with fewer pictures than both
        together are enrolled only and named in ``too_few``; with ``attacked_people`` so many people
        are drawn and the rest is enrolled only. Nobody left to attack is an `InputError`.
        """
        if attacked_per_person < 1 or enrolment_per_person < 1:
            raise UsageError("At least one picture of a person is attacked and one is enrolled")
        counts = Counter(self.people.tolist())
        needed = attacked_per_person + enrolment_per_person
        enough = sorted(person for person, count in counts.items() if count >= needed)
        if not enough:
            raise InputError(
                f"Nobody has the {needed} pictures that are needed (the most is "
                f"{max(counts.values(), default=0)}): {attacked_per_person} to attack and "
                f"{enrolment_per_person} to know the person by",
                todo="Give more pictures of each person",
            )
        if attacked_people is not None and attacked_people < len(enough):
            drawn = rng.derive("people").numpy().permutation(len(enough))[:attacked_people]
            chosen = sorted(enough[int(i)] for i in drawn)
        else:
            chosen = enough
        attacked: list[int] = []
        for person in chosen:
            places = (self.people == person).nonzero()[:, 0].numpy()
            # By name, so that one person's pictures don't depend on who else is there.
            order = rng.derive("pictures", self.names[person]).numpy().permutation(len(places))
            attacked += sorted(int(places[i]) for i in order[:attacked_per_person])
        taken = set(attacked)
        kept = [i for i in range(len(self)) if i not in taken]
        too_few = tuple(self.names[person] for person in sorted(set(counts) - set(enough)))
        return Split(self.select(kept), self.select(sorted(attacked)), too_few)


class Split(NamedTuple):
    """Enrolled and attacked pictures, and who had too few pictures to be attacked."""

    enrolment: Faces
    attacked: Faces
    too_few: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Crowd:
    """Public pictures of anybody, sorted by name.

    ``images`` (M, 3, size, size) float32 in [0, 1]; ``files`` are names relative to the folder;
    ``marks`` (M, 2, 16, 16) as in `Faces`.
    """

    images: Tensor
    files: tuple[str, ...]
    marks: Tensor

    def __len__(self) -> int:
        return len(self.images)


def load_people(
    folder: Path,
    *,
    size: int,
    attributes: Path | None = None,
    labels: Path | None = None,
    crop: Crop | None = None,
    align: Aligner | None = None,
    tell: Tell = _silent,
    only: Collection[str] | None = None,
    limit_people: int | None = None,
    limit_per_person: int | None = None,
) -> tuple[Faces, LoadReport]:
    """The faces of named people in a folder, in the order of their file names.

    One folder per person (the first level counts), or any layout with ``labels``
    (``file,person``). With ``align`` faces are brought to one geometry, and pictures without one
    are skipped; ``tell`` hears how many were read of how many. ``only`` keeps pictures of these
    names (without their extension); ``limit_people`` and ``limit_per_person`` keep the first by
    name. A picture
    that shows exactly what an earlier one shows is skipped, so that no copy of an attacked picture
    is enrolled. Raises `InputError` where no picture, no readable picture or fewer than two people
    are found, and for faulty tables.
    """
    check_size(size, crop)
    listing = listing_with_pictures(folder)
    person_of, skipped, notes = _people(listing, labels)
    person_of, unnamed = _only(listing, person_of, only)
    person_of, left_out = _limited(person_of, limit_people, limit_per_person)
    read, files, unread = _read_all(
        listing, list(person_of), size=size, crop=crop, align=align, tell=tell
    )
    read, files, copies = _without_copies(read, files)
    cut_off, edges = _cut_off(read)
    skipped = sorted([*listing.skipped, *skipped, *unread, *copies])
    report = LoadReport(
        found=len(listing.pictures) + len(listing.skipped),
        used=len(files),
        skipped=tuple(skipped),
        notes=(*notes, *unnamed, *left_out, *edges),
        cut_off=cut_off,
        extent=_extent(read),
    )
    names = tuple(sorted({person_of[file] for file in files}))
    _check_enough(listing, report, names)
    index = {name: i for i, name in enumerate(names)}
    attribute_names: tuple[str, ...] = ()
    values = None
    if attributes is not None:
        attribute_names, rows, matched = read_attributes(attributes, root=listing.root, files=files)
        values = torch.tensor(rows, dtype=torch.float32)
        if matched < len(files):
            note = f"{len(files) - matched} pictures have no row of attributes"
            report = replace(report, notes=(*report.notes, note))
    faces = Faces(
        images=_tensor(read),
        people=torch.tensor([index[person_of[file]] for file in files]),
        names=names,
        attributes=values,
        attribute_names=attribute_names,
        files=tuple(files),
        marks=_marks(read),
    )
    return faces, report


def load_public(
    folder: Path, *, size: int, limit: int | None = None, rng: Rng, crop: Crop | None = None
) -> tuple[Tensor, LoadReport]:
    """The pictures (M, 3, size, size) of `load_crowd`."""
    crowd, report = load_crowd(folder, size=size, limit=limit, rng=rng, crop=crop)
    return crowd.images, report


def load_crowd(
    folder: Path,
    *,
    size: int,
    limit: int | None = None,
    rng: Rng,
    crop: Crop | None = None,
    align: Aligner | None = None,
    tell: Tell = _silent,
) -> tuple[Crowd, LoadReport]:
    """Pictures of anybody under a folder, aligned where ``align`` is given.

    Where there are more than ``limit``, so many are drawn at random. Raises `InputError` where no
    picture or no readable picture is found.
    """
    check_size(size, crop)
    if limit is not None and limit < 1:
        raise UsageError(f"A limit of {limit} public pictures leaves none")
    listing = listing_with_pictures(folder)
    names = list(listing.pictures)
    notes: tuple[str, ...] = ()
    if limit is not None and limit < len(names):
        drawn = rng.derive("public").numpy().permutation(len(names))
        # The draw goes on past unreadable pictures until the limit is reached.
        read, files, unread = _read_all(
            listing, [names[i] for i in drawn], size=size, crop=crop, align=align, limit=limit,
            tell=tell,
        )  # fmt: skip
        order = sorted(range(len(files)), key=lambda i: files[i])
        read, files = [read[i] for i in order], [files[i] for i in order]
        notes = (f"{len(names) - len(files) - len(unread)} left out by the limit of {limit}",)
    else:
        read, files, unread = _read_all(
            listing, names, size=size, crop=crop, align=align, tell=tell
        )
    cut_off, edges = _cut_off(read)
    report = LoadReport(
        found=len(names) + len(listing.skipped),
        used=len(files),
        skipped=tuple(sorted([*listing.skipped, *unread])),
        notes=(*notes, *edges),
        cut_off=cut_off,
        extent=_extent(read),
    )
    if not files:
        raise _nothing_readable(listing, report)
    return Crowd(_tensor(read), tuple(files), _marks(read)), report


def listing_with_pictures(folder: Path) -> Listing:
    """What lies under a folder; InputError, with what was found instead, where no picture does."""
    listing = list_folder(folder)
    if not listing.pictures:
        raise InputError(
            f"The folder holds no pictures (found instead: {listing.instead()})",
            where=str(folder),
            todo="Give a folder with JPEG, PNG, BMP, WebP, TIFF, GIF or PPM pictures",
        )
    return listing


_PART = re.compile(r"(?i)train(ing)?|val(id(ation)?)?|dev|test(ing)?|images|public|private")


def _people(
    listing: Listing, labels: Path | None
) -> tuple[dict[str, str], list[tuple[str, str]], tuple[str, ...]]:
    """The person of each picture by table or first-level folder; who has none is skipped."""
    if labels is not None:
        person_of = read_people(labels, root=listing.root, files=listing.pictures)
        missing = [(n, "without a row in the labels") for n in listing.pictures.keys() - person_of]
        return {n: person_of[n] for n in listing.pictures if n in person_of}, missing, ()
    person_of = {n: n.split("/", 1)[0] for n in listing.pictures if "/" in n}
    if not person_of:
        raise InputError(
            f"The {len(listing.pictures)} pictures lie flat and nothing says who is on them",
            where=str(listing.root),
            todo="Make one folder per person, or name a table file,person with --labels",
        )
    loose = [(n, "outside any person's folder") for n in listing.pictures if n not in person_of]
    deep = any(n.count("/") > 1 for n in person_of)
    parts = sorted(set(person_of.values()))
    if deep and all(_PART.fullmatch(part) for part in parts):
        raise InputError(
            f"The folders are parts of a data set, not people: {', '.join(parts)}",
            where=str(listing.root),
            todo=f"Give one of them, such as {listing.root / parts[0]}, or a table file,person "
            "with --labels",
        )
    notes = ("Folders inside a person's folder were counted as that person's",) if deep else ()
    return person_of, loose, notes


def _limited(
    person_of: dict[str, str], people: int | None, per_person: int | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    names = sorted(set(person_of.values()))
    kept = set(names if people is None else names[:people])
    seen: Counter[str] = Counter()
    result = {}
    for file, person in person_of.items():
        seen[person] += 1
        if person in kept and (per_person is None or seen[person] <= per_person):
            result[file] = person
    if len(result) == len(person_of):
        return result, ()
    note = f"{len(person_of) - len(result)} pictures left out by limits"
    if len(kept) < len(names):
        note += f", {len(names) - len(kept)} of {len(names)} people with them"
    return result, (note,)


def _only(
    listing: Listing, person_of: dict[str, str], stems: Collection[str] | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The pictures of these names, given without their extension, and how many are left out."""
    if stems is None:
        return person_of, ()
    wanted = set(stems)
    kept = {n: person for n, person in person_of.items() if posixpath.splitext(n)[0] in wanted}
    if not kept:
        raise InputError(
            f"None of the {len(person_of)} pictures is one that the pairs name (they name: "
            f"{printable(min(wanted, default='none'))}; the folder's first picture: "
            f"{printable(min(person_of))})",
            where=str(listing.root),
            todo="Give the folder that holds Name/Name_0001.jpg",
        )
    left = len(person_of) - len(kept)
    return kept, (f"{left} pictures left out, which no pair names",) if left else ()


def _read_all(
    listing: Listing,
    names: Sequence[str],
    *,
    size: int,
    crop: Crop | None,
    align: Aligner | None,
    tell: Tell,
    limit: int | None = None,
) -> tuple[list[Picture], list[str], list[tuple[str, str]]]:
    read, files, unread = list[Picture](), list[str](), list[tuple[str, str]]()
    for name in names:
        if limit is not None and len(files) >= limit:
            break
        if len(files) % 100 == 0:
            tell(len(files), min(len(names), limit or len(names)))
        try:
            read.append(load_picture(listing.pictures[name], size=size, crop=crop, align=align))
            files.append(name)
        except UnusableError as reason:
            unread.append((name, str(reason)))
    return read, files, unread


def _without_copies(
    read: list[Picture], files: list[str]
) -> tuple[list[Picture], list[str], list[tuple[str, str]]]:
    first: dict[bytes, int] = {}
    copies = []
    for i, picture in enumerate(read):
        if first.setdefault(picture.pixels.tobytes(), i) != i:
            copies.append((files[i], "the same picture as an earlier one"))
    kept = list(first.values())
    return [read[i] for i in kept], [files[i] for i in kept], copies


def _extent(read: list[Picture]) -> tuple[int, int] | None:
    """The width and height that most pictures had before they were cut."""
    most = Counter(picture.extent for picture in read).most_common(1)
    return next((extent for extent, count in most if 2 * count > len(read)), None)


def _cut_off(read: list[Picture]) -> tuple[int, tuple[str, ...]]:
    """How many aligned pictures end inside the crop, and a note on them."""
    count = sum(picture.outside > CUT_OFF for picture in read)
    told = f"{count} aligned pictures end inside the crop by more than a tenth: edges continued"
    return count, (told,) if count else ()


def _tensor(read: list[Picture]) -> Tensor:
    pixels = torch.from_numpy(np.stack([picture.pixels for picture in read]))
    return pixels.permute(0, 3, 1, 2).float().div(255).contiguous()


def _marks(read: list[Picture]) -> Tensor:
    return torch.from_numpy(np.stack([picture.marks for picture in read]))


def _check_enough(listing: Listing, report: LoadReport, names: tuple[str, ...]) -> None:
    if not report.used:
        raise _nothing_readable(listing, report)
    if len(names) < 2:
        raise InputError(
            f"Only one person is found, '{printable(names[0])}', and telling people apart needs "
            f"two or more. {report.summary()}",
            where=str(listing.root),
            todo="If the people's folders lie deeper, give the folder that holds them",
        )


def _nothing_readable(listing: Listing, report: LoadReport) -> InputError:
    return InputError(
        f"None of the {report.found} pictures can be used. {report.summary()}",
        where=str(listing.root),
        todo="Check that they open in a picture viewer",
    )
