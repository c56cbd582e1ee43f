"""Where a scan's prior comes from: the user's, the run folder, the cache, or a training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from leakaudit.audit.estimate import Countdown, in_words
from leakaudit.core.cache import VARIABLE, cache_folder
from leakaudit.core.errors import LeakauditError, RunError, UsageError
from leakaudit.core.files import atomic_write, sweep
from leakaudit.core.types import Doubt
from leakaudit.models.generators import Prior
from leakaudit.models.modules import identity_of
from leakaudit.models.own_prior import load_own_prior
from leakaudit.models.prior import PriorLog
from leakaudit.models.prior_files import load_prior, read_facts, save_prior
from leakaudit.models.prior_quality import Quality
from leakaudit.models.prior_sessions import PriorTask, seconds_ahead, train_resumably
from leakaudit.models.weights import sha256_of

Say = Callable[[str], None]
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Found:
    """A prior, its hash as ``prior_sha256`` of a result, and a remark on where it comes from."""

    prior: Prior
    sha256: str
    remark: str
    doubts: tuple[Doubt, ...] = ()


def given_prior(spec: str, weights: Path | None, *, size: int, align: str | None = None) -> Found:
    """The prior of ``--prior``: a file that leakaudit wrote, or a user's own ``file.py:factory``.

    ``align`` is how the pictures are aligned that it is for; one of another alignment is doubted.
    Raises UsageError and WeightsError for what can't be used.
    """
    path = Path(spec)
    source = spec.rpartition(":")[0]
    if path.is_file() or not source or os.sep in spec.rpartition(":")[2]:
        if weights is not None:
            raise UsageError(
                "--prior-weights belongs to a generator of your own",
                where=f"--prior {path.name}",
                todo="Give --prior file.py:factory, or leave out --prior-weights",
            )
        prior, facts = load_prior(path, size=size)
        remark = f"nothing for the prior: it was read from {path.name}"
        doubts = (*prior_doubts(facts), *_other_framing(facts, align or "none"))
        return Found(prior, sha256_of(path), remark, doubts)
    own = load_own_prior(spec, weights, size=size)
    sha256 = identity_of(spec, weights, own)
    return Found(own, sha256, f"nothing for the prior: it is the user's own {Path(spec).name}")


def prior_doubts(facts: Mapping[str, str]) -> tuple[Doubt, ...]:
    """What was found of a prior when it was trained (`Quality`), where that wasn't good."""
    try:
        quality = Quality(**json.loads(facts["quality"]))
    except (KeyError, ValueError, TypeError):
        return ()  # another tool's file, or a training inside a scan
    if quality.is_good:
        return ()
    return (
        Doubt(
            "weak-prior",
            "serious" if quality.has_collapsed else "note",
            "the prior was found wanting when it was trained (serious where it collapsed)",
            f"The prior is {quality.words()}: attacks that search it are weak, and a defence that "
            "crafts with it has little to lead faces to.",
            "Train it for longer or on more pictures (leakaudit prior train), and look at its "
            "sheets of samples.",
        ),
    )


def _other_framing(facts: Mapping[str, str], align: str) -> tuple[Doubt, ...]:
    """A prior of other frames makes other pictures; one that doesn't tell its own is believed."""
    own = facts.get("align", align)
    if own == align:
        return ()
    return (
        Doubt(
            "prior-framing",
            "note",
            "the prior was trained on pictures that were aligned in another way",
            f"The prior's pictures were read with --align {own}, these with {align}: unless they "
            "lie in the same frame on disk, attacks that search it look for other faces.",
            f"Say --align {own}, or train a prior with --align {align}.",
        ),
    )


def trained_prior(
    task: PriorTask, kept: Path, *, resume: bool, cache: bool, say: Say, note: Say
) -> Found:
    """The prior of this task, trained unless it lies in the run folder or the cache already.

    It is kept in the file ``kept``, and with ``cache`` in the cache folder too. With ``resume``
    what an interrupted run left in the run folder is taken up. The same bits in any case.
    """
    key, checkpoint = task.key, kept.with_suffix(".checkpoint.safetensors")
    if resume and read_facts(kept).get("key") == key:
        checkpoint.unlink(missing_ok=True)  # killed just before
        prior, _ = load_prior(kept)
        # A resumed run says what it said before it was interrupted.
        return Found(prior, sha256_of(kept), _told(task))
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shelf = _shelf(note) if cache else None
    if shelf is not None and (data := _cached(shelf, key)) is not None:
        atomic_write(kept, data, mode=0o600)
        note(f"Prior: taken from the cache ({shelf}), trained there on these very pictures")
    else:
        _train(task, kept, checkpoint, resume=resume, say=say, note=note)
        if shelf is not None:
            _shelve(shelf, key, kept.read_bytes(), note)
    checkpoint.unlink(missing_ok=True)
    prior, _ = load_prior(kept)  # the same way in any case, so that the bits are the same
    return Found(prior, sha256_of(kept), _told(task))


def _told(task: PriorTask) -> str:
    return f"the prior, on {len(task.images)} public pictures, {task.training.steps} steps"


def _train(
    task: PriorTask, kept: Path, checkpoint: Path, *, resume: bool, say: Say, note: Say
) -> None:
    steps = task.training.steps
    note(
        f"Prior: none is given, so one is trained on {len(task.images)} public pictures, "
        f"{steps} steps, about {in_words(seconds_ahead(task))} on this machine"
    )
    clock = Countdown(steps)

    def tick(done: int, log: PriorLog | None) -> None:
        say(f"training the prior {done}/{steps}, about {clock.left(done)} left")

    prior, _ = train_resumably(task, checkpoint, resume=resume, every=CHECKPOINT_SECONDS, tick=tick)
    save_prior(kept, prior, task.facts())


def _shelf(note: Say) -> Path | None:
    """The cache's folder of priors; none, and a word about it, where it can't be had."""
    try:
        return cache_folder("priors")
    except LeakauditError as error:
        note(f"Prior: not cached. {error}")
        return None


def _cached(shelf: Path, key: str) -> bytes | None:
    """The bytes of the prior of this key, if they are whole."""
    path = shelf / f"{key}.safetensors"
    try:
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        whole = path.is_file() and told["sha256"] == sha256_of(path)
        return path.read_bytes() if whole and read_facts(path).get("key") == key else None
    except (OSError, ValueError, LookupError, TypeError, LeakauditError):
        return None


def _shelve(shelf: Path, key: str, data: bytes, note: Say) -> None:
    path = shelf / f"{key}.safetensors"
    try:
        sweep(shelf, older_than=24 * 3600)
        atomic_write(path, data, mode=0o600)
        told = json.dumps({"sha256": sha256_of(path)})
        atomic_write(path.with_suffix(".json"), told, mode=0o600)
    except (RunError, OSError) as error:
        note(f"Prior: not cached. {error}")
        return
    note(f"Prior: kept in the cache ({shelf}; {VARIABLE} moves it, --no-cache does without)")
