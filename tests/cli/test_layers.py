"""``leakaudit layers``, and ``--layer`` as a path or as a depth."""

import json
import re

import pytest
import torch
from torch import nn

import leakaudit.cli.layers  # noqa: F401 - the command registers itself
from leakaudit.core.errors import UnknownNameError
from leakaudit.models.encoder import Preprocessing, load_encoder
from leakaudit.models.layers import layer_at, layer_table, nearest_layer

# Multiply-adds on 16 x 16 pictures: 4*3*1*256 = 3072, then 12*4*1*64 = 3072, then 12*512 = 6144.
CODE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU()
        self.b = nn.Conv2d(4, 12, 1, stride=2)
        self.pair = Pair()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, 512)
        self.idle = nn.Linear(2, 2)
    def forward(self, x):
        x = self.act(self.b(self.act(self.a(x))))
        return self.fc(self.pool(self.pair(x)[0]).flatten(1))
class Pair(nn.Module):
    def forward(self, x):
        return x, x
"""
SMALL = Preprocessing(16)


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    return f"{tmp_path / 'mine.py'}:Net"


def test_the_listing_has_path_shape_size_and_depth(leakaudit, spec):
    done = leakaudit("layers", spec, "--input-size", "16", "--format", "json")
    assert done.code == 0
    found = json.loads(done.out)
    assert (found["encoder"], found["input_size"]) == ("mine.py:Net", [16, 16])
    rows = {row["path"]: row for row in found["layers"]}
    assert list(rows) == ["a", "act", "b", "pair", "pool", "fc", "last", "idle"]
    assert rows["a"] == {
        "path": "a", "type": "Conv2d", "shape": [4, 16, 16], "megabytes": 4e-6 * 1024,
        "depth": 0.25, "runs": 1, "cut": True,
    }  # fmt: skip
    assert [rows[p]["depth"] for p in ("act", "b", "pool", "fc", "last")] == [
        0.25, 0.5, 0.5, 1.0, 1.0,
    ]  # fmt: skip
    assert (rows["act"]["runs"], rows["act"]["shape"]) == (2, [4, 16, 16])
    assert rows["pair"]["shape"] is None and rows["idle"]["runs"] == 0


def test_the_table_shows_what_can_be_split_at_and_names_the_others(leakaudit, spec):
    done = leakaudit("layers", spec, "--input-size", "16")
    lines = done.out.splitlines()
    assert lines[0].split() == ["layer", "type", "shape", "MB", "a", "face", "depth"]
    assert lines[1].split() == ["a", "Conv2d", "4x16x16", "0.0041", "0.250"]
    assert lines[2].endswith("first of 2 runs")
    assert not any(line.startswith(("pair", "idle")) for line in lines)
    assert "2 more can't be split at" in done.said and "pair, idle" in done.said


def test_a_published_network_is_listed_without_weights(leakaudit):
    done = leakaudit("layers", "torchvision:squeezenet1_1", "--input-size", "32")
    assert done.code == 0 and "features.3.squeeze" in done.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["torchvision:resnet81"], "Did you mean"),
        (["gone.py:make"], "no such Python file"),
        (["net.ts"], "no such file"),
        (["SPEC", "--format", "xml"], "Unknown format 'xml'"),
        (["SPEC", "--weights", "gone.pt"], "no such weights file"),
    ],
)
def test_wrong_input_ends_with_two(leakaudit, spec, arguments, told):
    done = leakaudit("layers", *(spec if a == "SPEC" else a for a in arguments))
    assert done.code == 2 and told in done.said


def test_a_depth_means_the_last_of_the_nearest_layers_and_that_is_said(spec):
    encoder = load_encoder(spec, weights=None, layer="0.55", preprocessing=SMALL)
    assert encoder.layer == "pool"  # b and pool are both at 0.5; pool runs last
    assert any("0.55 is nearest to layer 'pool'" in note for note in encoder.notes)
    assert load_encoder(spec, weights=None, layer="0.1", preprocessing=SMALL).layer == "act"
    assert load_encoder(spec, weights=None, layer="1.0", preprocessing=SMALL).layer == "last"


def test_a_path_of_digits_is_a_path_and_not_a_depth():
    network = nn.Sequential(nn.Sequential(nn.Identity(), nn.ReLU()), nn.Flatten())
    assert nearest_layer(network, "0.1", SMALL, name="n") == ("0.1", ())
    path, notes = nearest_layer(network, "0.9", SMALL, name="n")
    assert path in ("1", "last") and notes  # nothing multiplies here: depth is the position
    with pytest.raises(UnknownNameError, match="layer '0\\.1\\.2'"):
        nearest_layer(network, "0.1.2", SMALL, name="n")
    with pytest.raises(UnknownNameError, match="layer '1\\.5'"):
        nearest_layer(network, "1.5", SMALL, name="n")


class Residual(nn.Module):
    """``start`` and ``out`` are cuts, all between them are branches."""

    def __init__(self):
        super().__init__()
        self.start = nn.Conv2d(3, 4, 1)
        self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.act, self.out = nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.start(x)
        return self.out(self.act(self.one(x)) + self.two(x))


def test_branches_are_told_from_cuts_and_a_depth_never_means_one(leakaudit, tmp_path):
    network = Residual().requires_grad_(False)
    cuts = {row.path: row.cut for row in layer_table(network, SMALL, name="n")}
    assert cuts == {
        "start": True, "one": False, "act": False, "two": False, "out": True, "last": True,
    }  # fmt: skip
    assert nearest_layer(network, "0.5", SMALL, name="n")[0] == "start"  # 3/15; the sum is no layer
    (tmp_path / "two.py").write_text(
        "from torch import nn\nclass N(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.a, self.b = nn.ReLU(), nn.ReLU()\n"
        "    def forward(self, x):\n        return (self.a(x) - self.b(-x)).flatten(1)\n"
    )
    done = leakaudit("layers", f"{tmp_path / 'two.py'}:N", "--input-size", "8")
    assert [line.split()[-1] for line in done.out.splitlines()[1:]] == ["branch", "branch", "1.000"]
    assert "branch: not all" in done.said


def test_a_network_that_refuses_gradients_is_listed_all_the_same():
    class Numpy(nn.Module):
        def forward(self, x):
            return torch.from_numpy(x.numpy()).flatten(1)

    (row,) = layer_table(Numpy(), SMALL, name="n")
    assert (row.path, row.shape, row.cut) == ("last", (768,), True)


def test_the_network_is_left_without_hooks():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).eval()
    table = layer_table(network, SMALL, name="n")
    assert not any(module._forward_hooks for module in network.modules())
    assert layer_at(table, 0.3).path == "last"
    assert network(torch.ones(1, 3, 4, 4)).shape == (1, 2, 4, 4)


def test_names_that_would_steer_a_terminal_or_a_runner_are_listed_inert(leakaudit, tmp_path):
    (tmp_path / "odd.py").write_text(
        "from torch import nn\ndef make():\n    net = nn.Sequential()\n"
        "    net.add_module('::error::x', nn.Conv2d(3, 4, 4))\n"
        "    net.add_module('##[group]\\x1b[31m', nn.ReLU())\n"
        "    net.add_module('::idle::', nn.Bilinear(1, 1, 1))\n"
        "    net.forward = lambda x: net[1](net[0](x))\n    return net\n"
    )
    done = leakaudit("layers", f"{tmp_path / 'odd.py'}:make", "--input-size", "16")
    assert done.code == 0, done.said
    assert "error" in done.out and "group" in done.out and "idle" in done.err
    for text in (done.out, done.err):
        assert not re.search(r"^\s*::|##\[|\x1b", text, re.MULTILINE)
