"""Defences: one published way of protecting features a file, listed in ``DEFENCES``."""

from leakaudit.core.registry import Registry
from leakaudit.defences.base import Defence
from leakaudit.defences.crafter import Crafter
from leakaudit.defences.identity import NoDefence
from leakaudit.defences.noise import GaussianNoise

DEFENCES: Registry[Defence] = Registry(
    "defence", "leakaudit.defences", NoDefence, GaussianNoise, Crafter
)

__all__ = ["DEFENCES", "Defence"]
