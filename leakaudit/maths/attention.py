"""Attention in plain operations, which have derivatives of any order.

PyTorch's fused kernels of scaled dot-product attention have a derivative on a CPU, and none of that
derivative, which a product with a Jacobian J takes: it is the derivative of w -> w' J.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as fn
from torch.overrides import TorchFunctionMode


@final
class PlainAttention(TorchFunctionMode):
    """Within this context attention is computed as softmax(Q K' / sqrt(d)) V, step by step.

    What drops out at random is left as it is. Source: Vaswani et al. 2017, Eq. 1.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Puts our function in place of the fused one."""
        given = dict(kwargs or {})
        if func is fn.scaled_dot_product_attention and not _dropout(*args, **given):
            return attention(*args, **given)
        if func is fn.multi_head_attention_forward and not given.get("need_weights", True):
            # Within functions of torch no mode is in force; with weights it takes plain operations.
            return func(*args, **{**given, "need_weights": True})[0], None
        return func(*args, **given)


def _dropout(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, *_: Any, **__: Any,
) -> float:  # fmt: skip
    return dropout_p


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """What ``torch.nn.functional.scaled_dot_product_attention`` gives, without dropout.

    Queries (..., L, d), keys (..., S, d) and values (..., S, v) to (..., L, v). A mask of truths
    says what takes part, one of numbers is added; with ``enable_gqa`` heads share keys and values.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (scale or 1 / math.sqrt(query.shape[-1]))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value
