"""A frozen linear layer with a low-rank adapter on it, computed so that little is remembered.

``y = x W' + b + s (x A') B'`` with ``s = alpha / rank``, as PEFT has it (https://arxiv.org/abs/2106.09685).
Between forward and backward pass only x and the narrow ``x A'`` are kept; W is asked for again.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from edge_runtime.training.layer_weights import Weights

Pair: TypeAlias = tuple[torch.nn.Parameter, torch.nn.Parameter]
"""A `(r, in)` and B `(out, r)`, float32."""


@dataclass(frozen=True, slots=True)
class LowRankLinear:
    """A layer on frozen weights."""

    weights: Weights
    """W, `(out, in)`."""
    bias: torch.Tensor | None
    """b, `(out,)`, float32."""
    pair: Pair | None
    """None: nothing is trained here."""
    scale: float
    """``alpha / rank``"""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`(…, in)` to `(…, out)`."""
        flat = x.reshape(-1, x.shape[-1])
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.pair is None:
            y = _apply(_Frozen, flat, self.weights, bias)
        else:
            y = _apply(_Adapted, flat, *self.pair, self.weights, bias, self.scale)
        return y.view(*x.shape[:-1], -1)


def _apply(function: type[torch.autograd.Function], *arguments: object) -> torch.Tensor:
    y: torch.Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]  # torch has none
    return y


def _frozen(x: torch.Tensor, weights: Weights, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.linear(x, weights.tensor(), bias)


class _Frozen(torch.autograd.Function):
    """Keeps nothing: the gradient of x needs W only."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weights: Weights, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.weights = weights
        return _frozen(x, weights, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (outer,) = gradients
        return outer @ ctx.weights.tensor(), None, None


class _Adapted(torch.autograd.Function):
    """Keeps x, which layers side by side share, and ``h = x A'``."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917  # torch wants them so
        ctx: Any,
        x: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        weights: Weights,
        bias: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        narrow = x @ first.to(x.dtype).t()
        y = _frozen(x, weights, bias)
        y.addmm_(narrow, second.to(x.dtype).t(), alpha=scale)
        ctx.save_for_backward(x, narrow, first, second)
        ctx.weights, ctx.scale = weights, scale
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (outer,) = gradients
        x, narrow, first, second = ctx.saved_tensors
        inner = (outer @ second.to(outer.dtype)).mul_(ctx.scale)
        of_first = (inner.t() @ x).to(first.dtype)
        of_second = (outer.t() @ narrow).mul_(ctx.scale).to(second.dtype)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = outer @ ctx.weights.tensor()
            of_x.addmm_(inner, first.to(outer.dtype))
        return of_x, of_first, of_second, None, None, None
