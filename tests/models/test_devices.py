import pytest
import torch

from leakaudit.core.errors import UsageError
from leakaudit.models import devices
from leakaudit.models.devices import CPU, device_of, full_precision, present


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine on which torch finds two GPUs, as far as asking goes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_auto_stays_the_cpu_where_there_is_a_gpu():
    assert device_of("auto") == device_of("cpu") == CPU


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_taken_by_its_name():
    assert present() == ("cpu", "cuda:0", "cuda:1")
    assert device_of("cuda") == torch.device("cuda", 0)
    assert device_of("cuda:1") == device_of(" CUDA:1 ") == torch.device("cuda", 1)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(UsageError, match=r"no device 'cuda:2'.*cpu or cuda:0 or cuda:1"):
        device_of("cuda:2")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("asked", ["cuda", "cuda:0"])
def test_without_a_gpu_the_cpu_is_what_is_left(asked):
    with pytest.raises(UsageError, match="Use cpu") as refused:
        device_of(asked)
    assert refused.value.exit_code == 2


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("asked", ["mps", "xpu", "gpu", "", "cuda:", "cuda:-1", "cuda:x", "cpu:0"])
def test_other_devices_are_refused(asked):
    with pytest.raises(UsageError, match="run on cpu, cuda or cuda:N"):
        device_of(asked)


def test_a_gpus_short_cuts_are_off_while_it_is_in_use_and_back_afterwards():
    flags = torch.backends.cudnn
    before = flags.deterministic, flags.benchmark, flags.allow_tf32
    with full_precision(torch.device("cuda", 0)):
        assert (flags.deterministic, flags.benchmark, flags.allow_tf32) == (True, False, False)
    assert (flags.deterministic, flags.benchmark, flags.allow_tf32) == before


def test_nothing_is_waited_for_and_nothing_changes_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("there is no GPU"))
    devices.settle(CPU)
    assert devices.told(CPU) == "cpu"
    with full_precision(CPU):
        pass


@pytest.mark.parametrize("quick", [True, False])
def test_half_precision_is_taken_where_convolutions_in_it_are_quicker(monkeypatch, quick):
    monkeypatch.setattr(devices, "has_half", lambda device: quick)
    x, w = torch.ones(1, 2, 4, 4), torch.ones(3, 2, 3, 3)
    with devices.half_precision(CPU):
        made = torch.nn.functional.conv2d(x, w)
    assert made.dtype == (torch.bfloat16 if quick else torch.float32)


@pytest.mark.parametrize("kernels", [True, False, None])
def test_a_processor_is_asked_for_its_kernels_in_half_precision(monkeypatch, kernels):
    def asked():
        if kernels is None:
            raise AttributeError("built without oneDNN")
        return kernels

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", asked, raising=False)
    devices.has_half.cache_clear()
    assert devices.has_half(CPU) is bool(kernels)
    devices.has_half.cache_clear()


@pytest.mark.parametrize(("generation", "half"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_before_ampere_has_no_half_precision_of_this_kind(monkeypatch, generation, half):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generation)
    devices.has_half.cache_clear()
    assert devices.has_half(torch.device("cuda", 0)) is half
    devices.has_half.cache_clear()
