"""What a scan keeps for a human study: originals and reconstructions of a few people, in one file.

It holds faces, so a scan writes it on request only, into the private run folder. Read without
torch, by numpy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from leakaudit.core.errors import InputError, UnknownNameError, UsageError

FILE = "study.safetensors"
VERSION = 1
LEAST_PEOPLE = 5
"""Four candidates and somebody who is none of them."""
RETENTION = (
    "Holds faces, which are biometric data. Keep it private, show it only to participants who may "
    "see these people, and delete it once the questionnaires are made."
)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Made:
    """Reconstructions (N, H, W, 3) by one attack behind one defence, and how well it names people.

    ``identification`` and ``similarity`` are the attack's scores over all attacked faces.
    """

    defence: str
    attack: str
    identification: float
    similarity: float
    pictures: Pixels


@dataclass(frozen=True, eq=False)
class Kept:
    """The kept people: ``originals`` (N, H, W, 3), one picture each, and what was made of them.

    ``secret`` seeds every choice of a questionnaire, so that nobody who has the page and the
    program can find out which answers are right; ``faces_sha256`` is that of the result, and
    ``network`` its encoder and layer, ``work`` a hash of what was run (see `study_key.work_of`).
    """

    originals: Pixels
    made: tuple[Made, ...]
    secret: str
    faces_sha256: str
    synthetic: bool
    network: str = ""
    work: str = ""

    @property
    def defences(self) -> tuple[str, ...]:
        """The defences behind which some attack made pictures, ``none`` first."""
        return tuple(dict.fromkeys(row.defence for row in self.made))

    def best(self, defence: str, attack: str | None = None) -> Made:
        """The reconstructions by ``attack``, or by the one that names most people there.

        Ties go to the one whose pictures are more alike to the originals. Where ``attack`` ran
        behind other defences only, as adaptive ones do, the best one stands in. Raises
        ``UnknownNameError`` for a defence or an attack that made no pictures anywhere.
        """
        if defence not in self.defences:
            raise UnknownNameError("defence", defence, self.defences, where="--defence")
        rows = [row for row in self.made if row.defence == defence]
        if attack is not None:
            names = {row.attack for row in self.made}
            if attack not in names:
                raise UnknownNameError("attack", attack, names, where="--attack")
            rows = [row for row in rows if row.attack == attack] or rows
        return max(rows, key=lambda row: (row.identification, row.similarity))


def read_kept(folder: Path) -> Kept:
    """What the scan of this run folder kept.

    Raises ``UsageError`` where it kept nothing and ``InputError`` for a damaged file.
    """
    path = folder / FILE
    if not path.is_file():
        raise UsageError(
            "This run kept no pictures for a study",
            where=str(path),
            todo=f"Scan again with pictures kept: {_again(folder)}",
        )
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["about"])
            return _kept(about, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            "The pictures kept for the study can't be read",
            where=str(path),
            todo="Scan again with --keep-study",
        ) from error


def _kept(about: Mapping[str, Any], tensors: Mapping[str, Pixels]) -> Kept:
    if about["version"] != VERSION:
        raise ValueError("another version")
    originals = _pixels(tensors["originals"], len(tensors["originals"]))
    made = tuple(
        Made(
            str(row["defence"]), str(row["attack"]), float(row["identification"]),
            float(row["similarity"]), _pixels(tensors[row["pictures"]], len(originals)),
        )
        for row in about["made"]
    )  # fmt: skip
    secret = str(about["secret"])
    if not made or len(secret) < 32:
        raise ValueError("incomplete")
    return Kept(
        originals, made, secret, str(about["faces_sha256"]), bool(about["synthetic"]),
        str(about.get("network", "")), str(about.get("work", "")),
    )  # fmt: skip


def _pixels(array: Pixels, count: int) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or len(array) != count:
        raise ValueError("not pictures")
    return array


def _again(folder: Path) -> str:
    """The scan's own command with the option added, where its result tells it."""
    try:
        told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        command = str(told["command"])
    except (OSError, ValueError, LookupError, TypeError):
        command = "leakaudit scan ..."
    return f"{command} --keep-study 40"
