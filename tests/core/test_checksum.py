import pytest
import torch

from leakaudit.core import checksum as module
from leakaudit.core.checksum import checksum


def pictures() -> torch.Tensor:
    return torch.rand(5, 3, 7, 9, generator=torch.Generator().manual_seed(0))


def test_blocks_are_no_part_of_it(monkeypatch):
    whole = checksum(pictures())
    monkeypatch.setattr(module, "_BLOCK", 100)
    assert checksum(pictures()) == whole


@pytest.mark.parametrize("where", [(0, 0, 0, 0), (2, 1, 3, 4), (4, 2, 6, 8)])
def test_one_number_changes_it(monkeypatch, where):
    monkeypatch.setattr(module, "_BLOCK", 100)
    changed = pictures()
    changed.numpy()[where] += 1e-3  # behind torch's back
    assert checksum(changed) != checksum(pictures())


def test_another_order_of_the_same_numbers_changes_it():
    assert checksum(pictures().flip(0)) != checksum(pictures())


def test_another_shape_or_type_of_the_same_bytes_changes_it():
    assert checksum(pictures().unsqueeze_(0)) != checksum(pictures())
    assert checksum(pictures().view(torch.int32)) != checksum(pictures())


def test_numbers_beside_nan_and_infinities_count():
    hidden = torch.stack([pictures(), torch.full((5, 3, 7, 9), -float("inf")), -pictures() / 0])
    before = checksum(hidden)
    assert checksum(hidden) == before
    hidden.numpy()[0, 0, 0, 0, 0] += 0.25
    assert checksum(hidden) != before


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.0), torch.zeros(0), torch.tensor([True, False]),
        torch.ones(3, dtype=torch.bfloat16), torch.ones(4, 5).T, torch.ones(2, requires_grad=True),
    ],
)  # fmt: skip
def test_any_tensor_has_one(tensor):
    assert checksum(tensor) == checksum(tensor.detach().clone())
