"""The nouns of an audit as they stand in ``result.json``: plain, frozen, without tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from leakaudit.core.study import Study

SCHEMA_VERSION = 1

LeakGrows = Literal["up", "down", "neither"]
Severity = Literal["serious", "note"]
GateStatus = Literal["pass", "fail", "inconclusive"]
GateSeverity = Literal["fail", "warn"]
VerdictStatus = Literal["pass", "fail", "inconclusive", "ungated"]
ComparisonKind = Literal["false-security", "defence", "chosen"]


@dataclass(frozen=True)
class Score:
    """One privacy number with its interval.

    ``value``, ``low`` and ``high`` share ``unit``; ``None`` says that the metric could not be
    measured, and ``note`` says why. ``floor`` is what an adversary without the feature reaches,
    ``ceiling`` what the originals give; ``excess``, for identification rates only, is
    ``(value - floor) / (1 - floor)``. ``leak_grows`` tells which direction is bad for
    the person. ``per_face`` holds one number a face in the order of the subject's faces.
    """

    defence: str
    attack: str
    threat: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str
    leak_grows: LeakGrows
    floor: float | None = None
    ceiling: float | None = None
    excess: float | None = None
    note: str | None = None
    per_face: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Utility:
    """What the cloud's task keeps: a number on released features and its drop against ``none``.

    ``drop`` is positive when utility was lost; its interval is paired over the same faces.
    """

    defence: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    note: str | None = None


@dataclass(frozen=True)
class Convergence:
    """How hard an attack (or a defence's own optimiser) worked.

    ``encoder_passes`` counts faces sent forward through the encoder, a backward pass counted as two
    more; ``curve`` is a thinned loss curve; ``last_change`` is the relative change of the loss over
    the last half of the steps. Passes follow from the plan's budget. ``queries`` counts releases of
    his own pictures that the adversary asked of the defended pipeline; attacks share them.
    """

    defence: str
    attack: str
    steps: int
    encoder_passes: int
    final_loss: float | None
    last_change: float | None
    converged: bool
    seconds: float
    curve: tuple[float, ...] = ()
    note: str | None = None
    queries: int = 0


@dataclass(frozen=True)
class Comparison:
    """The difference of two rows on the same faces, with an interval that is paired over them.

    ``difference`` is row minus ``other``, in the metric's unit, positive where the row leaks more.
    By ``kind``: ``false-security`` is a defence's ``worst-adaptive`` minus its ``worst-static``;
    ``defence`` is its ``worst`` minus that of the defence ``other``; ``chosen`` is its ``chosen``
    minus the best single attack, ``other``. ``note`` tells how the interval was widened for many
    comparisons. ``n`` is the number of independent units, as in an interval.
    """

    kind: ComparisonKind
    defence: str
    other: str
    attack: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    n: int
    note: str | None = None


@dataclass(frozen=True)
class MapGroup:
    """Where one crowd of latents lies on a map: draws of the prior, or answers of the attack.

    ``defence`` is ``None`` for the prior's own draws. ``centre`` and ``spread`` (root mean square
    of the distance from it) are of all ``n``; ``points`` are at most 200 of them, by place and
    not by face, and none where the gallery is ``none``.
    """

    defence: str | None
    n: int
    centre: tuple[float, float]
    spread: float
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class LatentMap:
    """A plane through the prior's latent space (``dimensions``) with an attack's answers on it.

    ``explained`` is the share of the variance of all groups together on either axis.
    """

    attack: str
    dimensions: int
    explained: tuple[float, float]
    groups: tuple[MapGroup, ...]


@dataclass(frozen=True)
class Win:
    """How many faces an attack names behind a defence, and how many of them only this one names.

    ``only`` is against all other attacks that count in the worst case of this defence; ``chosen``
    is the number of faces for which the adversary took this attack's guess, ``None`` where he
    chose nothing.
    """

    defence: str
    attack: str
    named: int
    only: int
    chosen: int | None = None


@dataclass(frozen=True)
class Doubt:
    """An argument against the audit's own result; it bears only on gates that read ``rows``.

    ``rows`` lists ``(defence, attack)`` pairs, ``("*", "*")`` for the whole run; with ``metrics``
    it speaks of these only, as one about a further judge does.
    """

    id: str
    severity: Severity
    raised_if: str
    why: str
    what_to_do: str
    rows: tuple[tuple[str, str], ...] = (("*", "*"),)
    metrics: tuple[str, ...] = ()

    def bears_on(self, defence: str, attack: str) -> bool:
        """Whether this doubt speaks of this row."""
        return any(d in ("*", defence) and a in ("*", attack) for d, a in self.rows)


@dataclass(frozen=True)
class Suppression:
    """Who answers for a gate that shall not count until ``expires`` (an ISO date), and why.

    ``active`` says whether it stood when it was judged; an expired one lets its gate count again.
    """

    reason: str
    owner: str
    expires: str
    active: bool


@dataclass(frozen=True)
class GateResult:
    """One threshold, the number it was held against and how it ended.

    A gate of severity ``warn``, or one that is suppressed, is told in every output but doesn't
    count in the verdict. ``id``, ``file`` and ``line`` say where a policy asked for it. ``layer``
    is set where several layers were scanned.
    """

    expr: str
    value: float | None
    bound: float | None
    threshold: float
    status: GateStatus
    reason: str
    defence: str | None = None
    attack: str | None = None
    metric: str | None = None
    id: str | None = None
    severity: GateSeverity = "fail"
    suppressed: Suppression | None = None
    file: str | None = None
    line: int | None = None
    layer: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the verdict and the exit code hear of this gate."""
        return self.severity == "fail" and not self.is_suppressed

    @property
    def is_suppressed(self) -> bool:
        """Whether a suppression stands that has not expired."""
        return self.suppressed is not None and self.suppressed.active


@dataclass(frozen=True)
class Verdict:
    """The one conclusion that terminal, files and the exit code share."""

    status: VerdictStatus
    reason: str
    exit_code: int


@dataclass(frozen=True)
class Figure:
    """What one target's row came to at one setting; ``fitted`` is the monotone fit over settings.

    ``value``, ``low`` and ``high`` are the row's, None where it wasn't measured.
    """

    target: str
    value: float | None
    low: float | None
    high: float | None
    fitted: float | None
    holds: bool


@dataclass(frozen=True)
class Tried:
    """One setting of a tuned defence: the label of its rows, and a figure a target."""

    value: float
    label: str
    figures: tuple[Figure, ...]


TuningStatus = Literal["met", "missed", "undecided"]


@dataclass(frozen=True)
class Tuning:
    """The search for the setting of one defence at which all targets hold.

    ``spec`` is the defence with ``auto`` for the setting ``knob``; ``chosen`` the setting that was
    found and ``label`` its rows', None where no setting tried meets the targets. Below ``low`` a
    target surely fails and from ``high`` on all surely hold, as far as single intervals tell.
    """

    spec: str
    knob: str
    targets: tuple[str, ...]
    status: TuningStatus
    reason: str
    chosen: float | None
    label: str | None
    low: float | None
    high: float | None
    tried: tuple[Tried, ...]


SHARES = ("identification", "verification", "auc", "accuracy")
"""How the names of metrics begin that are shares, 0 to 1."""
_AT_MOST_ONE = (*SHARES, "ssim", "feature_similarity")
RATES = ("identification", "identification_top5", "verification")
"""Shares of faces that are named or matched; a further judge's have his name behind a hyphen."""


def is_rate(metric: str) -> bool:
    """Whether a metric is a share of named faces, the main judge's or another one's."""
    return metric.partition("-")[0] in RATES


def out_of_reach(metric: str, op: str, threshold: float) -> str | None:
    """Which end of its range keeps a metric from ever being on this side of a threshold, if any.

    As a gate's, such a threshold is never breached.
    """
    strict = len(op) == 1
    if op[0] == ">" and metric.startswith(_AT_MOST_ONE):
        return "above 1" if threshold > 1 or (strict and threshold == 1) else None
    if op[0] == "<" and (is_rate(metric) or metric in ("lpips", "psnr", "epsilon_pii")):
        return "below 0" if threshold < 0 or (strict and threshold == 0) else None
    return None


OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
"""What holds where a comparison doesn't: of a gate it is the target, and the other way round."""


def path_of(target: str) -> str:
    """Attack and metric of a target ``[ATTACK.]METRIC<=NUMBER``."""
    return target.replace(">", "<").partition("<")[0].strip()


@dataclass(frozen=True)
class Adversary:
    """One threat model as the report prints it, read from the type that the attack was handed."""

    threat: str
    attacks: tuple[str, ...]
    holds: tuple[str, ...]
    never_holds: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery: a PNG as a ``data:`` URI, or nothing where faces are withheld."""

    role: str  # original, undefended, defended
    defence: str
    attack: str
    png: str | None
    named: bool | None
    similarity: float | None


@dataclass(frozen=True)
class GalleryRow:
    """One person of the gallery, chosen by a stated rule (worst, median, best)."""

    rule: str
    person: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Result:
    """All that a finished audit says; ``result.json`` is this object and reports only render it.

    Where several layers were scanned this is the first of them, ``layers`` holds the others, which
    hold none in turn, and gates and verdict are over all of them (see ``audit.by_layer``).
    """

    tool: Mapping[str, str]
    created: str
    command: str
    seed: int
    device: str
    subject: Mapping[str, Any]
    plan: Mapping[str, Any]
    scores: tuple[Score, ...]
    utility: tuple[Utility, ...]
    convergence: tuple[Convergence, ...]
    doubts: tuple[Doubt, ...]
    gates: tuple[GateResult, ...]
    verdict: Verdict
    adversaries: tuple[Adversary, ...] = ()
    gallery_mode: str = "none"
    gallery: tuple[GalleryRow, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    comparisons: tuple[Comparison, ...] = ()
    wins: tuple[Win, ...] = ()
    tuning: tuple[Tuning, ...] = ()
    study: Study | None = None
    maps: tuple[LatentMap, ...] = ()
    layers: tuple[Result, ...] = ()

    def studied(self, tuned: Tuning) -> bool:
        """Whether a target of this search read what an attack made that had studied the defence."""
        label = tuned.label or (tuned.tried[-1].label if tuned.tried else "")
        ran = {s.attack for s in self.scores if s.defence == label and s.value is not None}
        kinds = (row for row in self.adversaries if row.threat.startswith("Adaptive"))
        adaptive = ran & {attack for row in kinds for attack in row.attacks}
        read = {path_of(target).rpartition(".")[0] or "worst" for target in tuned.targets}
        joint = {"worst", "worst-adaptive", "chosen"}
        return bool(adaptive) and bool(read & (joint | adaptive))

    def score(self, defence: str, attack: str, metric: str) -> Score | None:
        """The score of this row, or ``None`` where it wasn't measured."""
        for score in self.scores:
            if (score.defence, score.attack, score.metric) == (defence, attack, metric):
                return score
        return None

    def to_json(self) -> dict[str, Any]:
        """A dictionary of strict JSON types, in the order of the schema.

        What only results of several layers have is left out of those of one.
        """
        raw = asdict(replace(self, layers=()))
        head = ("schema_version", "tool", "created", "command", "seed", "device", "subject", "plan")
        data = {key: _plain(raw[key]) for key in (*head, *(k for k in raw if k not in head))}
        for gate in data["gates"]:
            if gate["layer"] is None:
                del gate["layer"]
        data["layers"] = [layer.to_json() for layer in self.layers]
        if not self.layers:
            del data["layers"]
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Result:
        """The result that ``to_json`` wrote (validated at the door by ``report.json``)."""
        kinds: dict[str, Any] = {
            "scores": Score,
            "utility": Utility,
            "convergence": Convergence,
            "comparisons": Comparison,
            "wins": Win,
        }
        values = dict(data)
        for key, kind in kinds.items():  # results of older versions know no comparisons or wins
            values[key] = tuple(kind(**_tuples(row)) for row in data.get(key, ()))
        values["maps"] = tuple(_latent_map(row) for row in data.get("maps", ()))
        values["gates"] = tuple(_gate(row) for row in data["gates"])
        values["doubts"] = tuple(
            Doubt(
                **{
                    **row,
                    "rows": tuple(tuple(pair) for pair in row["rows"]),
                    "metrics": tuple(row.get("metrics", ())),
                }
            )
            for row in data["doubts"]
        )
        values["tuning"] = tuple(_tuning(row) for row in data.get("tuning", ()))
        values["verdict"] = Verdict(**data["verdict"])
        values["adversaries"] = tuple(Adversary(**_tuples(a)) for a in data["adversaries"])
        values["gallery"] = tuple(
            GalleryRow(
                rule=row["rule"],
                person=row["person"],
                pictures=tuple(Picture(**picture) for picture in row["pictures"]),
            )
            for row in data["gallery"]
        )
        study = data.get("study")
        values["study"] = None if study is None else Study.from_json(study)
        values["layers"] = tuple(Result.from_json(layer) for layer in data.get("layers", ()))
        return Result(**values)


def _gate(row: Mapping[str, Any]) -> GateResult:
    """Gates of older results know no suppression."""
    known = row.get("suppressed")
    return GateResult(**{**row, "suppressed": None if known is None else Suppression(**known)})


def _tuning(row: Mapping[str, Any]) -> Tuning:
    tried = tuple(
        Tried(one["value"], one["label"], tuple(Figure(**figure) for figure in one["figures"]))
        for one in row["tried"]
    )
    return Tuning(**{**_tuples(row), "tried": tried})


def _latent_map(row: Mapping[str, Any]) -> LatentMap:
    groups = tuple(
        MapGroup(**{**_tuples(group), "points": tuple(map(tuple, group.get("points", ())))})
        for group in row["groups"]
    )
    return LatentMap(**{**_tuples(row), "groups": groups})


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()}


def _plain(value: Any) -> Any:
    """Tuples as lists, mappings as dicts, and no number that JSON can't hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
