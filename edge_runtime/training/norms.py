"""Norms over the last dimension, with frozen weights, that remember their input and little else."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """``w x / rms(x)``, https://arxiv.org/abs/1910.07467, computed in float32."""

    weight: torch.Tensor
    """float32; what a family adds to it is added already."""
    epsilon: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape `(…, n)` to the same."""
        y: torch.Tensor = _RmsNorm.apply(x, self.weight, self.epsilon)  # type: ignore[no-untyped-call]  # torch has none
        return y


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """Mean zero, variance one, https://arxiv.org/abs/1607.06450; weight and bias in float32."""

    weight: torch.Tensor
    bias: torch.Tensor
    epsilon: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape `(…, n)` to the same."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return torch.nn.functional.layer_norm(x, weight.shape, weight, bias, self.epsilon)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        scale = wide.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, scale)
        ctx.weight = weight
        return (wide * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (outer,) = gradients
        x, scale = ctx.saved_tensors
        even = x.float().mul_(scale)
        inner = outer.float() * ctx.weight
        along = (inner * even).mean(-1, keepdim=True)
        return inner.sub_(even.mul_(along)).mul_(scale).to(x.dtype), None, None
