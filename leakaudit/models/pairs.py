"""LFW's ``pairs.txt``: which pictures are compared, and whether they show one person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from leakaudit.core.errors import InputError
from leakaudit.core.rng import Rng
from leakaudit.models.faces import Faces, Split
from leakaudit.models.pictures import printable

Names = tuple[str, str]


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures by name without extension, ``Ann_Lee/Ann_Lee_0001``.

    ``same`` show one person, ``different`` two.
    """

    same: tuple[Names, ...]
    different: tuple[Names, ...]

    @property
    def stems(self) -> frozenset[str]:
        """All pictures that are named, with their folder and, for flat folders, without it."""
        named = {name for pair in (*self.same, *self.different) for name in pair}
        return frozenset(named | {PurePosixPath(name).name for name in named})


def read_pairs(path: Path) -> Pairs:
    """The pairs of a file in the form of LFW's (Huang et al. 2007).

    Rows are ``name n1 n2`` for one person and ``name1 n1 name2 n2`` for two, by tabs or spaces;
    ``n`` counts the person's pictures, ``name/name_000n``. A first line ``sets pairs`` or ``pairs``
    tells how many of each kind there are in each set. Raises `InputError` for a file that can't be
    read, other rows, numbers below 1 and a count that isn't kept.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("The pairs are not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise InputError(f"The pairs can't be read: {error.strerror}", where=str(path)) from error
    rows = [(n, line.split()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    promised = _promised(rows[0][1]) if rows else None
    same: list[Names] = []
    different: list[Names] = []
    for number, words in rows[promised is not None :]:
        match words:
            case [name, a, b]:
                same.append((_stem(name, a, path, number), _stem(name, b, path, number)))
            case [one, a, two, b] if one != two:
                different.append((_stem(one, a, path, number), _stem(two, b, path, number)))
            case _:
                raise InputError(
                    f"Line {number} is no pair: {printable(' '.join(words))}",
                    where=str(path),
                    todo="A row is 'name n1 n2' for one person, 'name1 n1 name2 n2' for two",
                )
    if promised is not None and (len(same), len(different)) != (promised, promised):
        raise InputError(
            f"The first line promises {promised} pairs of each kind, and {len(same)} of one person "
            f"and {len(different)} of two follow",
            where=str(path),
            todo="Give the whole file, or leave out its first line",
        )
    if not same:
        raise InputError("No pair shows one person twice", where=str(path))
    return Pairs(tuple(same), tuple(different))


def _promised(words: Sequence[str]) -> int | None:
    """How many pairs of each kind the first line tells, ``None`` where it is a pair itself."""
    if len(words) > 2 or not all(map(_is_count, words)):
        return None
    return int(words[0]) * int(words[-1]) if len(words) == 2 else int(words[0])


def _is_count(word: str) -> bool:
    """Whether this is a whole number that a file of pairs may hold; endless digits are none."""
    return word.isdecimal() and len(word) <= 9


def _stem(name: str, number: str, path: Path, line: int) -> str:
    if not _is_count(number) or int(number) < 1 or "/" in name or name in (".", ".."):
        told = printable(f"{name} {number}")
        raise InputError(f"Line {line} names no picture: {told}", where=str(path))
    return f"{name}/{name}_{int(number):04d}"


@dataclass(frozen=True, eq=False)
class Compared:
    """Faces that were split after pairs.

    ``split`` has attacked pictures and enrolled ones; ``partners`` are rows of the enrolled ones
    with which a pair compares an attacked picture of the same person; ``impostors`` are pairs of
    rows of enrolled ones that show two people. ``told`` is a sentence on what was found.
    """

    split: Split
    partners: tuple[int, ...]
    impostors: tuple[tuple[int, int], ...]
    told: str


def split_by_pairs(
    faces: Faces,
    pairs: Pairs,
    rng: Rng,
    attacked_per_person: int,
    *,
    attacked_people: int | None = None,
) -> Compared:
    """Attack one picture of a pair, enrol the other, and everything else.

    Of each person at most ``attacked_per_person`` pictures are attacked, from pairs drawn at
    random, and at most ``attacked_people`` people, drawn as well. Raises `InputError` where no pair
    of one person is there.
    """
    row = {stem: i for i, stem in enumerate(map(_without_extension, faces.files))}
    row |= {PurePosixPath(stem).name: i for stem, i in row.items() if "/" not in stem}
    same = [found for pair in pairs.same if (found := _rows(pair, row)) is not None]
    people: dict[int, list[tuple[int, int]]] = {}
    for a, b in same:
        if faces.people[a] == faces.people[b] and a != b:
            people.setdefault(int(faces.people[a]), []).append((a, b))
    if not people:
        raise InputError(
            "No pair of one person has both its pictures among the usable ones",
            where="--pairs",
            todo="Give the folder that holds Name/Name_0001.jpg",
        )
    chosen = sorted(people)
    if attacked_people is not None and attacked_people < len(chosen):
        drawn = rng.derive("people").numpy().permutation(len(chosen))[:attacked_people]
        chosen = sorted(chosen[int(i)] for i in drawn)
    attacked: set[int] = set()
    partners: set[int] = set()
    for person in chosen:
        draw = rng.derive("pairs", faces.names[person]).numpy()
        own = [people[person][int(i)] for i in draw.permutation(len(people[person]))]
        _take(own, attacked_per_person, attacked, partners)
    kept = [i for i in range(len(faces)) if i not in attacked]
    place = {i: k for k, i in enumerate(kept)}
    two = [found for pair in pairs.different if (found := _rows(pair, row)) is not None]
    impostors = tuple(
        (place[a], place[b])
        for a, b in two
        if a in place and b in place and faces.people[a] != faces.people[b]
    )
    few = Counter(faces.people.tolist()).keys() - people.keys()
    split = Split(
        faces.select(kept),
        faces.select(sorted(attacked)),
        tuple(faces.names[person] for person in sorted(few)),
    )
    told = (
        f"{len(same)} of {len(pairs.same)} pairs of one person and {len(two)} of "
        f"{len(pairs.different)} of two have both their pictures; {len(attacked)} pictures of "
        f"{len(chosen)} people are attacked, and {len(impostors)} pairs of two people set the "
        "threshold, if they are 100 or more"
    )
    return Compared(split, tuple(sorted(place[i] for i in partners)), impostors, told)


def _take(own: list[tuple[int, int]], most: int, attacked: set[int], partners: set[int]) -> None:
    """Attack one picture of each of a person's pairs, until there are so many."""
    before = len(attacked)
    for pair in own:
        if len(attacked) - before >= most:
            return
        for one, other in (pair, pair[::-1]):
            if one not in partners and one not in attacked and other not in attacked:
                attacked.add(one)
                partners.add(other)
                break


def _without_extension(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))


def _rows(pair: Names, row: dict[str, int]) -> tuple[int, int] | None:
    a, b = (row.get(name, row.get(PurePosixPath(name).name)) for name in pair)
    return None if a is None or b is None else (a, b)
