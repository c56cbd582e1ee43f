"""Results of several layers joined into one, with gates and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leakaudit.audit.gates import conclude
from leakaudit.core.by_layer import depth_of, layer_of, parts
from leakaudit.core.types import Result


def joined(results: Sequence[Result]) -> Result:
    """One result of several layers: the first asked for, the others behind it by depth.

    Its gates are those of all layers, each with its layer's name, and its verdict is over all.
    A single result stays as it is.
    """
    if len(results) == 1:
        return results[0]
    named = [_named(result) for result in results]
    first, others = named[0], sorted(named[1:], key=depth_of)
    gates = tuple(gate for result in (first, *others) for gate in result.gates)
    scores = {layer_of(result): result.scores for result in (first, *others)}
    doubts = [doubt for result in (first, *others) for doubt in result.doubts]
    verdict = conclude(gates, first.scores, scores, doubts)
    return replace(first, layers=tuple(others), gates=gates, verdict=verdict)


def _named(result: Result) -> Result:
    name = layer_of(result)
    own = tuple(replace(gate, layer=name) for gate in result.gates)
    return replace(result, gates=own, verdict=conclude(own, result.scores, doubts=result.doubts))


def concluded(result: Result) -> tuple[Result, ...]:
    """One result a layer, each with gates and a verdict of its own; a single one is itself."""
    if not result.layers:
        return (result,)
    return tuple(
        replace(part, verdict=conclude(part.gates, part.scores, doubts=part.doubts))
        for part in parts(result)
    )


def by_name(result: Result) -> Mapping[str, Result]:
    """The parts by their layers' names."""
    return {layer_of(part): part for part in parts(result)}


def without_pictures(result: Result) -> Result:
    """The same with the gallery of its first layer only, so that files stay small."""
    others = (replace(layer, gallery_mode="none", gallery=()) for layer in result.layers)
    return replace(result, layers=tuple(others))
