"""How the report says things: metric and attack names in plain words, numbers, cleaned strings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from leakaudit.core.study import Estimate
from leakaudit.core.types import GateResult, Score

ABSENT = "–"

_PERCENT_UNITS = frozenset({"fraction", "share", "rate", "%", "percent"})
_BIDI = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class MetricWords:
    """A metric for a reader who has never met it."""

    title: str
    plain: str
    unit: str


METRICS: Mapping[str, MetricWords] = MappingProxyType(
    {
        "identification": MetricWords(
            "Identification",
            "Share of reconstructions in which an independent face recogniser (the identity "
            "oracle) picks the right person from its gallery.",
            "% of faces",
        ),
        "identification_top5": MetricWords(
            "Identification, top 5",
            "The same, but the right person need only be among the oracle's five best guesses.",
            "% of faces",
        ),
        "identification_excess": MetricWords(
            "Identification above the floor",
            "Identification from 0 where blind guesses, as many as the row has, name people too, "
            "to 1 where everybody is named.",
            "% of what chance leaves",
        ),
        "verification": MetricWords(
            "Verification",
            "Share of reconstructions that the oracle takes for the same person as other pictures "
            "of that person, where it mistakes 1 of 100 strangers.",
            "% of faces",
        ),
        "feature_similarity": MetricWords(
            "Feature similarity",
            "How alike the oracle finds the reconstruction and the original (cosine of their "
            "embeddings).",
            "-1 to 1",
        ),
        "ssim": MetricWords(
            "SSIM",
            "Structural similarity of the two pictures. Any two aligned faces have some: hold it "
            "against the floor. He et al. (2019) take 0.3 and above as recognisable.",
            "-1 to 1",
        ),
        "psnr": MetricWords(
            "PSNR",
            "Pixel error as a signal-to-noise ratio; a blurred but recognisable face scores low, "
            "so identity outranks it.",
            "dB",
        ),
        "lpips": MetricWords(
            "LPIPS",
            "Perceptual distance of the two pictures, judged by a network.",
            "0 and up",
        ),
        "epsilon_pii": MetricWords(
            "ε-PII",
            "Perceptual inversion indistinguishability: distance of all reconstructions together "
            "from a crowd of average public faces.",
            "distance per pixel",
        ),
        "epsilon_rel": MetricWords(
            "ε relative",
            "ε-PII between its floor (0: two crowds of public faces) and its ceiling (1: "
            "undefended reconstructions).",
            "0 to 1",
        ),
        "macro_f1": MetricWords(
            "Recognised by people, Macro-F1",
            "How precisely and completely participants found who is on a reconstruction, among "
            "four people and none of them; guessing gives 0.2.",
            "0 to 1",
        ),
    }
)

ATTACKS: Mapping[str, str] = MappingProxyType(
    {
        "blackbox-decoder": "a network trained to turn features back into pictures",
        "blackbox-ridge": "a linear map from features to pictures, fitted in one step",
        "linkage": "names the person from the feature, without a picture",
        "whitebox-latent": "searches the face prior for a picture with the same feature",
        "whitebox-pixel": "searches the pixels for a picture with the same feature",
        "whitebox-dip": "searches an untrained network's pictures for the same feature",
        "whitebox-hybrid": "refines the other attacks' pictures against the feature",
        "adaptive-decoder": "a decoder trained on the defence's own releases",
        "adaptive-ridge": "a linear map fitted to the defence's own releases",
        "adaptive-linkage": "names the person from the release, having studied the defence",
        "adaptive-prior": "a prior updated on the defence's own releases",
        "adaptive-generator": "a decoder of another kind than the defender's, trained on releases",
        "adaptive-generator-latent": "searches another prior than the defender's",
        "adaptive-averaging": "averages several releases of one picture, then decodes",
        "adaptive-averaging-linkage": "averages several releases, then names the person",
        "adaptive-purifier": "learns to undo the defence, then decodes",
        "adaptive-purifier-latent": "learns to undo the defence, then searches the prior",
        "adaptive-averaging-purifier": "averages several releases, then undoes the defence",
        "linkage-classifier": "has other labelled pictures of the people, and names the feature",
        "linkage-gallery": "matches the feature with a gallery of the people's other pictures",
        "worst-static": "a face counts if any attack that ignores the defence names it",
        "worst-adaptive": "a face counts if any attack that studied the defence names it",
        "worst": "a face counts if any attack names it",
        "chosen": "one guess a face: what all attacks say together, as far as each is trusted",
        "control-prior": "a random face of the prior, feature unseen",
        "control-mean": "the mean public face, feature unseen",
        "control-shuffled": "attacks another person's feature",
        "control-attributes": "sees only what the utility task answers",
        "human": "participants choose among four people, or none of them",
        "original": "the oracle sees the original picture",
    }
)

VERDICTS: Mapping[str, str] = MappingProxyType(
    {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive", "ungated": "Measured"}
)


def gate_told(gate: GateResult) -> str:
    """How a gate ended in words, with what takes its weight: ``Fail, suppressed``."""
    told = VERDICTS[gate.status]
    if gate.status == "pass":
        return told
    if gate.is_suppressed:
        return f"{told}, suppressed"
    return told if gate.counts else f"{told}, warning only"


DIRECTIONS: Mapping[str, str] = MappingProxyType(
    {"up": "higher = more leaks", "down": "lower = more leaks", "neither": "no direction"}
)

_UTILITY: Mapping[str, str] = MappingProxyType(
    {"auc": "AUC, mean over attributes", "accuracy": "Accuracy"}
)


def metric_title(name: str) -> str:
    """The metric's name in words, or the name itself where it is a plug-in's.

    That of a further judge has his name behind a hyphen: ``identification-facenet-vggface2``.
    """
    base, _, judge = name.partition("-")
    if judge and base in METRICS:
        return f"{METRICS[base].title}, judge {judge}"
    return METRICS[name].title if name in METRICS else name


def utility_title(name: str) -> str:
    """A utility metric's name in words; ``auc:smile`` is told as ``AUC, smile``."""
    if name.startswith("auc:"):
        return f"AUC, {name.removeprefix('auc:')}"
    return _UTILITY.get(name, name)


_COMMANDS = re.compile(r":(?=:)|#(?=#)")


def clean(text: str) -> str:
    """``text`` on one line, with nothing in it that could steer a terminal or hide its order.

    Control characters become their visible pictures, line breaks a space; marks that reverse the
    reading direction and halves of surrogate pairs (undecodable file names) become U+FFFD. GitHub
    reads ``::name::`` at the start of a line and ``##[name]`` anywhere in one as a command, Azure
    ``##vso[...]``: a word joiner, which shows nothing, stops all of them.
    """
    shown = "".join(_shown(character) for character in text)
    return _COMMANDS.sub(lambda found: f"{found.group()}\u2060", shown)


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\t\n\r\u2028\u2029":
        return " "
    if code < 0x20:
        return chr(0x2400 + code)
    if character in _BIDI or unicodedata.category(character) in ("Cc", "Cs"):
        return "\ufffd"
    return character


def is_share(metric: str, unit: str) -> bool:
    """Whether the number is a share of faces, and so told in per cent."""
    return metric.startswith(("identification", "verification")) or unit in _PERCENT_UNITS


def percent(value: float | None, *, sign: bool = True) -> str:
    """A fraction in per cent with one decimal, ``–`` where there is none."""
    if value is None:
        return ABSENT
    return f"{100 * value:.1f}%" if sign else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of shares in points of a hundred, with its sign: ``+28.1``."""
    if value is None:
        return ABSENT
    rounded = round(100 * value, 1) + 0.0  # adding zero turns -0.0 into 0.0
    return f"{rounded:+.1f}" if rounded else "0.0"


def number(value: float | None, *, digits: int = 3) -> str:
    """A number with fixed decimals; small ones keep three figures, extremes go to powers of ten."""
    if value is None:
        return ABSENT
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        return f"{value:.2e}"
    if 0 < size < 10.0 ** (1 - digits):
        return f"{value:#.3g}"
    return f"{value + 0.0:.{digits}f}"  # adding zero turns -0.0 into 0.0


def someone(name: str) -> str:
    """Whoever is called ``234`` or ``person 34``, as ``person 234`` and ``person 34``."""
    return name if name.lower().startswith("person") else f"person {name}"


def area(value: float | None) -> str:
    """An AUC, an accuracy or a drop of one: three decimals, of which no more is known."""
    return ABSENT if value is None else f"{round(value, 3) + 0.0:.3f}"


def area_span(low: float | None, high: float | None) -> str:
    """``low to high`` as `area` tells them, or nothing where there is no interval."""
    return "" if low is None or high is None else f"{area(low)} to {area(high)}"


def count(value: int | float | None) -> str:
    """A whole number in groups of three digits."""
    return ABSENT if value is None else f"{value:,.0f}".replace(",", "\u202f")


def seconds(value: float | None) -> str:
    """A duration for a reader: ``0.4 s``, ``35 s``, ``3 min 20 s``."""
    if value is None:
        return ABSENT
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def score_value(score: Score | None) -> str:
    """The score in its own unit, ``–`` where it wasn't measured."""
    return ABSENT if score is None else measure(score.value, score.metric, score.unit)


def measure(value: float | None, metric: str, unit: str) -> str:
    """A number of this metric in its own unit."""
    if value is None:
        return ABSENT
    if is_share(metric, unit):
        return percent(value)
    if unit == "dB" or metric == "psnr":
        return f"{value:.1f} dB"
    return number(value)


def score_interval(score: Score | None) -> str:
    """The interval of a score, ``91.7 to 99.6``, or nothing where there is none."""
    if score is None or score.low is None or score.high is None:
        return ""
    if is_share(score.metric, score.unit):
        return f"{percent(score.low, sign=False)} to {percent(score.high, sign=False)}"
    digits = 1 if score.unit == "dB" or score.metric == "psnr" else 3
    return interval(score.low, score.high, digits=digits)


def estimate(found: Estimate) -> str:
    """A share of a human study with its interval: ``0.251 (0.180 to 0.330)``."""
    span = interval(found.low, found.high)
    return number(found.value) + (f" ({span})" if span else "")


def interval(low: float | None, high: float | None, *, digits: int = 3) -> str:
    """``low to high``, or nothing where there is no interval."""
    if low is None or high is None:
        return ""
    return f"{number(low, digits=digits)} to {number(high, digits=digits)}"
