"""Work on many pictures in chunks, which become smaller where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

from leakaudit.core.memory import is_out_of_memory

T = TypeVar("T")
_MOST: ContextVar[int | None] = ContextVar("most", default=None)


@contextmanager
def at_most(rows: int | None) -> Iterator[None]:
    """So many pictures at once while this holds, whatever sizes are asked for; None binds nothing.

    It is about work in which each row stands alone. A training's batch is part of what it learns,
    and stays as it is.
    """
    before = _MOST.set(rows)
    try:
        yield
    finally:
        _MOST.reset(before)


def bounded(size: int) -> int:
    """The size of a chunk that was asked for, or what ``at_most`` allows where that is less."""
    most = _MOST.get()
    return max(1, size if most is None else min(size, most))


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, size: int) -> Tensor:
    """``function(rows)`` for a function that treats each row alone, at most ``size`` rows at once.

    Where memory runs out, the chunk is halved and tried again, down to one row. Which rows are
    together changes nothing but rounding. What is still too large for one row is raised as it was.
    """
    return torch.cat(chunked(function, rows, size))


def chunked(function: Callable[[Tensor], T], rows: Tensor, size: int) -> list[T]:
    """What ``function`` gives of the chunks of ``rows``, in their order; one chunk at least."""
    made: list[T] = []
    at, size = 0, bounded(size)
    while at < len(rows) or not made:
        part = rows[at : at + size]
        try:
            made.append(function(part))
        except (MemoryError, RuntimeError) as error:
            if len(part) < 2 or not is_out_of_memory(error):
                raise
            size = _half(len(part), error)
            continue
        at += size
    return made


def _half(rows: int, error: BaseException) -> int:
    """Half as many rows; what the failed attempt holds is given back first."""
    error.__traceback__ = None  # its frames hold the tensors that were too large
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return rows // 2
