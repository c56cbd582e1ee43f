"""Whether what a run lends to others' code comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from leakaudit.core.checksum import checksum
from leakaudit.core.errors import UsageError
from leakaudit.models.subject import Subject
from leakaudit.models.users_code import torch_as_it_was, users_code

_PROBED: Final = 2
_SAME: Final = 1e-3


def is_ours(thing: object) -> bool:
    """Whether an attack, defence or metric is leakaudit's own code."""
    package, _, rest = type(thing).__module__.partition(".")
    return package == "leakaudit" and not rest.endswith(".foreign")


class Seal:
    """What all rows of a run are measured with: pictures, people and networks.

    Code of others that writes into one of them, swaps a part of it or leaves a hook behind would
    make later rows weaker, and a defence look safe. What is ours isn't looked after.
    """

    def __init__(self, subject: Subject, public: Tensor) -> None:
        self._subject, self._public = subject, public
        self._before: dict[str, Any] | None = None

    @contextmanager
    def lent_to(self, thing: object, name: str) -> Iterator[None]:
        """Whatever ``thing``, which messages call ``name``, does in here.

        Raises UsageError, with file and line, for what code of others raises, and where it changed
        what it was lent.
        """
        if is_ours(thing):
            yield
            return
        if self._before is None:
            first, again = self._seen(), self._seen()
            # What differs by itself, as a network that is random does, can't be looked after.
            self._before = {k: v for k, v in first.items() if _alike(v, again[k])}
        with users_code(name), torch_as_it_was():
            yield
        now = self._seen()
        for what, before in self._before.items():
            if not _alike(before, now[what]):
                raise UsageError(
                    f"{name} changed {what}, which all others are measured with",
                    todo="Work on copies: x.clone(), copy.deepcopy(network)",
                )

    def _seen(self) -> dict[str, Any]:
        subject = self._subject
        things: dict[str, Any] = {
            "the attacked pictures": checksum(subject.faces.images),
            "whose pictures they are": checksum(subject.faces.people),
            "the public pictures": [checksum(x) for x in (self._public, subject.public)],
            "the judge": [
                *_state(subject.oracle.network), checksum(subject.oracle.means),
                subject.oracle.embed(subject.faces.images[:_PROBED]),
            ],
        }  # fmt: skip
        if subject.faces.attributes is not None:
            things["the attributes"] = checksum(subject.faces.attributes)
        if subject.known is not None:
            known = subject.known
            things["the people's other pictures"] = [checksum(known.images), checksum(known.people)]
        probe = subject.faces.images[:_PROBED].to(subject.device)
        with torch.no_grad():
            feature = subject.encoder.forward(probe)  # not counted as a pass
            things["the encoder"] = [*_state(subject.encoder), feature.cpu()]
            if subject.prior is not None:
                z = torch.linspace(-1, 1, subject.prior.shape.latent, device=subject.device)
                things["the prior"] = [*_state(subject.prior), subject.prior(z[None]).cpu()]
            if subject.head is not None:
                answer = subject.head(feature.clone())
                things["the head"] = [*_state(subject.head), answer.float().cpu()]
        return things


def _state(network: object) -> list[int]:
    """Of a network's parts: their numbers, mode and how many hooks there are."""
    if not isinstance(network, nn.Module):
        return []
    marks = [checksum(part) for part in (*network.parameters(), *network.buffers())]
    return [*marks, *(_mode(module) for module in network.modules())]


def _mode(module: nn.Module) -> int:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return int(module.training) + 2 * sum(len(kind) for kind in hooks)


def _alike(before: Any, now: Any) -> bool:
    """Checksums to the bit; answers of networks, which a GPU may round otherwise, nearly."""
    if isinstance(before, list):
        pairs = zip(before, now, strict=False)
        return len(before) == len(now) and all(_alike(a, b) for a, b in pairs)
    if isinstance(before, Tensor):
        if before.shape != now.shape:
            return False
        return bool((before - now).abs().max() <= _SAME * before.abs().max())
    return bool(before == now)
