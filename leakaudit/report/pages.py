"""Pages from the shipped templates: every string escaped, a missing variable an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leakaudit.core.resources import resource, resource_dir


def environment(finalize: Callable[[Any], Any] | None = None) -> Environment:
    """Autoescape is on by name, since Jinja's own choice by suffix passes over ``*.html.j2``.

    ``finalize`` sees whatever an expression prints. Raises ``RunError`` where the shipped templates
    are missing.
    """
    return Environment(
        loader=FileSystemLoader(resource_dir("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def shipped(name: str) -> str:
    """The text of a file beside the templates."""
    return resource("templates", name).read_text(encoding="utf-8")
