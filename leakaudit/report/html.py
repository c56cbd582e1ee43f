"""The report as one HTML file: no script, no network, every string escaped."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from leakaudit.core.by_layer import layer_of
from leakaudit.core.types import Comparison, ComparisonKind, Result, Score
from leakaudit.report import (
    contrasts,
    depth,
    depth_figure,
    figures,
    groups,
    mapping,
    maps,
    marks,
    pages,
    steps,
    tuning,
    view,
    words,
)
from leakaudit.report.json import is_png
from leakaudit.report.where import where_to_split

_BREAKS = re.compile(r"(?<=[:,/])|(?<=\.)(?=[a-z])|(?=[<>])")
_DIFFERENCES: tuple[ComparisonKind, ...] = ("defence", "chosen")
_FEW_ATTACKS = 4  # whose every number is shown at once
_LEAST_WIDTH = 0.05  # of a histogram bin, in units of cosine


def render_html(result: Result) -> str:
    """The report as HTML text. Raises ``RunError`` where the shipped templates are missing."""
    template = _environment().get_template("report.html.j2")
    tails = view.tails(result)
    edges = _edges(tails)
    style = pages.shipped("report.css")
    task, per_attribute = view.utility_metrics(result)
    headlines = view.headlines(result)
    defences = view.defences(result)
    parts = groups.attack_groups(result)
    single = [group for group in parts if group.id in groups.SINGLE]
    return template.render(
        result=result,
        style=Markup(style),  # our own file, shipped beside the template
        headlines=[
            row
            for row in headlines
            if not result.tuning or row.defence in tuning.shown_first(result)
        ],
        defences=defences,
        groups=parts,
        single_groups=single,
        joint_groups=[group for group in parts if group.id not in groups.SINGLE],
        few_attacks=sum(len(group.attacks) for group in single) <= _FEW_ATTACKS,
        bounds=lambda group: groups.bounds(result, group),
        without_pictures=groups.without_pictures(result),
        false_security=contrasts.false_security(result),
        winners=contrasts.winners(result, defences),
        differences=_differences(result),
        other_metrics=view.other_metrics(result),
        unmeasured=view.unmeasured(result),
        explained=[name for name in view.metrics(result) if name in words.METRICS],
        direction=lambda metric: words.DIRECTIONS[view.leak_grows(result, metric)],
        gates=view.gates(result),
        doubts=depth.doubts(result),
        serious=[told for told in depth.grouped_doubts(result) if told[1].severity == "serious"],
        points=_points(headlines),
        tradeoff_floor=_shared_floor(headlines),
        tails=tails,
        edges=edges,
        panels=[_panel(score, edges) for score in tails] if edges else [],
        task_metrics=task,
        attribute_metrics=per_attribute,
        utility_row=lambda defence, metric: view.utility(result, defence, metric),
        steps=steps.next_steps(result),
        measured=view.measured(result),
        withheld=view.withheld(result),
        bearings=mapping.bearings(result),
        layer_name=layer_of(result),
        layers=depth.rows(result),
        layer_defences=depth.defences(result),
        split=where_to_split(result) if result.layers else None,
        limit=depth.limit(result),
    )


@functools.cache  # templates take longer to compile than a page to render
def _environment() -> Environment:
    environment = pages.environment(_shown)
    environment.filters.update(
        value=words.score_value,
        interval=words.score_interval,
        percent=words.percent,
        area=words.area,
        someone=words.someone,
        number=words.number,
        count=words.count,
        seconds=words.seconds,
        metric_title=words.metric_title,
        utility_title=words.utility_title,
        settings=settings,
        plain=plain,
        label=label,
    )
    environment.tests["counted"] = lambda gate: not view.is_loose(gate)
    environment.globals.update(
        words=words,
        figures=figures,
        tuning=tuning,
        maps=maps,
        depth=depth,
        depth_figure=depth_figure,
        marks=marks,
        contrasts=contrasts,
        silent_notes=groups.silent_notes,
        area_span=words.area_span,
        span=words.interval,
        measure=words.measure,
        estimate=words.estimate,
        is_png=is_png,
    )
    return environment


def _shown(value: Any) -> Any:
    """What any expression of the template prints: markup as it is, all other text cleaned."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return words.ABSENT
    return words.clean(str(value))


def label(text: str) -> Markup:
    """A name that may break after its punctuation, not within words or numbers."""
    pieces = _BREAKS.split(words.clean(text))
    return Markup("<wbr>").join(piece for piece in pieces if piece)


def plain(value: Any) -> str:
    """A value of the manifest for a reader: strings as they are, shapes as 64 × 16 × 16."""
    if value is None:
        return words.ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        apart = " × " if all(isinstance(item, int) for item in value) else ", "
        return apart.join(plain(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    return str(value)


def settings(table: Any) -> list[tuple[str, str]]:
    """Named settings (``{"crafter:beta=2": {"beta": 2}}``) as name and ``key = value`` text."""
    if not isinstance(table, Mapping):
        return [(plain(item), "") for item in table] if isinstance(table, (list, tuple)) else []
    return [(str(name), _pairs(values)) for name, values in table.items()]


def _pairs(values: Any) -> str:
    if not isinstance(values, Mapping):
        return plain(values)
    return ", ".join(f"{key} = {_compact(value)}" for key, value in values.items())


def _compact(value: Any) -> str:
    return (
        json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else plain(value)
    )


def _points(headlines: tuple[view.Headline, ...]) -> list[figures.Point]:
    """One point a defence where both numbers are known."""
    points = []
    for row in headlines:
        drop, low, high = _lost(row)
        if drop is None or row.worst is None or row.worst.value is None:
            continue
        points.append(
            figures.Point(
                label=row.defence,
                x=drop,
                x_low=low,
                x_high=high,
                y=row.worst.value,
                y_low=row.worst.low,
                y_high=row.worst.high,
            )
        )
    return points


def _lost(row: view.Headline) -> tuple[float | None, float | None, float | None]:
    """The AUC drop with its interval; ``none``, against which drops are taken, has no interval."""
    if row.defence == "none":
        return 0.0, None, None
    if row.auc is None:
        return None, None, None
    return row.auc.drop, row.auc.drop_low, row.auc.drop_high


def _shared_floor(headlines: tuple[view.Headline, ...]) -> float | None:
    """The highest floor, so that the line never flatters a defence."""
    return max((row.floor for row in headlines if row.floor is not None), default=None)


def _differences(result: Result) -> tuple[Comparison, ...]:
    """Comparisons of defences and of choices; false security has a table of its own."""
    both = (contrasts.compared(result, kind) for kind in _DIFFERENCES)
    return tuple(row for rows in both for row in rows)


def _edges(tails: tuple[Score, ...]) -> list[float]:
    """At most twenty equal bins on round numbers that hold all faces, floors and ceilings."""
    values = [value for score in tails for value in (*_faces(score), score.floor, score.ceiling)]
    known = [min(1.0, max(-1.0, value)) for value in values if value is not None]  # cosines
    if not known:
        return []
    low, high = min(known), max(known)
    width = _LEAST_WIDTH if high - low <= 18 * _LEAST_WIDTH else 2 * _LEAST_WIDTH
    first = math.floor(low / width + 1e-9)
    last = max(first + 1, math.ceil(high / width - 1e-9))
    return [round(index * width, 6) for index in range(first, last + 1)]


def _faces(score: Score) -> list[float]:
    return [value for value in score.per_face or () if value is not None]


def _panel(score: Score, edges: list[float]) -> figures.Panel:
    counts = [0] * (len(edges) - 1)
    width = edges[1] - edges[0]
    for value in _faces(score):
        index = math.floor((value - edges[0]) / width + 1e-9)
        counts[min(len(counts) - 1, max(0, index))] += 1
    return figures.Panel(
        label=f"{score.defence} ({score.attack})",
        counts=tuple(counts),
        mean=score.value,
        floor=score.floor,
        ceiling=score.ceiling,
    )
