"""Which finding bears on which entry of public catalogues, and what it does not show there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from leakaudit.core.types import Result


@dataclass(frozen=True)
class Reference:
    """An entry of a catalogue. ``bears`` says what a finding tells of it, ``not_shown`` what not.

    ``tag`` is short and stable, for machines; ``measured`` is false where nothing here bears on it.
    """

    tag: str
    source: str
    title: str
    bears: str
    not_shown: str
    measured: bool = True


IRREVERSIBILITY = Reference(
    "iso-24745/irreversibility",
    "ISO/IEC 24745",
    "Irreversibility",
    "The attacks try to get face and identity back from the released feature; each reconstruction "
    "that names its person speaks against irreversibility.",
    "Low numbers don't prove irreversibility: the standard asks that nothing about the sample can "
    "be determined, the audit tries some attacks with some budget. Features that are sent for a "
    "task aren't stored biometric references, so the requirement is taken over by analogy.",
)
UNLINKABILITY = Reference(
    "iso-24745/unlinkability",
    "ISO/IEC 24745",
    "Unlinkability",
    "Linkage attacks name the person of a release without a picture, from other pictures of the "
    "same people: what they name is linked.",
    "Two releases of different systems, keys or defences are not held against each other, so "
    "cross-matching between applications, which the standard means, is not "
    "tested.",
)
RENEWABILITY = Reference(
    "iso-24745/renewability",
    "ISO/IEC 24745",
    "Renewability",
    "Nothing here bears on it.",
    "Whether releases can be revoked and made anew from the same face isn't measured.",
    measured=False,
)
ML03 = Reference(
    "owasp/ml03-2023",
    "OWASP Machine Learning Security Top 10 (2023, draft)",
    "ML03:2023 Model Inversion Attack",
    "The audit is such an attack: the model's output, here an intermediate feature, is used to get "
    "confidential information about the input.",
    "Access control, input validation and monitoring, which the entry asks for, aren't looked at.",
)
ATLAS = Reference(
    "mitre-atlas/AML.T0024.001",
    "MITRE ATLAS",
    "AML.T0024.001 Invert AI Model (under AML.T0024 Exfiltration via AI Inference API)",
    "The nearest technique of the catalogue: attacks use the pipeline as an interface and learn to "
    "invert it.",
    "The technique speaks of the training data behind confidence scores. The audit inverts "
    "features of pictures sent at inference; what leaks of the training data isn't measured.",
)
REFERENCES = (IRREVERSIBILITY, UNLINKABILITY, RENEWABILITY, ML03, ATLAS)

_INVERSION = (IRREVERSIBILITY, ML03, ATLAS)
METRICS: Mapping[str, tuple[Reference, ...]] = MappingProxyType(
    {
        "identification": _INVERSION,
        "identification_top5": _INVERSION,
        "identification_excess": _INVERSION,
        "feature_similarity": _INVERSION,
        "verification": _INVERSION,
        "ssim": _INVERSION,
        "psnr": _INVERSION,
        "lpips": _INVERSION,
        "macro_f1": _INVERSION,  # of the human study
    }
)
"""What a privacy metric bears on. ε-PII is of the crowd, utility of the task: they bear on none."""


def references(metric: str | None, attack: str | None) -> tuple[Reference, ...]:
    """The entries on which a row bears.

    Identification by a linkage attack, or by any attack where some linkage attack may be among
    them, bears on unlinkability as well. Utility rows, controls and originals bear on none.
    """
    name = attack or ""
    if name in ("utility", "original") or name.startswith("control-"):
        return ()
    found = METRICS.get((metric or "").partition("-")[0], ())  # behind it stands a further judge
    if found and (metric or "").startswith("identification") and _links(name):
        return (*found, UNLINKABILITY)
    return found


def _links(attack: str) -> bool:
    return "linkage" in attack or attack.startswith("worst") or attack == "chosen"


def tags(metric: str | None, attack: str | None) -> list[str]:
    """The tags of the entries on which a row bears, for machines."""
    return [reference.tag for reference in references(metric, attack)]


@dataclass(frozen=True)
class Bearing:
    """An entry with the metrics of a result that bear on it, none where it isn't measured."""

    reference: Reference
    metrics: tuple[str, ...]


def bearings(result: Result) -> tuple[Bearing, ...]:
    """Every entry with what this result measured of it; entries without anything stay visible."""
    rows = [(s.metric, s.attack) for s in result.scores if s.value is not None]
    linked = any("linkage" in attack for _, attack in rows)
    return tuple(Bearing(reference, _of(reference, rows, linked)) for reference in REFERENCES)


def _of(reference: Reference, rows: Iterable[tuple[str, str]], linked: bool) -> tuple[str, ...]:
    """Worst cases bear on unlinkability only where some linkage attack was run."""
    if reference is UNLINKABILITY and not linked:
        return ()
    return tuple(dict.fromkeys(m for m, attack in rows if reference in references(m, attack)))
