"""A layer's activations computed again in the backward pass: https://arxiv.org/abs/1604.06174.

As `torch.utils.checkpoint` in its reentrant variant does it, which imports torch's compiler for
that, 75 MB. The other variant holds a layer's activations for longer than the layer's turn.
"""

from collections.abc import Callable
from typing import Any

import torch


def recomputed(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """``layer(x)``, of which x alone is kept.

    Args:
        layer: Computes the same every time. Gradients of what it is made of are added up in its
            own backward pass.
        x: Needs a gradient, or there would be no backward pass here.
    """
    y: torch.Tensor = _Recomputed.apply(x, layer)  # type: ignore[no-untyped-call]  # torch has none
    return y


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, layer: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        return layer(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.layer(x)
        torch.autograd.backward(y, gradients)
        return x.grad, None
