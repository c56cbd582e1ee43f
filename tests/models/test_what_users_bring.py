"""Code, checkpoints and tables as people bring them, which must not be taken for something else."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from leakaudit.audit.oracles import _refuse_shared
from leakaudit.core.errors import UsageError, WeightsError
from leakaudit.models.encoder import RANDOM, load_encoder
from leakaudit.models.labels import read_people
from leakaudit.models.modules import identity_of, load_module
from leakaudit.models.preprocessing import IMAGENET_STD, Native, Preprocessing, Wishes
from leakaudit.models.programs import program_sha256
from leakaudit.models.users_code import at_home
from leakaudit.models.weights import load_into, load_state

SMALL = Preprocessing(16)
LINEAR = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
"""


def written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_a_helper_of_one_folder_is_never_taken_for_anothers(tmp_path: Path) -> None:
    helper = "from torch import nn\nclass Own(nn.Identity):\n    place = {!r}\n"
    maker = "def make():\n    from helpmodel import Own\n    return Own()\n"
    found = []
    for folder in ("one", "two", "one"):
        written(tmp_path / folder, "helpmodel.py", helper.format(folder))
        spec = f"{written(tmp_path / folder, 'factory.py', maker)}:make"
        found.append(load_module(spec).place)
    assert found == ["one", "two", "one"]
    assert "helpmodel" not in sys.modules  # an import that comes later must not pick either
    assert str(tmp_path / "one") not in sys.path


def test_what_a_users_code_sets_for_all_of_torch_ends_with_it(tmp_path: Path) -> None:
    code = "import torch\ntorch.set_grad_enabled(False)\ntorch.set_default_dtype(torch.float64)\n"
    net = load_module(f"{written(tmp_path, 'sets.py', code + LINEAR)}:make")
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() is torch.float32
    assert net[0].weight.dtype is torch.float64  # the network is as he made it


def test_a_network_that_isnt_whole_is_refused_by_name(tmp_path: Path) -> None:
    code = "from torch import nn\ndef make():\n    return nn.Sequential(nn.LazyLinear(4))\n"
    with pytest.raises(UsageError, match=r"0\.weight has no shape"):
        load_module(f"{written(tmp_path, 'lazy.py', code)}:make")


@pytest.mark.parametrize("seeded", [True, False])
def test_random_weights_of_a_factory_are_told(tmp_path: Path, seeded: bool) -> None:
    code = LINEAR if seeded else LINEAR.replace("    torch.manual_seed(0)\n", "")
    spec = f"{written(tmp_path, 'net.py', code)}:make"
    loaded = [load_encoder(spec, weights=None, layer="last", preprocessing=SMALL) for _ in range(2)]
    assert [RANDOM in encoder.notes for encoder in loaded] == [not seeded] * 2
    assert loaded[0].weights_sha256 == loaded[1].weights_sha256  # drawn from a seed of ours


def test_random_layers_behind_the_split_are_no_matter(tmp_path: Path) -> None:
    code = (
        "import torch\nfrom torch import nn\ndef make():\n    net = nn.Sequential(nn.Conv2d(3, 8, 3"
        "), nn.Conv2d(8, 8, 3))\n    nn.init.ones_(net[0].weight)\n    nn.init.ones_(net[0].bias)\n"
        "    return net\n"
    )
    spec = f"{written(tmp_path, 'net.py', code)}:make"
    encoder = load_encoder(spec, weights=None, layer="0", preprocessing=SMALL)
    assert RANDOM not in encoder.notes


def test_a_row_of_another_folder_names_nobody_here(tmp_path: Path) -> None:
    files = ["bob/0017.png", "bob/0018.png"]
    table = written(tmp_path, "t.csv", "file,person\nalice/0017.png,alice\nbob/0018.png,bob\n")
    with pytest.raises(Exception, match=r"1 files that are not in the folder: alice/0017\.png"):
        read_people(table, root=tmp_path / "faces", files=files)


def test_accents_are_no_other_name_however_they_are_coded(tmp_path: Path) -> None:
    one, two = "jos\u00e9/1.png", "jose\u0301/2.png"
    rows = "jose\u0301/1.png,Jose\u0301\njos\u00e9/2.png,Jos\u00e9\n"
    table = written(tmp_path, "t.csv", "file,person\n" + rows)
    found = read_people(table, root=tmp_path / "faces", files=[one, two])
    assert found == {one: "Jos\u00e9", two: "Jos\u00e9"}
    apart = ["jos\u00e9/1.png", "jose\u0301/1.png"]  # where both are there, each is itself
    rows = "jose\u0301/1.png,a\njos\u00e9/1.png,b\n"
    table = written(tmp_path, "u.csv", "file,person\n" + rows)
    assert read_people(table, root=tmp_path / "faces", files=apart) == {
        apart[1]: "a",
        apart[0]: "b",
    }


@pytest.mark.parametrize(
    "rows",
    [
        "0017.png,bob\n0018.png,bob\n",
        "img/bob/0017.png,bob\nother/bob/0018.png,bob\n",
        "img/0017.png,bob\nimg/0018.png,bob\n",
    ],
)
def test_rows_fit_by_the_end_of_a_path(tmp_path: Path, rows: str) -> None:
    files = ["bob/0017.png", "bob/0018.png"]
    table = written(tmp_path, "t.csv", "file,person\n" + rows)
    assert read_people(table, root=tmp_path / "faces", files=files) == dict.fromkeys(files, "bob")


def images(count: int = 8) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 48, 3), nn.ReLU(), nn.Conv2d(48, 8, 8), nn.Flatten())


@pytest.mark.parametrize("change", [lambda m: m, lambda m: m.half().float()])
def test_a_judge_that_is_the_encoder_in_another_precision_is_refused(change) -> None:
    with pytest.raises(WeightsError, match="shares weights"):
        _refuse_shared(change(net(0)), net(0), "the encoder", images())
    _refuse_shared(net(1), net(0), "the encoder", images())


def test_a_judge_that_answers_as_the_encoder_does_is_refused() -> None:
    class Wrapped(nn.Module):  # as a program has it: no tensors to be seen
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [net(0)]

        def forward(self, x: Tensor) -> Tensor:
            return self.hidden[0](x) * 3 + 1

    with pytest.raises(WeightsError, match="shares weights"):
        _refuse_shared(Wrapped(), net(0), "the encoder", images())
    _refuse_shared(Wrapped(), net(1), "the encoder", images())


def test_tables_that_a_formula_gives_are_no_shared_weights() -> None:
    def with_table(seed: int) -> nn.Module:
        made = net(seed)
        made.register_buffer("index", torch.arange(4096))
        made.register_parameter("pos_embed", nn.Parameter(torch.arange(2048.0)))
        made.register_parameter("ones", nn.Parameter(torch.ones(2048)))
        return made

    _refuse_shared(with_table(0), with_table(1), "the encoder", images())


def test_a_mean_of_pictures_from_0_to_255_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not on the scale of \[0, 1\]"):
        Preprocessing(32, mean=(127.5,) * 3, std=(127.5,) * 3)
    Preprocessing(32, mean=(0.0,) * 3, std=(1 / 255,) * 3)


def test_what_is_taken_for_mean_and_std_is_told() -> None:
    (said,) = Wishes(32, mean=(0.5, 0.5, 0.5)).notes(Native())
    assert f"As none was given, std {IMAGENET_STD} is ImageNet's" in said
    (said,) = Wishes(32).notes(Native())
    assert "mean (0.485, 0.456, 0.406) and std" in said
    assert Wishes(32, mean=(0.5,) * 3, std=(0.5,) * 3).notes(Native()) == ()


def test_which_of_several_networks_was_read_is_told(tmp_path: Path) -> None:
    state = net(0).state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state, "model": {"a": 1}}, tmp_path / "c.pt")
    told: list[str] = []
    load_state(tmp_path / "c.pt", tell=told.append)
    assert len(told) == 1
    assert "'state_dict' was read, and not 'state_dict_ema'" in told[0]


def test_whole_numbers_are_no_weights() -> None:
    state = {name: (t * 100).to(torch.int8) for name, t in net(0).state_dict().items()}
    with pytest.raises(WeightsError, match=r"quantised\?\): 0\.weight \(int8\)"):
        load_into(net(1), state, where="x.pt")


def test_the_hash_of_a_graph_covers_the_weights_beside_it(tmp_path: Path) -> None:
    graph = b"\x08\x07graph\n\x08location\x12\x0enet.onnx.data.."  # as protobuf writes the entry
    path = tmp_path / "net.onnx"
    path.write_bytes(graph)
    alone = program_sha256(path)
    found = []
    for weights in (b"one", b"two", b"one"):
        (tmp_path / "net.onnx.data.").write_bytes(weights)
        found.append(program_sha256(path))
    assert found[0] == found[2] != found[1]
    assert alone not in found


def test_a_judge_without_tensors_is_known_by_its_code(tmp_path: Path) -> None:
    code = "from torch import nn\ndef make():\n    return nn.Flatten()\n"
    hashes = set()
    for name, text in (("a.py", code), ("b.py", code + "# other\n")):
        spec = f"{written(tmp_path, name, text)}:make"
        hashes.add(identity_of(spec, None, load_module(spec)))
    assert len(hashes) == 2


def test_a_folder_named_as_this_package_hides_nothing_of_it(tmp_path: Path) -> None:
    root = Path(sys.modules["leakaudit"].__file__ or "").parents[1]
    with at_home(str(root / "any.py")):  # a checkout that was entered before
        pass
    (tmp_path / "leakaudit").mkdir()
    with at_home(str(written(tmp_path, "net.py", LINEAR))):
        assert "leakaudit.models.encoder" in sys.modules


def test_modules_that_make_up_attributes_are_left_alone(tmp_path: Path) -> None:
    class Odd(ModuleType):  # as torch.classes
        def __getattr__(self, name: str) -> object:
            return object()

    odd = sys.modules["odd_one"] = Odd("odd_one")
    try:
        written(tmp_path, "odd_one.py", "")
        with at_home(str(written(tmp_path, "net.py", LINEAR))):
            assert sys.modules["odd_one"] is odd
    finally:
        del sys.modules["odd_one"]


def test_scales_that_are_hardly_trained_are_no_shared_weights() -> None:
    def with_scales(seed: int) -> nn.Module:
        made = net(seed)
        made.register_parameter("scale", nn.Parameter(1 + 0.001 * torch.randn(2048)))
        return made

    _refuse_shared(with_scales(1), with_scales(0), "the encoder", images())
    other = net(2)
    other.register_parameter("scale", nn.Parameter(torch.randn(2048)))
    both = net(3)
    both.register_parameter("scale", nn.Parameter(other.scale.detach().bfloat16().float()))
    with pytest.raises(WeightsError, match="shares weights"):
        _refuse_shared(both, other, "the encoder", images())
