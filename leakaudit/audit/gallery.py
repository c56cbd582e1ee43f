"""The gallery: a few people chosen by a stated rule, as pictures or, where withheld, as scores."""

from __future__ import annotations

import base64
import io

import torch
from PIL import Image
from torch import Tensor

from leakaudit.audit.plan import Plan
from leakaudit.core.types import GalleryRow, Picture, Score
from leakaudit.models.subject import Subject

RULES = (("most alike", 1.0), ("in the middle", 0.5), ("least alike", 0.0))


def gallery(
    subject: Subject,
    plan: Plan,
    scores: tuple[Score, ...],
    reconstructions: dict[tuple[str, str], Tensor],
    *,
    mode: str,
) -> tuple[GalleryRow, ...]:
    """Three people by the similarity of their reconstruction under the last defence.

    They are the most alike, the median and the least alike under the attack that names most people
    there. Beside it every other defence is shown by the attack that names most people behind it:
    another attack may have been the strongest there, and a weaker one would flatter it.
    Modes: ``full`` shows pictures, ``redacted`` scores only, ``none`` nothing.
    """
    if mode == "none":
        return ()
    shown = plan.defences[-1].label
    table = {(s.defence, s.attack, s.metric): s for s in scores}
    best = _strongest(table, plan, reconstructions, shown)
    if best is None:
        return ()
    alike = torch.tensor(table[shown, best, "feature_similarity"].per_face)
    order = alike.argsort(stable=True)
    rows = []
    for rule, share in RULES:
        face = int(order[round(share * (len(order) - 1))])
        title = f"{rule} under {shown}, {best}"
        pictures = [_picture(subject, table, face, "original", "none", "original", None, mode)]
        for named in plan.defences:
            role = "undefended" if named.label == "none" else "defended"
            attack = _strongest(table, plan, reconstructions, named.label)
            if attack is None:
                continue
            image = reconstructions[named.label, attack][face]
            pictures.append(_picture(subject, table, face, role, named.label, attack, image, mode))
        person = f"person {int(subject.faces.people[face]) + 1}"
        rows.append(GalleryRow(title, person, tuple(pictures)))
    return tuple(rows)


def _strongest(
    table: dict[tuple[str, str, str], Score],
    plan: Plan,
    reconstructions: dict[tuple[str, str], Tensor],
    defence: str,
) -> str | None:
    """The attack that names most people behind a defence, of those that made pictures there."""
    drawn = [a.name for a in plan.attacks if (defence, a.name) in reconstructions]
    return max(drawn, key=lambda name: _value(table, defence, name), default=None)


def _value(table: dict[tuple[str, str, str], Score], defence: str, attack: str) -> float:
    value = table[defence, attack, "identification"].value
    return -1.0 if value is None else value


def _picture(
    subject: Subject,
    table: dict[tuple[str, str, str], Score],
    face: int,
    role: str,
    defence: str,
    attack: str,
    image: Tensor | None,
    mode: str,
) -> Picture:
    named = table[defence, attack, "identification"].per_face
    alike = table[defence, attack, "feature_similarity"].per_face
    pixels = subject.faces.images[face] if image is None else image
    return Picture(
        role=role,
        defence=defence,
        attack=attack,
        png=shown(pixels, mode),
        named=None if named is None else named[face] > 0.5,
        similarity=None if alike is None else alike[face],
    )


def shown(image: Tensor, mode: str) -> str | None:
    """What a report of this mode may show of a picture (3, H, W): all of it, or nothing.

    A report draws one and the same silhouette where there is nothing. Nothing between the two
    passed: a recogniser retrained on blurred or coarse faces names people from them.
    """
    return data_uri(image) if mode == "full" else None


def data_uri(image: Tensor) -> str:
    """A picture (3, H, W) in [0, 1] as a PNG in a ``data:`` URI."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
