"""The questionnaire as one HTML page: its own script and style and nothing else may run in it."""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup

from leakaudit.core.study import CHOICES, Questionnaire
from leakaudit.report.pages import environment, shipped

_SECONDS = 10  # that a question takes, for the estimate on the page


def render_questionnaire(page: Questionnaire) -> str:
    """The page as HTML text; it reaches no network, by a policy that names its script by hash.

    Raises ``RunError`` where the shipped templates are missing.
    """
    style, script = (shipped(f"questionnaire.{kind}") for kind in ("css", "js"))
    return (
        environment()
        .get_template("questionnaire.html.j2")
        .render(
            page=page,
            letters=CHOICES[:-1],
            minutes=max(1, round(len(page.questions) * _SECONDS / 60)),
            style=Markup(style),  # our own files, shipped beside the template
            style_hash=_hash(style),
            script=Markup(script),
            script_hash=_hash(script),
        )
    )


def _hash(text: str) -> str:
    """The source expression of a content security policy that allows this text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
