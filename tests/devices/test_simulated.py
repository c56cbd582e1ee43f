"""The simulated device refuses what a GPU refuses; else what runs on it would prove nothing."""

import pytest
import torch
from simulated import accelerator

from leakaudit.core.rng import Rng


@pytest.fixture
def device():
    with accelerator() as found:
        yield found


def test_tensors_on_the_device_do_not_mix_with_the_cpus(device):
    here, there = torch.arange(3.0).to(device), torch.arange(3.0)
    assert here.device.type == "sim"
    for mixed in (
        lambda: here + there, lambda: there * here, lambda: there @ here,
        lambda: torch.cat([here, there]), lambda: torch.where(there > 0, here, here),
        lambda: there[here.long()], lambda: there.index_add_(0, here.long(), here),
        lambda: torch.equal(here, there), lambda: there.add_(here.sum()),
        lambda: torch.stack([here.sum(), there.sum()]),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="same device"):
            mixed()


def test_single_numbers_cpu_indices_and_copies_are_taken_as_a_gpu_takes_them(device):
    here = torch.arange(3.0).to(device)
    assert (here * torch.tensor(2.0)).tolist() == [0, 2, 4]
    assert here[torch.tensor([2, 0])].tolist() == [2, 0]
    assert here[[2, 0]].tolist() == here[torch.tensor([True, False, True])].flip(0).tolist()
    here[torch.tensor([0])] = 5.0
    assert here.cpu().numpy().tolist() == [5, 1, 2]
    assert torch.zeros(3).copy_(here).tolist() == [5, 1, 2]
    assert torch.tensor([1, 2], device=device).device == device


def test_arrays_and_draws_on_the_device_are_refused(device):
    here = torch.zeros(3, device=device)
    with pytest.raises(RuntimeError):
        here.numpy()
    for draw in (
        lambda: torch.randn(3, device=device),
        lambda: torch.randn(3, generator=Rng(0).torch(), device=device),
        lambda: torch.randn_like(here),
        lambda: torch.nn.functional.dropout(here),
    ):
        with pytest.raises(RuntimeError, match="draw"):
            draw()


def test_training_there_gives_the_cpus_weights(device):
    def trained(where):
        generator = torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = torch.nn.Sequential(
                torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.SiLU(),
                torch.nn.Flatten(), torch.nn.Linear(144, 2),
            ).to(where)  # fmt: skip
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(5):
            x = torch.randn(6, 3, 8, 8, generator=generator).to(where)
            optimiser.zero_grad()
            net(x).square().mean().backward()
            optimiser.step()
        return [p.detach().cpu() for p in net.parameters()]

    for a, b in zip(trained("cpu"), trained(device), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
