"""Metrics: what a reconstruction gives away, one family a file, listed in ``METRICS``."""

from leakaudit.core.registry import Registry
from leakaudit.metrics.base import Metric
from leakaudit.metrics.identity import FeatureSimilarity, IdentificationRate, IdentificationTop5
from leakaudit.metrics.indistinguishability import EpsilonPii
from leakaudit.metrics.likeness import Lpips, Psnr, Ssim
from leakaudit.metrics.verification import Verification

METRICS: Registry[Metric] = Registry(
    "metric",
    "leakaudit.metrics",
    IdentificationRate,
    IdentificationTop5,
    Verification,
    FeatureSimilarity,
    Ssim,
    Psnr,
    Lpips,
    EpsilonPii,
)
