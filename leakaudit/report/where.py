"""Where may one split: what the gates say of each scanned layer, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from leakaudit.core.by_layer import by_depth, layer_of
from leakaudit.core.types import Result
from leakaudit.report.asked import on_privacy
from leakaudit.report.words import percent

Safety = Literal["safe", "breached", "undecided", "unasked"]


def safety(part: Result) -> Safety:
    """What the gates say of splitting at this layer.

    ``safe`` only where some gate that bounds leakage counts and all hold, those that are suppressed
    or only warn too: what isn't decided isn't safe. A gate that asks whether the audit could tell
    anything, that holds a layer against a baseline, or whose threshold no value reaches, makes
    nothing safe.
    """
    status = {gate.status for gate in part.gates}
    if status - {"pass"}:
        return "breached" if "fail" in status else "undecided"
    bounded = any(gate.counts and on_privacy(gate, part) for gate in part.gates)
    return "safe" if bounded else "unasked"


@dataclass(frozen=True)
class Answer:
    """Where one may split, in a sentence for a heading and in full; ``at`` is the shallowest."""

    short: str
    full: str
    at: str | None


def where_to_split(result: Result) -> Answer:
    """What the scanned layers say on where the network may be split."""
    layers = by_depth(result)
    found = {kind: [p for p in layers if safety(p) == kind] for kind in _KINDS}
    if len(found["unasked"]) == len(layers):
        return _unasked(layers)
    told = [_told(kind, found[kind]) for kind in _KINDS if found[kind]]
    told += _read(result)
    safe = found["safe"]
    if not safe:
        return Answer("No layer that was asked for is safe.", " ".join(told), None)
    name = layer_of(safe[0])
    deeper = layers[layers.index(safe[0]) + 1 :]
    open_ones = [layer_of(part) for part in deeper if safety(part) != "safe"]
    if open_ones:
        told.append(
            f"Deeper is not safer here by itself: {_and(open_ones)} "
            f"{'lies' if len(open_ones) == 1 else 'lie'} behind {name} and "
            f"{'is' if len(open_ones) == 1 else 'are'} not safe."
        )
    short = f"{name} is the shallowest layer of those asked for at which the gates hold."
    return Answer(short, " ".join(told), name)


_KINDS: tuple[Safety, ...] = ("safe", "breached", "undecided", "unasked")


def _told(kind: Safety, found: Sequence[Result]) -> str:
    names = _and([layer_of(part) for part in found])
    return {
        "safe": f"All gates hold at {names}, against these attacks and with this budget.",
        "breached": f"A gate is breached at {names}.",
        "undecided": f"Undecided, which is not safe, at {names}.",
        "unasked": f"No gate that bounds what leaks counts at {names}.",
    }[kind]


def _read(result: Result) -> list[str]:
    """Which defences the gates looked at: a layer is safe behind those only."""
    names = list(dict.fromkeys(gate.defence for gate in result.gates if gate.defence))
    if not names:
        return []
    if names == ["none"]:
        return ["The gates read undefended features."]
    return [f"The gates read {_and(names)} only: nothing is said of other releases."]


def _unasked(layers: Sequence[Result]) -> Answer:
    """Without gates nothing is called safe; the least leaky layer is named with its number."""
    short = "No gate that bounds what leaks was asked for, so no layer is called safe."
    measured = [
        (row.value, layer_of(part))
        for part in layers
        if (row := part.score("none", "worst", "identification")) is not None
        and row.value is not None
    ]
    if not measured:
        return Answer(short, "Who is named was not measured.", None)
    (least, low), (most, high) = min(measured), max(measured)
    if least == most:
        return Answer(
            short, f"Undefended, {percent(least)} are named at worst at every layer.", None
        )
    told = f"Undefended, fewest are named at worst at {low} ({percent(least)}), most at {high}"
    return Answer(short, f"{told} ({percent(most)}).", None)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
