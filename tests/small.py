"""Settings with which attacks on toys take a second each; others run at their defaults."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "blackbox-decoder": {"training.steps": 60, "training.batch": 16},
    "whitebox-latent": {"samples": 100, "search.steps": 80},
    "whitebox-pixel": {"descent.steps": 60},
    "whitebox-hybrid": {"descent.steps": 40},
    "whitebox-dip": {"descent.steps": 60, "width": 8, "levels": 2},
    "adaptive-decoder": {
        "queries": 40,
        "pairs": 100,
        "static.steps": 60,
        "static.batch": 16,
        "training.steps": 15,
        "training.batch": 16,
    },
    "adaptive-generator": {
        "queries": 40,
        "pairs": 100,
        "components": 30,
        "clean.steps": 60,
        "clean.batch": 16,
        "training.steps": 15,
        "training.batch": 16,
    },
    "adaptive-generator-latent": {"components": 30, "pictures": 160, "latent.samples": 100},
    "adaptive-prior": {"steps": 20, "latent.samples": 100},
    "adaptive-averaging": {"releases": 2},
    "adaptive-averaging-purifier": {"releases": 2},
    "adaptive-averaging-linkage": {"releases": 2},
}
