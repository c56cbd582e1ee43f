"""Attacks: one published way of inverting features a file, listed in ``ATTACKS``."""

from leakaudit.attacks.base import Attack
from leakaudit.attacks.controls import ControlAttributes, ControlMean, ControlPrior
from leakaudit.attacks.decoder import BlackBoxDecoder
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.core.registry import Registry

ATTACKS: Registry[Attack] = Registry(
    "attack",
    "leakaudit.attacks",
    BlackBoxDecoder,
    WhiteBoxLatent,
    ControlPrior,
    ControlMean,
    ControlAttributes,
)
CONTROLS = ("control-prior", "control-mean", "control-attributes")

__all__ = ["ATTACKS", "CONTROLS", "Attack"]
