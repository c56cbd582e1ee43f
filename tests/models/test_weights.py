"""Weights on disk: what is read, what is refused and why, and that nothing is loaded by halves."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from leakaudit.core.errors import RunError, WeightsError
from leakaudit.models import weights


class Little(nn.Module):
    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, outputs)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Little()


@pytest.fixture
def little() -> Little:
    torch.manual_seed(0)
    return Little()


def saved(path: Path, content: object, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_safetensors_come_back_as_they_were_saved(tmp_path: Path, little: Little) -> None:
    path = tmp_path / "w.safetensors"
    weights.save_safetensors(path, little.state_dict(), {"layer": "stem"})
    assert same(weights.load_state(path), little.state_dict())


def test_the_first_bytes_and_not_the_name_tell_the_kind(tmp_path: Path, little: Little) -> None:
    path = tmp_path / "really_safetensors.pt"
    weights.save_safetensors(path, little.state_dict())
    assert same(weights.load_state(path), little.state_dict())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_state_dict_is_read_in_both_formats(
    tmp_path: Path, little: Little, zipped: bool
) -> None:
    path = tmp_path / "w.pt"
    saved(path, little.state_dict(), _use_new_zipfile_serialization=zipped)
    assert same(weights.load_state(path), little.state_dict())


@pytest.mark.parametrize("key", ["state_dict", "model", "ema", "net"])
def test_a_checkpoint_is_unwrapped(tmp_path: Path, little: Little, key: str) -> None:
    path = saved(tmp_path / "w.pt", {"epoch": 3, key: little.state_dict(), "lr": 0.1})
    assert same(weights.load_state(path), little.state_dict())


def test_a_doubly_wrapped_checkpoint_is_unwrapped(tmp_path: Path, little: Little) -> None:
    path = saved(tmp_path / "w.pt", {"model": {"state_dict": little.state_dict()}})
    assert same(weights.load_state(path), little.state_dict())


def test_plain_weights_are_preferred_to_their_moving_average(
    tmp_path: Path, little: Little
) -> None:
    path = saved(tmp_path / "w.pt", {"ema": Little().state_dict(), "model": little.state_dict()})
    assert same(weights.load_state(path), little.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "backbone.", "module._orig_mod."])
def test_a_prefix_that_all_names_share_is_taken_off(
    tmp_path: Path, little: Little, prefix: str
) -> None:
    state = {prefix + name: tensor for name, tensor in little.state_dict().items()}
    assert same(weights.load_state(saved(tmp_path / "w.pt", state)), little.state_dict())


def test_a_network_that_has_the_prefix_itself_still_fits(tmp_path: Path) -> None:
    wrapped, other = Wrapped(), Wrapped()
    path = saved(tmp_path / "w.pt", wrapped.state_dict())
    assert weights.load_into(other, weights.load_state(path), where="w.pt") == ()
    assert same(wrapped.state_dict(), other.state_dict())


def test_the_backbone_of_a_larger_file_is_taken_and_the_rest_is_said(little: Little) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in Little().state_dict().items()}
    state["arc.weight"] = torch.zeros(4)
    (note,) = weights.load_into(little, state, where="w.pt")
    assert "arc.weight" in note and "outside the network" in note
    assert torch.equal(little.fc.weight, state["backbone.fc.weight"])


def test_tied_weights_of_which_safetensors_keep_one_name_are_whole(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    def made(tied: bool) -> nn.ModuleDict:
        net = nn.ModuleDict({name: nn.Linear(4, 4) for name in "abc"})
        if tied:
            net["c"].weight = net["b"].weight
        return net

    whole, path = made(True), tmp_path / "w.safetensors"
    save_model(whole, str(path))
    state = weights.load_state(path)
    assert len(state) == 5
    found = made(True)
    assert weights.load_into(found, state, where="w") == ()
    assert torch.equal(found["c"].weight, whole["b"].weight)
    with pytest.raises(WeightsError, match=r"missing in the file: [bc].weight"):
        weights.load_into(made(False), state, where="w")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file") as caught:
        weights.load_state(tmp_path / "none.pt")
    assert caught.value.exit_code == 2


def test_a_folder_instead_of_a_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="a folder"):
        weights.load_state(tmp_path)


def test_an_empty_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    with pytest.raises(WeightsError, match="is empty"):
        weights.load_state(tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_torch_file_is_said(tmp_path: Path, little: Little, zipped: bool) -> None:
    path = saved(tmp_path / "w.pt", little.state_dict(), _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match=r"truncated.*again"):
        weights.load_state(path)


@pytest.mark.parametrize("keep", [40, 300])
def test_a_truncated_safetensors_file_is_said(tmp_path: Path, little: Little, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    weights.save_safetensors(path, little.state_dict())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"truncated.*again"):
        weights.load_state(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello, these are no weights\n", "neither safetensors nor a torch file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\x89PNG\r\n\x1a\n", "neither"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=told):
        weights.load_state(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="TorchScript"):
        weights.load_state(tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_full_pickle_is_refused_with_what_to_do(
    tmp_path: Path, little: Little, zipped: bool
) -> None:
    path = saved(tmp_path / "w.pt", little, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError) as caught:
        weights.load_state(path)
    assert "full pickle" in str(caught.value) and "Little" in str(caught.value)
    assert "state_dict()" in str(caught.value) and "--trust-encoder" in str(caught.value)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_code_inside_a_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"w": Bomb(tmp_path / "ran")}))
    with pytest.raises(WeightsError):
        weights.load_state(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_a_full_pickle_is_read_with_consent(tmp_path: Path, little: Little) -> None:
    path = saved(tmp_path / "w.pt", little)
    assert same(weights.load_state(path, trust=True), little.state_dict())


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], torch.zeros(3)])
def test_a_file_without_named_tensors_is_said(tmp_path: Path, content: object) -> None:
    with pytest.raises(WeightsError, match="no named tensors"):
        weights.load_state(saved(tmp_path / "w.pt", content))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_name_the_tensor(
    tmp_path: Path, little: Little, bad: float
) -> None:
    state = little.state_dict()
    state["norm.running_var"][1] = bad
    with pytest.raises(WeightsError, match=r"norm.running_var.*1 numbers"):
        weights.load_state(saved(tmp_path / "w.pt", state))


def test_missing_unexpected_and_misshapen_tensors_are_listed_and_nothing_is_loaded(
    little: Little,
) -> None:
    before = {name: tensor.clone() for name, tensor in little.state_dict().items()}
    state = Little(outputs=7).state_dict() | {"extra.weight": torch.zeros(1)}
    del state["stem.weight"]
    with pytest.raises(WeightsError) as caught:
        weights.load_into(little, state, where="w.pt")
    text = str(caught.value)
    assert "1 missing in the file: stem.weight" in text
    assert "1 unknown to the network: extra.weight" in text
    assert "fc.weight is 7x2 in the file, 3x2 in the network" in text
    assert "(w.pt)" in text
    assert same(before, little.state_dict())


def test_no_more_than_five_names_are_listed_with_the_count(little: Little) -> None:
    with pytest.raises(WeightsError, match=r"8 missing in the file: .* and 3 more"):
        weights.load_into(little, {}, where="w.pt")


def test_parts_that_are_never_run_may_differ_and_that_is_said(little: Little) -> None:
    state = Little(outputs=7).state_dict() | {"fc.1.weight": torch.zeros(1)}
    del state["fc.bias"]
    (note,) = weights.load_into(little, state, where="w.pt", ignore_prefixes=("fc.",))
    assert "3 not loaded" in note and "fc.weight" in note
    assert bool((little.fc.weight == 0).all()) and bool((little.fc.bias == 0).all())
    assert torch.equal(little.stem.weight, state["stem.weight"])


def test_old_files_without_num_batches_tracked_fit(little: Little) -> None:
    state = Little().state_dict()
    del state["norm.num_batches_tracked"]
    assert weights.load_into(little, state, where="w.pt") == ()


def test_half_precision_weights_fill_a_single_precision_network(little: Little) -> None:
    state = {name: tensor.half() for name, tensor in Little().state_dict().items()}
    weights.load_into(little, state, where="w.pt")
    assert little.stem.weight.dtype == torch.float32
    assert torch.equal(little.stem.weight, state["stem.weight"].float())


def test_the_same_weights_and_metadata_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    metadata = dict.fromkeys("fadbce", "1")
    script = (
        "import sys, torch; from pathlib import Path;"
        "from leakaudit.models.weights import save_safetensors;"
        f"save_safetensors(Path(sys.argv[1]), {{'a': torch.ones(3)}}, {metadata})"
    )
    paths = [tmp_path / "here", tmp_path / "there"]
    weights.save_safetensors(
        paths[0], {"a": torch.ones(3)}, dict(sorted(metadata.items(), reverse=True))
    )
    subprocess.run([sys.executable, "-c", script, str(paths[1])], check=True)
    assert weights.sha256_of(paths[0]) == weights.sha256_of(paths[1])


def test_metadata_can_be_read_by_the_library(tmp_path: Path) -> None:
    from safetensors import safe_open

    weights.save_safetensors(tmp_path / "w", {"a": torch.ones(3)}, {"b": 'é"', "a": "1"})
    with safe_open(tmp_path / "w", "pt") as file:
        assert file.metadata() == {"a": "1", "b": 'é"'}
        assert torch.equal(file.get_tensor("a"), torch.ones(3))


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    with pytest.raises(RunError) as caught:
        weights.save_safetensors(tmp_path / "w", {"a": torch.ones(3)})
    assert caught.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"abc")
    assert weights.sha256_of(tmp_path / "w").startswith("ba7816bf8f01cfea")
    with pytest.raises(WeightsError):
        weights.sha256_of(tmp_path / "none")


def test_the_hash_of_a_network_changes_with_any_tensor(little: Little) -> None:
    before = weights.sha256_of_state(little)
    assert weights.sha256_of_state(little) == before
    with torch.no_grad():
        little.get_buffer("norm.running_mean")[0] += 1e-6
    assert weights.sha256_of_state(little) != before
