"""Whose faces a benchmark runs on: the demo's, or one's own, with scan's options."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from leakaudit.audit.own import Sources, own_subjects
from leakaudit.audit.plan import load_preset
from leakaudit.demo.load import demo_subject
from leakaudit.models.subject import Subject


def add_subject(parser: argparse.ArgumentParser) -> None:
    """``--people-seed``, ``--layer`` and the options of one's own subject."""
    parser.add_argument("--people-seed", type=int, default=1, help="which people are rendered")
    parser.add_argument("--layer", help="where one's own encoder is split (layer1)")
    own = parser.add_argument_group("one's own subject, as scan takes it")
    for option in ("--encoder", "--oracle", "--prior", "--crop", "--align"):
        own.add_argument(option)
    for option in (
        "--weights", "--images", "--public", "--labels", "--attributes", "--oracle-weights",
    ):  # fmt: skip
        own.add_argument(option, type=Path)
    own.add_argument("--input-size", type=int, default=64, help="side of the pictures in pixels")
    own.add_argument("--pictures", type=int, default=1, help="how many of a person are attacked")


def subject_of(told: argparse.Namespace, faces: int) -> Subject:
    """The subject that the options name, of whom ``faces`` pictures are attacked."""
    if told.encoder is None:
        return demo_subject(told.people_seed, attacked=faces)
    with tempfile.TemporaryDirectory() as folder:
        sources = Sources(
            told.encoder, (told.layer or "layer1",), told.images, told.public, Path(folder),
            weights=told.weights, labels=told.labels, attributes=told.attributes, prior=told.prior,
            crop=told.crop, align=told.align, oracle=(told.oracle,) if told.oracle else None,
            oracle_weights=(told.oracle_weights,) if told.oracle_weights else None,
            people_limit=-(-faces // told.pictures), pictures_limit=told.pictures,
            size=told.input_size, seed=told.seed,
        )  # fmt: skip
        training = load_preset("quick")[1].get("training", {})
        (subject,) = own_subjects(sources, training=training, say=lambda text: None, note=_note)
    return subject


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")
