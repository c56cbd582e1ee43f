"""Attacks: one published way of inverting features a file, listed in ``ATTACKS``."""

from leakaudit.attacks.adaptive_decoder import AdaptiveDecoder
from leakaudit.attacks.adaptive_generator import AdaptiveGenerator
from leakaudit.attacks.adaptive_generator_latent import AdaptiveGeneratorLatent
from leakaudit.attacks.adaptive_prior import AdaptivePrior
from leakaudit.attacks.averaging import AdaptiveAveraging
from leakaudit.attacks.base import Attack
from leakaudit.attacks.controls import ControlAttributes, ControlMean, ControlPrior
from leakaudit.attacks.decoder import BlackBoxDecoder
from leakaudit.attacks.dip import WhiteBoxDip
from leakaudit.attacks.hybrid import WhiteBoxHybrid
from leakaudit.attacks.latent import WhiteBoxLatent
from leakaudit.attacks.linkage import AdaptiveAveragingLinkage, AdaptiveLinkage, Linkage
from leakaudit.attacks.linkage_informed import LinkageClassifier, LinkageGallery
from leakaudit.attacks.pixel import WhiteBoxPixel
from leakaudit.attacks.purifier import (
    AdaptiveAveragingPurifier,
    AdaptivePurifier,
    AdaptivePurifierLatent,
)
from leakaudit.attacks.ridge import AdaptiveRidge, BlackBoxRidge
from leakaudit.core.registry import Registry

ATTACKS: Registry[Attack] = Registry(
    "attack",
    "leakaudit.attacks",
    BlackBoxDecoder,
    BlackBoxRidge,
    Linkage,
    WhiteBoxLatent,
    WhiteBoxPixel,
    WhiteBoxHybrid,
    WhiteBoxDip,
    AdaptiveDecoder,
    AdaptiveRidge,
    AdaptiveLinkage,
    AdaptiveGenerator,
    AdaptiveGeneratorLatent,
    AdaptivePrior,
    AdaptivePurifier,
    AdaptivePurifierLatent,
    AdaptiveAveraging,
    AdaptiveAveragingPurifier,
    AdaptiveAveragingLinkage,
    LinkageClassifier,
    LinkageGallery,
    ControlPrior,
    ControlMean,
    ControlAttributes,
)
CONTROLS = ("control-prior", "control-mean", "control-attributes")

__all__ = ["ATTACKS", "CONTROLS", "Attack"]
