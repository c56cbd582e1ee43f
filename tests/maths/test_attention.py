"""Attention in plain operations is the fused one, and has a second derivative."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as fn

from leakaudit.maths.attention import PlainAttention, attention
from leakaudit.maths.hypergradient import linearise


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MASK = torch.ones(5, 7, dtype=torch.bool).tril(1)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": MASK},
        {"attn_mask": normal(5, 7, seed=4)},
        {"enable_gqa": True},
    ],
    ids=["plain", "scale", "causal", "truths", "numbers", "groups"],
)
def test_it_is_what_torch_computes(how):
    heads = 2 if "enable_gqa" in how else 4
    query, key, value = normal(3, 4, 5, 8), normal(3, heads, 7, 8, seed=1), normal(3, heads, 7, 6)
    wanted = fn.scaled_dot_product_attention(query, key, value, **how)
    assert torch.allclose(attention(query, key, value, **how), wanted, atol=1e-12)
    with PlainAttention():
        assert torch.allclose(
            fn.scaled_dot_product_attention(query, key, value, **how), wanted, atol=1e-12
        )


@pytest.mark.parametrize("masked", [False, True])
def test_products_with_the_jacobian_of_a_transformer_are_finite_differences(masked):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    layer.requires_grad_(False)
    mask = torch.full((4, 4), -torch.inf, dtype=torch.float64).triu(1) if masked else None

    def response(z):
        return layer(z.view(-1, 4, 8), src_mask=mask)

    z, p = normal(3, 32), normal(3, 32, seed=1)
    at = linearise(response, z)
    step = 1e-6
    apart = (response(z + step * p) - response(z - step * p)) / (2 * step)
    assert torch.allclose(at.feature, response(z), atol=1e-12)
    assert torch.allclose(at.push(p), apart, atol=1e-7)


def test_attention_with_weights_gives_them_still():
    torch.manual_seed(0)
    heads = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    x = normal(2, 4, 8).requires_grad_()
    with PlainAttention():
        out, weights = heads(x, x, x)
        same, none = heads(x, x, x, need_weights=False)
    assert none is None and weights.shape == (2, 4, 4)
    assert torch.allclose(out, same, atol=1e-12)
