"""Defences: one published way of protecting features a file, listed in ``DEFENCES``."""

from leakaudit.core.registry import Registry
from leakaudit.defences.base import Defence
from leakaudit.defences.crafter import Crafter
from leakaudit.defences.crafter_paper import CrafterPaper
from leakaudit.defences.crafter_residual import CrafterResidual
from leakaudit.defences.crafter_z import CrafterZ
from leakaudit.defences.identity import NoDefence
from leakaudit.defences.noise import GaussianNoise

DEFENCES: Registry[Defence] = Registry(
    "defence",
    "leakaudit.defences",
    NoDefence,
    GaussianNoise,
    Crafter,
    CrafterZ,
    CrafterResidual,
    CrafterPaper,
)

__all__ = ["DEFENCES", "Defence"]
