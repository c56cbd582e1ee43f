"""A result of several layers taken apart: one result a layer, with its name and its depth."""

from __future__ import annotations

from dataclasses import replace

from leakaudit.core.types import Result

UNKNOWN = 2.0
"""Stands for a depth that isn't known: behind all others."""


def layer_of(result: Result) -> str:
    """The layer at which this result, or the first of its parts, was measured."""
    return str(result.subject.get("layer", "?"))


def parts(result: Result) -> tuple[Result, ...]:
    """One result a layer as it stands in the file, each with its own gates; a single one is itself.

    The first keeps the verdict over all layers: ``audit.by_layer`` makes one of its own.
    """
    if not result.layers:
        return (result,)
    return tuple(_own(part, result) for part in (replace(result, layers=()), *result.layers))


def _own(part: Result, whole: Result) -> Result:
    name = layer_of(part)
    return replace(part, gates=tuple(gate for gate in whole.gates if gate.layer == name))


def by_depth(result: Result) -> tuple[Result, ...]:
    """The parts from shallow to deep; those of unknown depth last, as they stand."""
    return tuple(sorted(parts(result), key=depth_of))


def depth_of(part: Result) -> float:
    """The share of multiply-adds done at this layer, ``UNKNOWN`` where that isn't known."""
    depth = number(part.subject.get("depth"))
    return UNKNOWN if depth is None else depth


def number(value: object) -> float | None:
    """A number of the subject, ``None`` where it is something else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)
