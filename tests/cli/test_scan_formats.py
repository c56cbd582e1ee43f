"""Every form of encoder from a real file through a whole, small scan."""

import importlib.util
import warnings

import pytest
import torch
from audit.toy_subject import SIZE, people
from PIL import Image
from torch import nn

import leakaudit.cli.scan  # noqa: F401 - the command registers itself
from leakaudit.core.rng import Rng
from leakaudit.models.weights import save_safetensors, sha256_of
from leakaudit.report.json import read_result

PRESET = """
[attacks.blackbox-decoder]
training.steps = 4
training.batch = 8
[attacks.whitebox-latent]
restarts = 1
search.steps = 2
samples = 16
[training]
prior.steps = 2
oracle.steps = 2
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.conv(x))


class Cut(Net):
    def forward(self, x):
        return super().forward(x.detach())


@pytest.fixture
def folders(tmp_path):
    """Eight people with four pictures each, and forty others."""
    for name, count, pictures in (("private", 8, 4), ("public", 40, 1)):
        images, who = people(count, pictures, Rng(3, (name,)))
        for index, (image, person) in enumerate(zip(images, who.tolist(), strict=True)):
            place = tmp_path / name / f"p{person}"
            place.mkdir(parents=True, exist_ok=True)
            array = (image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(array).save(place / f"{index}.png")
    (tmp_path / "small.toml").write_text(PRESET)
    return tmp_path


@pytest.fixture
def scan(leakaudit, folders):
    def run(spec, *options):
        done = leakaudit(
            "scan", "--encoder", spec, "--images", folders / "private", "--public",
            folders / "public", "--input-size", SIZE, "--preset", folders / "small.toml",
            "--run-dir", folders / "run", *options,
        )  # fmt: skip
        result = read_result(folders / "run" / "result.json") if done.code == 0 else None
        return done, result

    return run


def made(form, folder, network=None):
    """A file of this form, with the feature of ``Net`` for pictures of the scan."""
    torch.manual_seed(0)
    network = (network or Net()).eval()
    example = torch.rand(3, 3, SIZE, SIZE)
    path = str(folder / f"net.{form}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "ts":
            torch.jit.trace(network, example).save(path)
        elif form == "pt2":
            torch.export.save(torch.export.export(network, (example,)), path)
        else:
            _onnx(network, path)
    return path


def _onnx(network, path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed, to write the file with")
    from onnx import TensorProto, helper, numpy_helper

    state = network.conv.state_dict()
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "weight", "bias"], ["c"], strides=[4, 4]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in state.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


@pytest.mark.parametrize("form", ["ts", "pt2"])
def test_a_program_is_scanned_with_consent_by_all_attacks(scan, folders, form):
    spec = made(form, folders)
    done, result = scan(spec, "--layer", "last")
    assert done.code == 2 and "--trust-encoder" in done.said
    done, result = scan(spec, "--layer", "last", "--trust-encoder")
    assert done.code == 0, done.said
    assert result.subject["encoder"] == f"net.{form}"
    assert result.subject["feature_shape"] == [4, SIZE // 4, SIZE // 4]
    for attack in ("blackbox-decoder", "whitebox-latent"):
        assert result.score("none", attack, "ssim").value is not None
    if form == "pt2":
        assert "exactly 3 pictures at once" in done.said


@pytest.mark.parametrize("form", ["ts", "onnx"])
def test_without_gradients_the_black_box_attacks_are_run_and_the_others_named(scan, folders, form):
    if form == "onnx" and importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed (it comes with the extra 'onnx')")
    spec = made(form, folders, Cut() if form == "ts" else None)
    consent = ["--trust-encoder"] if form == "ts" else []
    done, result = scan(spec, "--layer", "last", *consent)
    assert done.code == 0, done.said
    assert "Left out: whitebox-latent, as there is no gradient of the encoder" in done.said
    assert "whitebox-latent" in result.plan["left_out"]
    assert result.score("none", "blackbox-decoder", "ssim").value is not None


def test_a_depth_is_scanned_at_the_layer_that_is_said(scan, folders):
    (folders / "mine.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), "
        "nn.ReLU(), nn.Conv2d(4, 4, 1))\n"
    )
    done, result = scan(f"{folders / 'mine.py'}:make", "--layer", "0.9", "--channels", "bgr",
                        "--attacks", "blackbox-decoder")  # fmt: skip
    assert done.code == 0, done.said
    assert result.subject["layer"] == "1"
    assert "The depth 0.9 is nearest to layer '1'" in done.said


class Embeds(nn.Module):
    """In InceptionResnetV1's place, which has 28 million numbers."""

    def __init__(self, pretrained=None, classify=False):
        assert pretrained is None, "it would be downloaded"
        super().__init__()
        self.conv2d_1a, self.last = nn.Conv2d(3, 8, 40, stride=40), nn.Linear(128, 16)

    def forward(self, x):
        return nn.functional.normalize(self.last(self.conv2d_1a(x).relu().flatten(1)), dim=1)


def published(spec, folder):
    """A weights file for a published network; real ones are given by their owners."""
    kind, _, name = spec.partition(":")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "torchvision":
            from torchvision import models

            network = models.get_model(name, weights=None)
        elif kind == "timm":
            timm = pytest.importorskip("timm", reason="timm is not installed (the extra 'timm')")
            network = timm.create_model(name, pretrained=False)
        else:
            network = Embeds()
            network.logits = nn.Linear(1, 8631)
    torch.save(network.state_dict(), folder / "w.pt")
    return str(folder / "w.pt")


@pytest.mark.parametrize(
    ("spec", "layer", "feature"),
    [
        ("torchvision:squeezenet1_1", "features.2", [64, 7, 7]),
        pytest.param("timm:test_resnet.r160_in1k", "layer3", None, marks=pytest.mark.slow),
        ("facenet:vggface2", "last", [16]),
    ],
)
def test_a_published_network_is_scanned_with_weights_of_a_file(
    scan, folders, spec, layer, feature, monkeypatch
):
    monkeypatch.setattr("facenet_pytorch.InceptionResnetV1", Embeds)
    done, result = scan(spec, "--weights", published(spec, folders), "--layer", layer,
                        "--attacks", "blackbox-decoder")  # fmt: skip
    assert done.code == 0, done.said
    assert result.subject["encoder"] == spec
    assert feature is None or result.subject["feature_shape"] == feature
    resized = "resized to it" in done.said
    assert resized == (not spec.startswith("torchvision"))
    assert result.score("none", "blackbox-decoder", "ssim").value is not None


@pytest.mark.parametrize(("kind", "half"), [("safetensors", ".bfloat16()"), ("pt", "")])
def test_a_module_is_scanned_with_weights_of_a_wrapped_checkpoint(
    scan, folders, kind, half, monkeypatch
):
    made = f"nn.Sequential(nn.Conv2d(3, 4, 4, 4)){half}"
    code = f"from torch import nn\n\n\ndef make():\n    return {made}\n"
    package = folders / "mine_of_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(code)
    monkeypatch.syspath_prepend(str(folders))
    torch.manual_seed(0)
    state = {f"module.{k}": v for k, v in nn.Sequential(nn.Conv2d(3, 4, 4, 4)).state_dict().items()}
    path = folders / f"w.{kind}"
    if kind == "safetensors":
        save_safetensors(path, state)
    else:
        torch.save({"epoch": 3, "state_dict": state}, path)
    done, result = scan("mine_of_tests.nets:make", "--weights", path, "--layer", "0",
                        "--attacks", "blackbox-decoder")  # fmt: skip
    assert done.code == 0, done.said
    assert result.subject["weights_sha256"] == sha256_of(path)
    assert result.score("none", "blackbox-decoder", "ssim").value is not None
    unlike = {f"module.{k}": v for k, v in nn.Sequential(nn.Linear(2, 2)).state_dict().items()}
    save_safetensors(folders / "other.safetensors", unlike)
    done, _ = scan("mine_of_tests.nets:make", "--weights", folders / "other.safetensors",
                   "--layer", "0", "--attacks", "blackbox-decoder")  # fmt: skip
    assert done.code == 2 and "0.weight" in done.said


def test_several_judges_stand_in_result_gates_and_report(scan, folders):
    (folders / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Conv2d(3, 4, 4, 4)\n"
    )
    (folders / "eye.py").write_text(
        "from torch import nn\ndef make():\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())\n"
    )
    done, result = scan(
        f"{folders / 'net.py'}:make", "--layer", "last", "--attacks", "blackbox-decoder",
        "--oracle", "trained", "--oracle", f"{folders / 'eye.py'}:make",
        "--oracle-mean", "0.5,0.5,0.5", "--fail-on", "none.worst.identification-eye>0.9@value",
    )  # fmt: skip
    assert done.code in (1, 3), done.said  # eight faces are too few to pass
    result = read_result(folders / "run" / "result.json")
    (judge,) = result.subject["judges"]
    assert (judge["name"], judge["oracle"]) == ("eye", "the user's eye.py:make")
    assert result.score("none", "original", "identification-eye").value == 1.0
    assert result.gates[0].metric == "identification-eye" and result.gates[0].value is not None
    html = (folders / "run" / "report.html").read_text()
    assert "Identification, judge eye" in html
