"""Chunks become smaller where memory runs out, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from toys import normal

from leakaudit.core.errors import RunError, UsageError
from leakaudit.core.memory import is_out_of_memory
from leakaudit.maths.chunks import at_most, bounded, chunked, in_chunks
from leakaudit.models.users_code import users_code

CPU = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"


class Small:
    """A layer on a machine with room for ``room`` rows."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error = room, error
        self.asked: list[int] = []
        self.weight = normal(7, 5, seed=1)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(rows))
        if len(rows) > self.room:
            raise self.error
        return torch.tanh(rows @ self.weight)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU), MemoryError()]
)
@pytest.mark.parametrize("room", [1, 3, 16])
def test_a_chunk_that_is_too_large_is_halved_and_the_answer_is_the_same(error, room) -> None:
    rows = normal(37, 7, seed=2)
    layer = Small(room, error)
    made = in_chunks(layer, rows, 16)
    torch.testing.assert_close(made, torch.tanh(rows @ layer.weight), rtol=0, atol=1e-6)
    assert sum(count for count in layer.asked if count <= room) == len(rows)


def test_once_halved_the_rest_goes_at_the_smaller_size() -> None:
    layer = Small(5, MemoryError())
    in_chunks(layer, normal(32, 7, seed=2), 16)
    assert layer.asked == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4]


def test_without_trouble_chunks_are_those_of_split() -> None:
    rows = normal(10, 3, seed=3)
    parts = chunked(lambda part: part, rows, 4)
    assert all(map(torch.equal, parts, rows.split(4)))
    assert in_chunks(lambda part: part * 2, rows[:0], 4).shape == (0, 3)


def test_a_bound_holds_for_every_chunk_while_it_is_in_force() -> None:
    rows, layer = normal(10, 7, seed=2), Small(99, MemoryError())
    whole = in_chunks(layer, rows, 10)
    with at_most(4):
        parts = in_chunks(layer, rows, 10)
        assert (bounded(3), bounded(9)) == (3, 4)
        with at_most(None):
            in_chunks(layer, rows, 10)
    in_chunks(layer, rows, 6)
    assert layer.asked == [10, 4, 4, 2, 10, 6, 4]
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


def test_one_row_that_is_too_large_and_other_errors_are_raised_as_they_are() -> None:
    with pytest.raises(MemoryError):
        in_chunks(Small(0, MemoryError()), normal(4, 7, seed=2), 4)
    layer = Small(2, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        in_chunks(layer, normal(4, 7, seed=2), 4)
    assert layer.asked == [4]


def test_a_users_network_that_is_short_of_memory_is_no_usage_error() -> None:
    with pytest.raises(RuntimeError, match="allocate"), users_code("the network"):
        raise RuntimeError(CPU)
    with pytest.raises(UsageError), users_code("the network"):
        raise RuntimeError("something else")


def test_our_own_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(RunError("The prior's loss is not finite"))
    assert not is_out_of_memory(ValueError("out of memory"))
