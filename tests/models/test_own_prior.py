"""A user's own generator as the prior: what is taken, and what is refused at the door."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from leakaudit.attacks.latent import Meter
from leakaudit.audit.priors import given_prior
from leakaudit.core.errors import UnknownNameError, UsageError, WeightsError
from leakaudit.core.rng import Rng
from leakaudit.core.threats import WhiteBox
from leakaudit.models.own_prior import load_own_prior
from leakaudit.models.weights import sha256_of, sha256_of_state

GOOD = """
import torch
from torch import nn

class Own(nn.Module):
    latent = 5
    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(5, 3 * 16 * 16)
    def forward(self, z):
        x = torch.sigmoid(self.lift(z)).view(-1, 3, 16, 16)
        return nn.functional.interpolate(x, scale_factor=2.0)

def make():
    torch.manual_seed(0)
    return Own()

class Changed(Own):
    def forward(self, z):
        return self.change(super().forward(z), z)

def changed(change, **attributes):
    def factory():
        net = Changed()
        net.change = change
        for name, value in attributes.items():
            setattr(net, name, value)
        return net
    return factory

plus_minus = changed(lambda x, z: 2 * x - 1)
nan = changed(lambda x, z: x * float("nan"))
small = changed(lambda x, z: x[..., ::2, ::2])
grey = changed(lambda x, z: x[:, :1])
random = changed(lambda x, z: (x + 0.1 * torch.rand_like(x)).clamp(0, 1))
mixing = changed(lambda x, z: (x + x.mean(0) ) / 2)
constant = changed(lambda x, z: x * 0 + 0.5)
stuck = changed(lambda x, z: x.detach())
whole = changed(lambda x, z: (x * 255).long())
pair = changed(lambda x, z: (x, z))
fails = changed(lambda x, z: x @ z)
unsaid = changed(lambda x, z: x, latent=None)
wordy = changed(lambda x, z: x, latent="512")
longer = changed(lambda x, z: x, latent=6)

class Formula(nn.Module):
    latent = 2
    def forward(self, z):
        line = torch.linspace(-1, 1, 32)
        x = torch.sigmoid(z[:, :1, None] * line[:, None] + z[:, 1:, None] * line)
        return x[:, None].expand(-1, 3, -1, -1)

def formula():
    return Formula()
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gen.py"
    path.write_text(GOOD)
    return path


def test_it_does_all_that_a_prior_does(file) -> None:
    prior = load_own_prior(f"{file}:make", None, size=32)
    assert (prior.shape.size, prior.shape.latent) == (32, 5)
    z = prior.draw(4, Rng(1))
    assert prior(z).shape == (4, 3, 32, 32)
    assert prior.sample(3, Rng(1)).shape == (3, 3, 32, 32)
    torch.testing.assert_close(prior.sample(3, Rng(1), batch=1), prior.sample(3, Rng(1)))
    assert len(prior.stages()) == 1 and torch.equal(prior.stages()[0](z), prior(z))
    assert not any(p.requires_grad for p in prior.parameters())
    assert sha256_of_state(prior) == sha256_of_state(load_own_prior(f"{file}:make", None, size=32))
    meter = Meter(WhiteBox(prior.sample(2, Rng(0)), torch.nn.Identity(), prior))
    assert len(meter.stages()) == 1  # nothing to widen but the latent


def test_its_weights_are_read_and_hashed(file, tmp_path) -> None:
    prior = load_own_prior(f"{file}:make", None, size=32)
    state = {k.removeprefix("generator.network."): v + 0.1 for k, v in prior.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    found = given_prior(f"{file}:make", tmp_path / "w.safetensors", size=32)
    assert torch.equal(found.prior.state_dict()["generator.network.lift.bias"], state["lift.bias"])
    assert found.sha256 == sha256_of(tmp_path / "w.safetensors")
    assert given_prior(f"{file}:make", None, size=32).sha256 != found.sha256
    save_file({"other": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="don't fit"):
        given_prior(f"{file}:make", tmp_path / "w.safetensors", size=32)


def test_a_formula_without_weights_is_known_by_its_file(file) -> None:
    found = given_prior(f"{file}:formula", None, size=32)
    assert found.prior.draw(3, Rng(1)).shape == (3, 2)
    assert found.sha256 == sha256_of(file)


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("plus_minus", r"from -0\.\d+ to 0\.\d+.*\(x \+ 1\) / 2"),
        ("nan", "NaN or infinite"),
        ("small", r"\(8, 3, 16, 16\) and not \(8, 3, 32, 32\); say --input-size 16"),
        ("grey", r"\(8, 1, 32, 32\)"),
        ("random", "another picture for the same latent"),
        ("mixing", "depends on what else is in the batch"),
        ("constant", "same picture for every latent"),
        ("stuck", "no finite gradient"),
        ("whole", "int64, not a tensor of floating"),
        ("pair", "gives tuple"),
        ("fails", r"raised RuntimeError.*gen\.py, line"),
        ("unsaid", "doesn't say how long its latent is.*self.latent = 128"),
        ("wordy", "says '512' of how long"),
        ("longer", r"latents of shape \(8, 6\).*raised"),
    ],
)
def test_what_is_wrong_with_it_is_said(file, factory, told) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        load_own_prior(f"{file}:{factory}", None, size=32)
    assert str(file.parent) not in str(caught.value)


def test_an_unknown_factory_and_other_forms_are_refused(file, tmp_path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean make"):
        load_own_prior(f"{file}:mak", None, size=32)
    for spec in ("torchvision:resnet18", "gan.onnx", "file.py:", "x:gan.pt2"):
        with pytest.raises(UsageError, match="doesn't name a generator"):
            load_own_prior(spec, None, size=32)
    with pytest.raises(UsageError, match="no such Python file"):
        given_prior("gone.py:make", None, size=32)
    with pytest.raises(UsageError, match="no such weights file"):
        given_prior("gone.safetensors", None, size=32)
    (tmp_path / "p.safetensors").write_bytes(b"x")
    with pytest.raises(UsageError, match="--prior-weights belongs to a generator"):
        given_prior(str(tmp_path / "p.safetensors"), tmp_path / "w.safetensors", size=32)
