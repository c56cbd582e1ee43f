"""The options by which several commands ask for a subject, written down once."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from leakaudit.cli import options as opt


def _subject_options(
    demo: opt.Demo = False,
    encoder: opt.EncoderSpec = None,
    weights: opt.Weights = None,
    layer: opt.LayerNames = None,
    trust_encoder: opt.TrustEncoder = False,
    images: opt.Images = None,
    public: opt.Public = None,
    labels: opt.Labels = None,
    attributes: opt.Attributes = None,
    prior: opt.PriorSpec = None,
    prior_weights: opt.PriorWeights = None,
    oracle: opt.OracleSpec = None,
    oracle_weights: opt.OracleWeights = None,
    oracle_input_size: opt.OracleSize = None,
    oracle_mean: opt.OracleMean = None,
    oracle_std: opt.OracleStd = None,
    oracle_channels: opt.OracleChannels = None,
    size: opt.InputSize = 64,
    crop: opt.Crop = None,
    public_crop: opt.PublicCrop = None,
    align: opt.Align = None,
    pairs: opt.Pairs = None,
    head: opt.HeadSpec = None,
    head_weights: opt.HeadWeights = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    channels: opt.ChannelOrder = None,
    no_cache: opt.NoCache = False,
    people_limit: opt.AttackedPeople = None,
    pictures_limit: opt.AttackedPictures = 1,
    demo_people: opt.DemoPeople = 0,
) -> dict[str, Any]:
    """What was asked for: ``demo``, ``demo_people``, and fields of ``Sources`` by name."""
    asked = dict(locals())
    asked["trust"], asked["cache"] = asked.pop("trust_encoder"), not asked.pop("no_cache")
    asked["layer"] = asked["layer"] or None
    for name in ("oracle", "oracle_weights"):
        asked[name] = tuple(asked[name] or ()) or None
    return asked


def asking_for_a_subject(command: Callable[..., int]) -> Callable[..., int]:
    """The command with the options of a subject in front of its own.

    Its first parameter, ``asked``, gets a dictionary of what they say, for ``make_subjects``.
    """
    shared = inspect.signature(_subject_options).parameters
    own = dict(inspect.signature(command).parameters)
    del own["asked"]
    hints = {**typing.get_type_hints(_subject_options, include_extras=True),
             **typing.get_type_hints(command, include_extras=True)}  # fmt: skip

    @functools.wraps(command)
    def called(**given: Any) -> int:
        asked = _subject_options(**{name: given.pop(name) for name in shared})
        return command(asked, **given)

    del called.__wrapped__  # type: ignore[attr-defined]  # what typer reads follows from below
    parameters = [p.replace(annotation=hints[p.name]) for p in (*shared.values(), *own.values())]
    made: Any = called
    made.__signature__ = inspect.Signature(parameters, return_annotation=int)
    made.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": int}
    return called
