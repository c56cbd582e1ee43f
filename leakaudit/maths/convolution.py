"""Convolutions that are cheap to differentiate twice by their input, their weights being fixed.

A product with a Jacobian J is the derivative of w -> w' J, so it runs through the derivative of
each convolution's backward pass. PyTorch's own derivative of it makes that of the weights as well,
asked for or not: as much work again. The numbers are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Shape(NamedTuple):
    """How a convolution steps."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


@final
class FixedConvolutions(TorchFunctionMode):
    """Within this context 2-D convolutions with fixed weights are differentiated by input only.

    What it doesn't know (padding in words, weights that learn, autocast) is left as it is.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Puts our function in place of a convolution of the kind that it knows."""
        given = dict(kwargs or {})
        if func is torch.conv2d and (known := _known(*args, **given)) is not None:
            return _Forward.apply(*known)  # type: ignore[no-untyped-call]
        return func(*args, **given)


def _known(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None, _Shape] | None:
    """The arguments of a convolution that can be replaced, or nothing."""
    learns = weight.requires_grad or (bias is not None and bias.requires_grad)
    plain = input.dim() == 4 and input.requires_grad and not isinstance(padding, str)
    if learns or not plain or torch.is_autocast_enabled(input.device.type):
        return None
    return input, weight, bias, _Shape(_pair(stride), _pair(padding), _pair(dilation), groups)


def _pair(value: Any) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * 2 if len(numbers) == 1 else numbers


@final
class _Forward(torch.autograd.Function):
    """A convolution; its backward pass is ``_Back``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: _Shape) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return torch.conv2d(x, weight, bias, how.stride, how.padding, how.dilation, how.groups)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return _Back.apply(slopes[0], x, weight, ctx.how), None, None, None  # type: ignore[no-untyped-call]


@final
class _Back(torch.autograd.Function):
    """The derivative by a convolution's input: linear, and its derivative is the convolution."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, x: Tensor, weight: Tensor, how: _Shape) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.how = how
        back: Tensor = torch.ops.aten.convolution_backward(
            slope, x, weight, None, how.stride, how.padding, how.dilation, False, [0, 0],
            how.groups, [True, False, False],
        )[0]  # fmt: skip
        return back

    @staticmethod
    def backward(ctx: Any, *ways: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        how = ctx.how
        pushed = torch.conv2d(
            ways[0], weight, None, how.stride, how.padding, how.dilation, how.groups
        )
        return pushed, None, None, None
