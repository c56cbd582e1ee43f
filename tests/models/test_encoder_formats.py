"""Encoders as files and by published names: each is run from a real file, or refused in words."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leakaudit.core.errors import UnknownNameError, UsageError, WeightsError
from leakaudit.models import published
from leakaudit.models.encoder import (
    Preprocessing,
    SplitEncoder,
    check_features,
    load_encoder,
    load_module,
)
from leakaudit.models.preprocessing import IMAGENET_MEAN, Native, Wishes
from leakaudit.models.programs import Batch, NoGradientError, Program
from leakaudit.models.weights import sha256_of

PLAIN = Preprocessing(16)

needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None,
    reason="onnxruntime and onnx are not installed (they come with the extra 'onnx' and pip)",
)
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None,
    reason="timm is not installed (it comes with the extra 'timm')",
)


class Small(nn.Module):
    """A strided convolution: its feature can be computed by hand, and it is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 4, stride=4)
        with torch.no_grad():
            self.conv.weight.copy_(torch.linspace(-1, 1, 192).view(4, 3, 4, 4))
            self.conv.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x))


class Pair(Small):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x, x


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def scripted(path: Path, network: nn.Module | None = None) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network or Small(), torch.rand(2, 3, 16, 16)).save(str(path / "net.ts"))
    return str(path / "net.ts")


def exported(path: Path, *, batch: object = 2, network: nn.Module | None = None) -> str:
    dims = None if isinstance(batch, int) else ({0: batch},)
    count = batch if isinstance(batch, int) else 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.rand(count, 3, 16, 16),)
        program = torch.export.export((network or Small()).eval(), example, dynamic_shapes=dims)
        torch.export.save(program, path / "net.pt2")
    return str(path / "net.pt2")


def onnx_file(path: Path, *, batch: object = "n", outputs: int = 1, channels: int = 3) -> str:
    """The same convolution as an ONNX graph, written by hand."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    network = Small()
    weights = [
        numpy_helper.from_array(tensor.detach().numpy(), name)
        for name, tensor in (("w", network.conv.weight), ("b", network.conv.bias))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[4, 4]),
        helper.make_node("Tanh", ["c"], ["y"]),
    ]
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", floats, [batch, channels, 16, 16])],
        [helper.make_tensor_value_info(n, floats, None) for n in ("y", "c")[:outputs]],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path / "net.onnx")
    return str(path / "net.onnx")


def load(spec: str, *, layer: str = "last", trust: bool = True) -> SplitEncoder:
    return load_encoder(spec, weights=None, layer=layer, preprocessing=PLAIN, trust=trust)


# Programs


def test_torchscript_gives_the_feature_of_the_network_and_its_gradient(
    tmp_path: Path, images: Tensor
) -> None:
    spec = scripted(tmp_path)
    encoder = load(spec)
    assert torch.allclose(encoder(images), Small()(images), atol=1e-6)
    assert encoder.differentiable and encoder.feature_shape == (4, 4, 4)
    assert (encoder.name, encoder.weights_sha256) == ("net.ts", sha256_of(Path(spec)))
    theirs, ours = images.clone().requires_grad_(), images.clone().requires_grad_()
    encoder(theirs).sum().backward()
    Small()(ours).sum().backward()
    assert theirs.grad is not None and ours.grad is not None
    assert torch.allclose(theirs.grad, ours.grad, atol=1e-6)


@pytest.mark.parametrize("form", [scripted, exported])
def test_a_file_that_can_run_code_is_not_opened_without_consent(
    tmp_path: Path, form: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = form(tmp_path)  # type: ignore[operator]
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("opened"))
    monkeypatch.setattr(torch.export, "load", lambda *a, **k: pytest.fail("opened"))
    with pytest.raises(UsageError, match=r"can run code .* not opened .*--trust-encoder"):
        load(spec, trust=False)


def test_a_program_of_a_fixed_batch_is_run_in_blocks_and_says_so(
    tmp_path: Path, images: Tensor
) -> None:
    encoder = load(exported(tmp_path, batch=2))
    whole = encoder(images)  # five pictures: two blocks and a filled one
    assert torch.allclose(whole, Small()(images), atol=1e-6)
    assert torch.allclose(encoder(images[:1]), whole[:1], atol=1e-6)
    assert any("exactly 2 pictures" in note for note in encoder.notes)
    assert encoder.counter.passes >= 6
    given = images.clone().requires_grad_()
    encoder(given).sum().backward()
    plain = images.clone().requires_grad_()
    Small()(plain).sum().backward()
    assert given.grad is not None and plain.grad is not None
    assert torch.allclose(given.grad, plain.grad, atol=1e-6)  # the filling adds nothing


def test_a_program_of_a_dynamic_batch_takes_any_and_needs_no_note(
    tmp_path: Path, images: Tensor
) -> None:
    encoder = load(exported(tmp_path, batch=torch.export.Dim("n")))
    assert torch.allclose(encoder(images), Small()(images), atol=1e-6)
    assert encoder.notes == () and encoder.differentiable
    encoder.train()  # exported programs refuse this themselves
    encoder.eval()


def test_the_limits_of_a_dynamic_batch_are_kept(images: Tensor) -> None:
    sizes = []

    def run(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.flatten(1)

    program = Program(run, name="p", batch=Batch(2, 3))
    assert torch.equal(program(images[:4]), images[:4].flatten(1))
    assert sizes == [3, 2]


def test_a_program_made_for_one_size_gets_its_pictures_at_that_size(tmp_path: Path) -> None:
    encoder = load_encoder(
        exported(tmp_path), weights=None, layer="last", preprocessing=Wishes(32), trust=True
    )
    assert encoder.preprocessing.height_width == (16, 16)
    assert encoder.preprocessing.mean == IMAGENET_MEAN
    assert encoder(torch.rand(1, 3, 32, 32)).shape == (1, 4, 4, 4)
    assert any("takes pictures of 16 x 16" in note for note in encoder.notes)


@pytest.mark.parametrize("layer", ["conv", "0.5", "run"])
def test_a_program_has_no_layers_inside(tmp_path: Path, layer: str) -> None:
    with pytest.raises(UsageError, match=r"runs as a whole.*--layer last"):
        load(scripted(tmp_path), layer=layer)


@pytest.mark.parametrize("form", [scripted, exported])
def test_a_program_with_two_outputs_is_refused(tmp_path: Path, form: object) -> None:
    with pytest.raises(UsageError, match="a feature is one tensor"):
        load(form(tmp_path, network=Pair()))  # type: ignore[operator]


@pytest.mark.parametrize(("name", "kind"), [("net.ts", "TorchScript"), ("net.pt2", "torch.export")])
@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 but no archive"])
def test_a_damaged_program_is_refused_in_words(
    tmp_path: Path, name: str, kind: str, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"no {kind} program") as caught:
        load(str(tmp_path / name))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err  # torch.export would log one


def test_a_missing_program_and_weights_beside_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load(str(tmp_path / "gone.pt2"))
    with pytest.raises(UsageError, match="holds its own weights"):
        load_encoder(
            scripted(tmp_path),
            weights=tmp_path / "w.pt",
            layer="last",
            preprocessing=PLAIN,
            trust=True,
        )


# Programs without gradients


def without_gradient() -> Program:
    return Program(Small(), name="p.onnx", batch=Batch(), differentiable=False)


def test_a_program_without_gradients_says_so_and_refuses_to_be_followed(images: Tensor) -> None:
    encoder = SplitEncoder(without_gradient(), "last", preprocessing=PLAIN, name="p.onnx")
    assert not encoder.differentiable
    assert encoder(images).shape == (5, 4, 4, 4)
    with pytest.raises(NoGradientError, match="gives none"):
        encoder(images.clone().requires_grad_())
    with torch.no_grad():
        encoder(images.clone().requires_grad_())


def test_a_program_that_cuts_its_gradient_is_found_out(tmp_path: Path) -> None:
    class Cut(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach())

    assert not load(scripted(tmp_path, Cut())).differentiable


# ONNX


def test_without_onnxruntime_the_command_to_install_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.onnx").write_bytes(b"x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'onnxruntime"):
        load(str(tmp_path / "net.onnx"))


@needs_onnx
@pytest.mark.parametrize("batch", ["n", 2])
def test_onnx_gives_the_feature_of_the_network_without_consent(
    tmp_path: Path, images: Tensor, batch: object
) -> None:
    encoder = load(onnx_file(tmp_path, batch=batch), trust=False)
    assert torch.allclose(encoder(images), Small()(images), atol=1e-5)
    assert not encoder.differentiable and "gives no gradients" in encoder.notes[-1]
    assert check_features(encoder, images) == ()
    for ask in (torch.func.vjp, lambda f, x: f(x.clone().requires_grad_())):
        with pytest.raises(NoGradientError):
            ask(encoder, images)


@needs_onnx
def test_onnx_of_another_kind_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"2 outputs \(y, c\)"):
        load(onnx_file(tmp_path, outputs=2))
    with pytest.raises(WeightsError, match=r"input of shape \(1, 1, 16, 16\)"):
        load(onnx_file(tmp_path, batch=1, channels=1))
    (tmp_path / "net.onnx").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="no ONNX program"):
        load(str(tmp_path / "net.onnx"))


# Published names


class Face(nn.Module):
    """In InceptionResnetV1's place: as many children, none of its 28 million numbers."""

    def __init__(self, pretrained: str | None = None, classify: bool = False) -> None:
        assert pretrained is None, "it would be downloaded"
        super().__init__()
        self.last_linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last_linear(x.mean((2, 3)))


@pytest.fixture
def facenet(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("facenet_pytorch")
    fake.InceptionResnetV1 = Face  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "facenet_pytorch", fake)
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda name: fake)


def facenet_file(path: Path, people: int) -> Path:
    head = {"logits.weight": torch.zeros(people, 1), "logits.bias": torch.zeros(people)}
    body = {"last_linear.weight": torch.eye(3)[:2], "last_linear.bias": torch.zeros(2)}
    torch.save({**body, **head}, path / "face.pt")
    return path / "face.pt"


@pytest.mark.usefixtures("facenet")
def test_facenet_has_its_own_preprocessing_and_does_without_the_head(tmp_path: Path) -> None:
    weights = facenet_file(tmp_path, 8631)
    encoder = load_encoder(
        "facenet:vggface2", weights=weights, layer="last", preprocessing=Wishes(64)
    )
    white = encoder(torch.ones(1, 3, 64, 64))[0]
    assert torch.allclose(white, torch.full((2,), 127.5 / 128), atol=1e-5)
    assert encoder.preprocessing.height_width == (160, 160)
    assert any("logits" in note for note in encoder.notes)
    judge = load_module("facenet:vggface2", weights)
    assert torch.allclose(judge(torch.ones(1, 3, 64, 64))[0], white)


@pytest.mark.usefixtures("facenet")
def test_facenet_weights_of_the_other_name_are_refused(tmp_path: Path) -> None:
    weights = facenet_file(tmp_path, 10575)
    with pytest.raises(WeightsError, match=r"Say facenet:casia-webface"):
        load_module("facenet:vggface2", weights)
    load_module("facenet:casia-webface", weights)
    with pytest.raises(UnknownNameError, match="casia-webface"):
        load_module("facenet:casia", weights)
    with pytest.raises(WeightsError, match="random ones are never audited"):
        load_module("facenet:vggface2")


def test_the_users_own_mean_and_std_win_over_the_networks() -> None:
    native = Native((160, 160), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    found = Wishes(64, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)).over(native)
    assert (found.mean, found.std, found.input_size) == (
        (0.1, 0.2, 0.3),
        (1.0, 1.0, 1.0),
        (160, 160),
    )
    assert Wishes(64).over(Native()).mean == IMAGENET_MEAN


def test_without_timm_the_command_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'timm"):
        load("timm:resnet18")


@needs_timm
def test_timm_networks_have_the_preprocessing_of_their_configuration(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_resnet.r160_in1k", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    encoder = load_encoder(
        "timm:test_resnet.r160_in1k",
        weights=tmp_path / "w.pt",
        layer="layer1",
        preprocessing=Wishes(64),
    )
    config = timm.data.resolve_model_data_config(network)
    assert encoder.preprocessing.height_width == tuple(config["input_size"][1:])
    assert encoder.preprocessing.mean == tuple(config["mean"])
    with pytest.raises(UnknownNameError, match="Did you mean"):
        load("timm:test_resnt")
    with pytest.raises(UsageError, match=r"timm:test_resnet\.no_such_tag"):
        load("timm:test_resnet.no_such_tag")
    with pytest.raises(WeightsError, match="random ones"):
        load("timm:test_resnet")
