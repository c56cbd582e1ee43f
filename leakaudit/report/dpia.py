"""An annex for a data protection impact assessment (GDPR Article 35(7)), from the same result.

It carries what was measured under the headings that the assessment must have, leaves to the
controller what only the controller knows, and claims no compliance.
"""

from __future__ import annotations

from collections.abc import Iterable

from leakaudit.core.by_layer import by_depth, layer_of
from leakaudit.core.types import Result, Score
from leakaudit.report import contrasts, depth, mapping, tuning, view, words
from leakaudit.report.html import plain
from leakaudit.report.markdown import code, table, text

TO_FILL = "*To be filled in by the controller:*"
_SIGNS = (
    "encoder", "layer", "feature_shape", "weights_sha256", "head", "prior", "prior_sha256", "oracle"
)  # fmt: skip
_COUNTS = {
    "images": "images", "people": "people", "gallery_people": "gallery people",
    "gallery": "gallery people", "public_images": "public images",
}  # fmt: skip


def render_dpia(result: Result) -> str:
    """The annex as GitHub-flavoured Markdown, every string of others made inert."""
    blocks = [
        "# Annex to a data protection impact assessment: leakage of faces from features",
        "This annex follows the headings of Article 35(7) of the General Data Protection "
        "Regulation (EU) 2016/679. It holds measurements and their limits, made by "
        f"{text(result.tool.get('name', 'leakaudit'))} {text(result.tool.get('version', ''))} at "
        f"{text(result.created)}. It is no assessment by itself, no legal advice and no statement "
        "of compliance. Passages in italics are the controller's to write.",
        *_description(result),
        *_necessity(result),
        *_risks(result),
        *_measures(result),
        *_residual(result),
        *_evidence(result),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _description(result: Result) -> list[str]:
    subject = result.subject
    told = [(key, plain(subject[key])) for key in _SIGNS if subject.get(key) is not None]
    if result.layers:
        names = ", ".join(layer_of(part) for part in by_depth(result))
        told.append(("layers, each by itself in what follows", names))
    counts = [
        (told_as, plain(subject[key]))
        for key, told_as in _COUNTS.items()
        if subject.get(key) is not None
    ]
    return [
        "## 1. Systematic description of the processing (Art. 35(7)(a))",
        "As far as the audit knows it: a picture of a face is run through the first part of a "
        "network (the encoder) where it is taken. The feature that comes out, or what a defence "
        "makes of it, is sent on to a task that runs elsewhere. Whoever holds the feature there, "
        "or reads it on the way, is the adversary of this audit. What of it allows a person "
        "to be identified uniquely is biometric data (Art. 4(14)), and of a special category where "
        "it is processed to identify (Art. 9(1)).",
        _table(("What", "Value"), [*told, *counts]),
        _table(("Released by", "Settings"), _settings(result)),
        f"{TO_FILL} purposes, recipients, retention, categories of data subjects, and any "
        "legitimate interest pursued.",
    ]


def _settings(result: Result) -> list[tuple[str, str]]:
    table = result.plan.get("defences", {})
    rows = table.items() if isinstance(table, dict) else ((name, {}) for name in table)
    return [
        (str(name), plain(values) if values else "no defence or defaults") for name, values in rows
    ]


def _at(result: Result) -> tuple[str, ...]:
    """The heading of a column of layers, where several were scanned."""
    return ("Layer",) if result.layers else ()


def _by_layer(result: Result) -> list[tuple[tuple[str, ...], Result]]:
    """Each layer's part with what stands in that column, from shallow to deep."""
    return [((layer_of(part),) if result.layers else (), part) for part in by_depth(result)]


def _necessity(result: Result) -> list[str]:
    rows = [
        (*at, row.defence, row.metric, _area(row.value, row.low, row.high),
         _area(row.drop, row.drop_low, row.drop_high))
        for at, part in _by_layer(result) for row in part.utility if ":" not in row.metric
    ]  # fmt: skip
    measured = [
        "What the task still gets right on the released features, which is what a proportionality "
        "argument needs to weigh against the risks of section 3:",
        _table((*_at(result), "Released by", "Utility", "Measured", "Drop against none"), rows),
    ]
    return [
        "## 2. Necessity and proportionality (Art. 35(7)(b))",
        f"{TO_FILL} why the features are needed at all, whether less would do (a deeper layer, "
        "fewer features, the task run where the picture is taken), legal basis, information and "
        "rights of data subjects.",
        *(measured if rows else ["Utility was not measured in this run."]),
    ]


def _risks(result: Result) -> list[str]:
    return [
        "## 3. Risks to the rights and freedoms of data subjects (Art. 35(7)(c))",
        "The risk looked at is that somebody who holds the features learns who the people are or "
        "what they look like. Likelihood is told by the share of people that attacks named, "
        "severity by how much of the face came back. Both are measured on the attacked faces only; "
        "the interval is at 95 %, and the floor is what an adversary names without the features.",
        _table(
            (*_at(result), "Released by", "Likelihood: named at worst", "Floor",
             "Ceiling (originals)"),
            [
                (*at, row.defence, _share(row.worst), words.percent(row.floor),
                 words.percent(row.ceiling))
                for at, part in _by_layer(result) for row in view.headlines(part)
            ],
        ),
        _table(
            (*_at(result), "Released by", "Severity: metric", "Attack", "Measured"),
            [(*at, *row) for at, part in _by_layer(result) for row in _severity(part)],
        ),
        *_people(result),
        *_catalogues(result),
        f"{TO_FILL} how probable it is that somebody gets at the features, how many people are "
        "concerned and how vulnerable they are, and what being recognised would mean to them.",
    ]  # fmt: skip


def _severity(result: Result) -> list[tuple[str, ...]]:
    """How much came back: likeness in the worst case, or under the attacker's own choice."""
    rows: list[tuple[str, ...]] = []
    for defence in view.defences(result):
        for metric in ("feature_similarity", "ssim"):
            found = (result.score(defence, attack, metric) for attack in ("worst", "chosen"))
            row = next((s for s in found if s is not None and s.value is not None), None)
            if row is not None:
                rows.append((defence, words.metric_title(metric), row.attack, _share(row)))
    return rows


def _people(result: Result) -> list[str]:
    study = result.study
    if study is None:
        return ["Whether people recognise the reconstructions was not measured."]
    rows = [
        (row.defence, words.estimate(row.macro_f1), words.estimate(row.accuracy), str(row.answers))
        for row in study.rows
    ]
    return [
        f"Whether people recognise the reconstructions ({study.participants} participants; "
        f"guessing gives {study.chance:.3f}): {text(study.reason)}",
        _table(("Released by", "Macro-F1", "Right answers", "Answers"), rows),
    ]


def _catalogues(result: Result) -> list[str]:
    rows = [
        (
            f"{row.reference.source}: {row.reference.title}",
            "; ".join(map(words.metric_title, row.metrics)) or "not measured",
            row.reference.not_shown,
        )
        for row in mapping.bearings(result)
    ]
    head = ("Catalogue", "Findings that bear on it", "What they do not show")
    return ["The findings in the terms of public catalogues:", _table(head, rows)]


def _measures(result: Result) -> list[str]:
    defended = [
        (at, part, row)
        for at, part in _by_layer(result)
        for row in view.headlines(part)
        if row.defence != "none"
    ]
    rows = []
    for at, part, row in defended:
        gap = contrasts.against_none(part, row.defence)
        effect = words.ABSENT if gap is None else contrasts.difference_with_span(gap)
        drop = row.auc
        cost = words.ABSENT if drop is None else _area(drop.drop, drop.drop_low, drop.drop_high)
        rows.append((*at, row.defence, effect, cost))
    shown = [
        "Measured effect of each defence: change of the share named at worst against undefended "
        "features, in points of a hundred (negative is fewer), and what it cost the task.",
        _table((*_at(result), "Measure", "Effect, points", "AUC drop"), rows),
        *_false_security(result),
        "Limits: a defence was tried with these settings against these attacks. An adversary with "
        "more queries, another prior or other knowledge may get further.",
    ]
    return [
        "## 4. Measures envisaged (Art. 35(7)(d))",
        *(shown if rows else ["No defence was measured: the features were attacked as they are."]),
        f"{TO_FILL} access control, encryption in transit and at rest, retention, contracts with "
        "recipients, and how the measures above are kept in place.",
    ]


def _false_security(result: Result) -> list[str]:
    rows = [
        (*at, row.defence, words.score_value(row.static), words.score_value(row.adaptive),
         contrasts.difference_with_span(row.gap), contrasts.meaning(row))
        for at, part in _by_layer(result) for row in contrasts.false_security(part)
    ]  # fmt: skip
    if not rows:
        return ["Whether a defence only looks safe, as attacks don't know it, was not measured."]
    head = (*_at(result), "Measure", "Named by attacks that ignore it", "Having studied it",
            "Gap, points", "False security?")  # fmt: skip
    return [_table(head, rows)]


def _residual(result: Result) -> list[str]:
    status = result.verdict.status
    means = {
        "pass": "The limits that were asked for hold against the attacks that were tried. The risk "
        "that remains is at least what section 3 measured; what wasn't tried may add to it.",
        "fail": "A limit that was asked for is exceeded. Where the risk stays high, the controller "
        "consults the supervisory authority before processing (Art. 36(1)).",
        "inconclusive": "The limits that were asked for can't be decided. The risk that remains is "
        "unknown, not low.",
        "ungated": f"No limit {'that counts ' if result.gates else ''}was asked for, so nothing "
        "was judged. The risk that remains is at least what section 3 measured.",
    }
    gates = [
        (words.gate_told(gate), *((gate.layer or words.ABSENT,) if result.layers else ()),
         gate.expr, words.number(gate.bound), gate.reason)
        for gate in view.gates(result)
    ]  # fmt: skip
    doubts = [
        f"- {'Serious doubt' if doubt.severity == 'serious' else 'Note'}"
        f"{f' ({text(layer)})' if layer else ''}: {text(doubt.why)} {text(doubt.what_to_do)}"
        for layer, doubt in depth.grouped_doubts(result)
    ]
    return [
        "## 5. Residual risk",
        f"Verdict of leakaudit: {words.VERDICTS[status]}. {text(result.verdict.reason)}",
        means[status] + _set_aside(result),
        tuning.caution(result),
        _table(("Ended", *_at(result), "Exceeded if", "Judged by", "Why"), gates),
        "\n".join(doubts),
        f"{TO_FILL} whether the residual risk is accepted, by whom and until when; the advice of "
        "the data protection officer (Art. 35(2)) and the views of data subjects (Art. 35(9)).",
    ]


def _set_aside(result: Result) -> str:
    """That limits don't hold which a policy keeps from counting; else nothing."""
    loose = sum(map(view.is_loose, result.gates))
    if not loose:
        return ""
    told = "1 limit doesn't" if loose == 1 else f"{loose} limits don't"
    return f" But {told} hold and, suppressed or as a warning only, did not count: see the table."


def _evidence(result: Result) -> list[str]:
    tried = dict.fromkeys(name for row in result.adversaries for name in row.attacks)
    ran = view.measured(result)
    names, idle = (
        ", ".join(code(name) for name in tried if (name in ran) is wanted)
        for wanted in (True, False)
    )
    preset = str(result.plan.get("preset") or "unknown")
    kept = _KEPT.get(result.gallery_mode, result.gallery_mode)
    return [
        "## 6. Evidence, limits and reproduction",
        "An audit can show that faces leak; it can't prove that they don't. Intervals cover the "
        "choice of faces, not the choice of attacks. Recognition is judged by one face recogniser, "
        "whose rate on the originals is the ceiling above.",
        f"Attacks and controls: {names}." if names else "",
        f"Asked for, but without any figure here: {idle}." if idle else "",
        f"Preset {code(preset)}, seed {result.seed}, device {code(result.device)}. Reconstructions "
        f"kept in the result: {text(kept)}. Command: {code(result.command)}",
        _table(("Version of", "Is"), [(name, told) for name, told in result.versions.items()]),
    ]


_KEPT = {"none": "none", "redacted": "scores and no faces", "full": "as pictures of faces"}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of inert cells, or nothing without rows."""
    cells = [tuple(text(cell) for cell in row) for row in rows]
    return table(head, cells, right=0) if cells else ""


def _share(score: Score | None) -> str:
    span = words.score_interval(score)
    return words.score_value(score) + (f" ({span})" if span else "")


def _area(value: float | None, low: float | None, high: float | None) -> str:
    span = words.area_span(low, high)
    return words.area(value) + (f" ({span})" if span else "")
