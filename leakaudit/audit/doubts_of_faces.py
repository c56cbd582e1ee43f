"""Doubts about a user's own faces: too few public ones, people on both sides, cut-off crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from leakaudit.core.types import Doubt
from leakaudit.models.faces import Crowd, Faces
from leakaudit.models.overlap import shared_people
from leakaudit.models.pictures import LoadReport, printable

FEW_PUBLIC: Final = 500
MOSTLY: Final = 0.25
"""The share of public pictures that may end inside their aligned crop without a doubt."""


def face_doubts(private: Faces, public: Crowd, told: LoadReport) -> list[Doubt]:
    """Doubts that rest on what was read; ``told`` is the report on the public pictures."""
    return [*_few(public), *_people_on_both_sides(private, public), *_cut_off(told)]


def uncut_doubts(private: LoadReport, public: LoadReport, crop: str) -> list[Doubt]:
    """Private pictures are cut by ``crop``, public ones of the same extent aren't: two framings."""
    if private.extent is None or private.extent != public.extent:
        return []
    width, height = public.extent
    return [
        Doubt(
            "public-uncut",
            "serious",
            "private pictures are cut, and public ones of the same width and height aren't",
            f"The private pictures are cut by --crop {crop}, and the public ones are taken whole, "
            f"though both are {width}x{height} pixels: attacks and prior learn another framing of "
            "the face than the one they are measured on.",
            f"Cut both alike with --public-crop {crop}; if the public faces have the private ones' "
            f"framing already, say --public-crop 0,0,{width},{height}.",
        )
    ]


def _few(public: Crowd) -> list[Doubt]:
    if len(public) >= FEW_PUBLIC:
        return []
    return [
        Doubt(
            "few-public",
            "note",
            f"fewer than {FEW_PUBLIC} public pictures",
            f"Only {len(public)} public pictures: attacks and prior are weaker than they could be.",
            f"Give at least {FEW_PUBLIC} public pictures.",
        )
    ]


def _people_on_both_sides(private: Faces, public: Crowd) -> list[Doubt]:
    """Names themselves stay out: reports are passed on, and these are people under audit."""
    shared = shared_people(private, public.files)
    raised_if = "people of the same name are among the private and the public faces"
    todo = "Remove the people under audit from --public; the scan has named them on its way."
    if shared.named:
        why = (
            f"{_people(shared.named)} also stand by name in --public: the adversary was trained "
            "on the very people under audit, so that scores and controls are too high."
        )
        return [Doubt("overlapping-people", "serious", raised_if, why, todo)]
    if shared.numbered:
        why = (
            f"{_people(shared.numbered)} bear a number that --public has too: if it counts the "
            "same people, the adversary was trained on them."
        )
        return [Doubt("overlapping-people", "note", raised_if, why, todo)]
    return []


def _people(names: Sequence[str]) -> str:
    return f"{len(names)} of the private people"


def shared_note(private: Faces, public: Crowd) -> str | None:
    """Whose names stand on both sides, for the terminal; ``None`` where nobody's do."""
    shared = shared_people(private, public.files)
    both = (*shared.named, *shared.numbered)
    if not both:
        return None
    more = f" and {len(both) - 5} more" if len(both) > 5 else ""
    return f"On both sides by name: {', '.join(map(printable, both[:5]))}{more}"


def _cut_off(told: LoadReport) -> list[Doubt]:
    if told.cut_off <= MOSTLY * told.used:
        return []
    return [
        Doubt(
            "public-cut-off",
            "note",
            f"more than {MOSTLY:.0%} of the aligned public pictures end inside their crop",
            f"{told.cut_off} of {told.used} public pictures are cut so tightly that an aligned "
            "crop reaches beyond them: what attacks and prior learn there are smears.",
            "Give looser public pictures, or a closer frame such as --align mtcnn:1.4.",
        )
    ]
