"""Leakage by depth: the rows of a result of several layers, picked and put in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from leakaudit.core.by_layer import by_depth, layer_of, number, parts
from leakaudit.core.types import Doubt, GateResult, Result, Score, Utility, Win
from leakaudit.report import contrasts, view, words
from leakaudit.report.where import Safety, safety

SAFETY: dict[Safety, tuple[str, str]] = {
    "safe": ("pass", "Gates hold"),
    "breached": ("fail", "Breached"),
    "undecided": ("inconclusive", "Undecided, not safe"),
    "unasked": ("ungated", "No gate"),
}
"""Status of the sign and words for what the gates say of a layer."""

_NAME_LENGTH = 40
_SETTING = re.compile(r"([^,:=]+=[^,]*)")


@dataclass(frozen=True)
class Cell:
    """One defence at one layer: who is named at worst, by which attack most, and what it cost.

    ``chosen`` are the settings that this layer has and others haven't, as they were tuned at each.
    """

    defence: str
    chosen: str
    worst: Score | None
    floor: float | None
    ceiling: float | None
    best: Win | None
    auc: Utility | None


@dataclass(frozen=True)
class LayerRow:
    """One layer: where it lies, how large a face's feature is, and a cell a defence."""

    layer: str
    depth: float | None
    shape: tuple[int, ...]
    megabytes: float | None
    cells: tuple[Cell | None, ...]
    safety: Safety
    report: str

    @property
    def told(self) -> str:
        """Depth, shape and size on one line; what isn't known is left out."""
        parts = [] if self.depth is None else [f"depth {self.depth:.2f}"]
        parts += ["×".join(map(str, self.shape))] if self.shape else []
        parts += [] if self.megabytes is None else [f"{self.megabytes:.3g} MB a face"]
        return " · ".join(parts)


def defences(result: Result) -> tuple[str, ...]:
    """The headings of all defences, ``none`` first as each part writes it.

    One whose setting differs from layer to layer is told as ``crafter:beta=…``.
    """
    return tuple(map(_heading, _columns(result)))


def _columns(result: Result) -> tuple[tuple[str, ...], ...]:
    """The labels that stand in one column: of one defence, tuned at each layer, or one only."""
    labels = [view.defences(part) for part in parts(result)]
    if len({len(names) for names in labels}) == 1:  # all layers have the defences in one order
        joint = tuple(tuple(dict.fromkeys(names)) for names in zip(*labels, strict=True))
        alone = len({label for names in joint for label in names}) == sum(map(len, joint))
        kinds = [{name.partition(":")[0] for name in names} for names in joint]
        if alone and all(len(kind) == 1 for kind in kinds):
            return joint
    return tuple((name,) for name in dict.fromkeys(name for names in labels for name in names))


def _heading(labels: Sequence[str]) -> str:
    cut = [_SETTING.split(label) for label in labels]
    if len({len(pieces) for pieces in cut}) > 1:
        return f"{labels[0].partition(':')[0]}:…"
    same = zip(*cut, strict=True)
    return "".join(
        pieces[0] if len(set(pieces)) == 1 else f"{pieces[0].partition('=')[0]}=…"
        for pieces in same
    )


def _chosen(label: str, heading: str) -> str:
    """What of a label its heading doesn't tell."""
    told = set(_SETTING.split(heading))
    return ",".join(piece for piece in _SETTING.findall(label) if piece not in told)


def rows(result: Result) -> tuple[LayerRow, ...]:
    """One row a layer from shallow to deep; empty where only one was scanned."""
    if not result.layers:
        return ()
    columns = _columns(result)
    return tuple(_row(part, columns, result) for part in by_depth(result))


def _row(part: Result, columns: Sequence[Sequence[str]], whole: Result) -> LayerRow:
    known = view.defences(part)
    own = [next((name for name in labels if name in known), None) for labels in columns]
    shape = part.subject.get("feature_shape")
    name = layer_of(part)
    return LayerRow(
        layer=name,
        depth=number(part.subject.get("depth")),
        shape=tuple(shape) if isinstance(shape, (list, tuple)) else (),
        megabytes=number(part.subject.get("megabytes")),
        cells=tuple(
            None if name is None else _cell(part, name, _heading(labels))
            for name, labels in zip(own, columns, strict=True)
        ),
        safety=safety(part),
        report=report_name(whole, name),
    )


def _cell(part: Result, defence: str, heading: str) -> Cell:
    line = view.headline(part, defence)
    best = contrasts.foremost(part, defence, most=1)
    return Cell(
        defence, _chosen(defence, heading), line.worst, line.floor, line.ceiling,
        best[0] if best else None, line.auc,
    )  # fmt: skip


def report_name(result: Result, layer: str) -> str:
    """The file of this layer's own report: letters, digits, dots and dashes, once for each."""
    names = [layer_of(part) for part in parts(result)]
    slugs = [re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_NAME_LENGTH] for name in names]
    place = names.index(layer)
    same = [k for k, slug in enumerate(slugs) if slug.lower() == slugs[place].lower()]
    again = f"-{same.index(place) + 1}" if len(same) > 1 else ""
    return f"report-{slugs[place]}{again}.html"


def doubts(result: Result) -> tuple[tuple[str | None, Doubt], ...]:
    """All doubts, serious first, each with its layer where several were scanned."""
    if not result.layers:
        return tuple((None, doubt) for doubt in view.doubts(result))
    found = [(layer_of(part), doubt) for part in parts(result) for doubt in view.doubts(part)]
    return tuple(sorted(found, key=lambda pair: pair[1].severity != "serious"))


def grouped_doubts(result: Result) -> tuple[tuple[str | None, Doubt], ...]:
    """The same for a reader: one line for a doubt that several layers share, with all of them."""
    found: dict[tuple[str, str, str], list[tuple[str | None, Doubt]]] = {}
    for layer, doubt in doubts(result):
        found.setdefault(_alike(doubt), []).append((layer, doubt))
    return tuple((_joined([layer for layer, _ in same]), same[0][1]) for same in found.values())


def reasons(result: Result, doubt: Doubt) -> tuple[str, ...]:
    """What was seen, once for each layer or defence that this doubt is about."""
    same = (other for _, other in doubts(result) if _alike(other) == _alike(doubt))
    return tuple(dict.fromkeys(other.why for other in same))


def _alike(doubt: Doubt) -> tuple[str, str, str]:
    """What doubts have in common that are told as one."""
    return doubt.id, doubt.raised_if, doubt.what_to_do


def _joined(layers: Sequence[str | None]) -> str | None:
    names = [layer for layer in layers if layer is not None]
    return ", ".join(dict.fromkeys(names)) or None


def bearing(result: Result, gate: GateResult) -> tuple[Doubt, ...]:
    """The doubts that bear on this gate, of its own layer only."""
    if not (gate.defence and gate.attack):
        return ()
    return tuple(
        doubt
        for layer, doubt in doubts(result)
        if layer in (None, gate.layer) and doubt.bears_on(gate.defence, gate.attack)
    )


def limit(result: Result) -> float | None:
    """The one threshold that gates set to who is named at worst; ``None`` for none or several."""
    found = {
        gate.threshold
        for gate in result.gates
        if (gate.attack, gate.metric) == ("worst", "identification") and ">" in gate.expr
        and " worse than in " not in gate.expr
    }  # fmt: skip
    return found.pop() if len(found) == 1 else None


def utility_told(row: LayerRow) -> str:
    """The task's AUC on undefended features, and what each defence takes off it."""
    cells = [cell for cell in row.cells if cell is not None and cell.auc is not None]
    told = []
    for cell in cells:
        if cell.auc is None:
            continue
        if cell.defence == "none":
            told.append(f"AUC {words.area(cell.auc.value)}")
        elif cell.auc.drop is not None:
            told.append(f"{cell.defence} drop {words.area(cell.auc.drop)}")
    return "; ".join(told)
