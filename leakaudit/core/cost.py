"""Work by kind, so that a plan can say how long it will take on the machine it stands on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Work by kind, each measured in seconds on the machine before a scan starts.

    ``encodes`` and ``generates`` count pictures forward through encoder and prior (a backward pass
    is two more), ``decoder_steps`` training steps of the standard decoder, ``solves`` the sizes of
    ridge regressions in pairs.
    """

    encodes: float = 0
    generates: float = 0
    decoder_steps: float = 0
    solves: tuple[int, ...] = ()
