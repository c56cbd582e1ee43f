"""leakaudit: how much of a face can be rebuilt, and named, from a split model's features?

The public API is loaded on first use, so that importing the package doesn't import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Attack": "leakaudit.attacks.base",
    "Crafter": "leakaudit.audit.protector",
    "Defence": "leakaudit.defences.base",
    "Metric": "leakaudit.metrics.base",
    "Plan": "leakaudit.audit.plan",
    "Protector": "leakaudit.audit.protector",
    "Result": "leakaudit.core.types",
    "Subject": "leakaudit.models.subject",
    "protect": "leakaudit.audit.protector",
    "pseudonym": "leakaudit.core.keys",
    "scan": "leakaudit.audit.scan",
    "secret_key": "leakaudit.core.keys",
}

__all__ = [
    "Attack",
    "Crafter",
    "Defence",
    "Metric",
    "Plan",
    "Protector",
    "Result",
    "Subject",
    "protect",
    "pseudonym",
    "scan",
    "secret_key",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'leakaudit' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
