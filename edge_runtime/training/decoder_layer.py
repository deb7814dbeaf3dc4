"""One layer of a decoder, for every family that the tables know: its parts by GGUF's names.

A family differs from another by which parts it has: norms on heads or behind attention, one matrix
for queries, keys and values or three, a gate or none. transformers' own classes compute the same,
and are what this is tested against; they are not used here because importing them takes 100 MB.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch.nn import functional

from edge_runtime.training.rotation import Turns, turned

Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def _tanh_gelu(values: torch.Tensor) -> torch.Tensor:
    return functional.gelu(values, approximate="tanh")


ACTIVATIONS: Final[Mapping[str, Function]] = {
    "silu": functional.silu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "gelu_new": _tanh_gelu,
}


@dataclass(frozen=True, slots=True)
class Heads:
    """How queries, keys and values are split."""

    queries: int
    keys: int
    size: int


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Attention and feed-forward network, each behind a norm and added to what came in."""

    parts: Mapping[str, Function]
    heads: Heads
    inner: int
    """Values between the feed-forward network's matrices."""
    activation: Function
    window: int | None
    """So many tokens back, itself included, a position sees; None: all."""

    def __call__(self, x: torch.Tensor, turns: Turns | None) -> torch.Tensor:
        """`(B, T, H)` to the same shape."""
        attended = self._attend(self.parts["attn_norm"](x), turns)
        x = x + self._if_any("post_attention_norm", attended)
        fed = self._feed(self.parts["ffn_norm"](x))
        return x + self._if_any("post_ffw_norm", fed)

    def _attend(self, x: torch.Tensor, turns: Turns | None) -> torch.Tensor:
        queries, keys, values = self._heads_of(x)
        queries, keys = self._if_any("attn_q_norm", queries), self._if_any("attn_k_norm", keys)
        if turns is not None:
            queries, keys = turned(queries, turns), turned(keys, turns)
        mask = self._mask(x)
        seen = functional.scaled_dot_product_attention(
            queries, keys, values, mask, is_causal=mask is None, enable_gqa=True
        )
        return self.parts["attn_output"](seen.transpose(1, 2).flatten(2))

    def _heads_of(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys, values: `(B, heads, T, size)`."""
        heads, shape = self.heads, (*x.shape[:-1], -1, self.heads.size)
        if "attn_qkv" in self.parts:
            all_three = self.parts["attn_qkv"](x).view(shape)
            split = torch.split(all_three, [heads.queries, heads.keys, heads.keys], 2)
        else:
            names = ("attn_q", "attn_k", "attn_v")
            split = tuple(self.parts[name](x).view(shape) for name in names)
        return [one.transpose(1, 2) for one in split]

    def _mask(self, x: torch.Tensor) -> torch.Tensor | None:
        """Who sees whom `(T, T)`; None: everybody what came before."""
        tokens = x.shape[1]
        if self.window is None or tokens <= self.window:
            return None
        everybody = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device)
        return everybody.tril().triu(1 - self.window)

    def _feed(self, x: torch.Tensor) -> torch.Tensor:
        down, up = self.parts["ffn_down"], self.parts["ffn_up"](x)
        if "ffn_gate" in self.parts:
            gate = self.parts["ffn_gate"](x)
        elif up.shape[-1] > self.inner:  # both in one
            gate, up = up.chunk(2, -1)
        else:
            return down(self.activation(up))
        return down(self.activation(gate) * up)

    def _if_any(self, name: str, x: torch.Tensor) -> torch.Tensor:
        part = self.parts.get(name)
        return x if part is None else part(x)
