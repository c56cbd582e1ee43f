"""The answer key of a questionnaire: what was shown and which choice is right, kept apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leakaudit.core.errors import InputError, UsageError
from leakaudit.core.files import write_new
from leakaudit.core.study import CHOICES

KIND = "leakaudit-study-key"


@dataclass(frozen=True)
class KeyedQuestion:
    """The right choice of one question, and the row of the result that its picture came from."""

    id: str
    defence: str
    attack: str
    right: str


@dataclass(frozen=True)
class Key:
    """The key of one questionnaire.

    ``faces_sha256``, ``network`` and ``work`` (see `network_of` and `work_of`; empty in earlier
    keys) tie it to the result of the same scan.
    """

    questionnaire: str
    faces_sha256: str
    questions: tuple[KeyedQuestion, ...]
    network: str = ""
    work: str = ""


def work_of(plan: Mapping[str, Any], subject: Mapping[str, Any], seed: int) -> str:
    """A hash of all settings of attacks and defences, the seed and the prior, by a result's parts.

    A row's label alone doesn't tell how strong a defence was: a preset may set that.
    """
    known = json.dumps([plan, seed, str(subject.get("prior_sha256"))], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:32]


def network_of(subject: Mapping[str, Any]) -> str:
    """Which encoder was split at which layer, by a result's subject."""
    known = (subject.get("encoder"), subject.get("weights_sha256"), subject.get("layer"))
    return json.dumps([str(name) for name in known])


def write_key(key: Key, path: Path) -> None:
    """Write the key, readable by its owner only; never over another one.

    Raises ``UsageError`` where the file exists: answers to its questionnaire would be lost.
    """
    text = json.dumps({"kind": KIND, "version": 1, **asdict(key)}, indent=1) + "\n"
    if not write_new(path, text, mode=0o600):
        raise UsageError(
            "There is an answer key already, and answers to its questionnaire need it",
            where=str(path),
            todo="Name another --out",
        )


def read_key(path: Path) -> Key:
    """The key in this file. Raises ``InputError`` for anything else."""
    todo = "Give the key.json that leakaudit study make wrote beside the questionnaire"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return _key(data)
    except OSError as error:
        what = f"Can't read the key: {error.strerror or error}"
        raise InputError(what, where=str(path), todo=todo) from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError("This is no answer key", where=str(path), todo=todo) from error


def _key(data: Mapping[str, Any]) -> Key:
    if data["kind"] != KIND or data["version"] != 1:
        raise ValueError("another kind of file")
    questions = tuple(KeyedQuestion(**question) for question in data["questions"])
    words = [word for question in questions for word in asdict(question).values()]
    network, work = data.get("network", ""), data.get("work", "")
    words += [data["questionnaire"], data["faces_sha256"], network, work]
    ids = {question.id for question in questions}
    if not all(isinstance(word, str) for word in words) or len(ids) != len(questions):
        raise ValueError("not words, or a question twice")
    if not questions or any(question.right not in CHOICES for question in questions):
        raise ValueError("no question, or an unknown choice")
    return Key(data["questionnaire"], data["faces_sha256"], questions, network, work)
