"""Floating point operations of a forward pass and of its backward pass, counted call by call from shapes.

Matrix products, convolutions and attention count, two operations for a multiplication with an addition; a causal
attention counts whole. torch's own counter says the same of the forward pass; of the backward pass of a grouped
convolution, of which EfficientNets are made, it says as many times too much as there are groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def _linear(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return 2 * out.numel() * weight.shape[1]


def _convolution(out: Tensor, x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return 2 * out.numel() * weight[0].numel()


def _product(out: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return 2 * out.numel() * a.shape[-1]


def _attention(out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return 2 * query.numel() * key.shape[-2] + 2 * out.numel() * key.shape[-2]


_COUNTED: dict[Any, Callable[..., int]] = {
    F.linear: _linear,
    F.conv2d: _convolution,
    torch.conv2d: _convolution,
    F.scaled_dot_product_attention: _attention,
    torch.matmul: _product,
    Tensor.matmul: _product,
    Tensor.__matmul__: _product,
    torch.bmm: _product,
    Tensor.bmm: _product,
}


class FlopCounter(TorchFunctionMode):
    """`with FlopCounter() as count:` adds to `count.forward` and `count.backward`.

    The gradient of a product costs as much as the product, once for each operand that has one; that of attention two
    and a half times as much, because the scores are computed again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forward = self.backward = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        operations = _COUNTED.get(func)
        if operations is not None:
            number = operations(out, *args, **(kwargs or {}))
            self.forward += number
            if out.requires_grad and func is F.scaled_dot_product_attention:
                self.backward += number * 5 // 2
            elif out.requires_grad:
                self.backward += number * sum(operand.requires_grad for operand in args[:2])
        return out
