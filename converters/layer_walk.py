"""A decoder's layers one at a time: what healing a shortened model looks at."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from transformers import LlamaForCausalLM

_SEQUENCES: Final = 4
"""At a time: larger batches are no faster on a CPU."""


def start(model: LlamaForCausalLM, tokens: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """The embeddings `(B, T, H)` of tokens `(B, T)`, and their rotary positions."""
    hidden: torch.Tensor = model.model.embed_tokens(tokens)
    positions = torch.arange(tokens.shape[1])[None]
    return hidden, model.model.rotary_emb(hidden[:1], positions)


def step(layer: Any, hidden: torch.Tensor, rotary: Any) -> torch.Tensor:  # Any: no types
    """What a layer makes of `hidden`; causal, no padding."""
    output: torch.Tensor = layer(hidden, attention_mask=None, position_embeddings=rotary)
    return output


def hidden_states(model: LlamaForCausalLM, tokens: torch.Tensor) -> Iterator[torch.Tensor]:
    """The hidden states `(B, T, H)`: embeddings first, then after each layer, before the norm."""
    hidden, rotary = start(model, tokens)
    yield hidden
    for layer in model.model.layers:
        hidden = step(layer, hidden, rotary)
        yield hidden


@torch.no_grad()
def states_after(
    model: LlamaForCausalLM, tokens: torch.Tensor, depths: Sequence[int]
) -> list[torch.Tensor]:
    """The hidden states `(N, T, H)` after so many layers, for each depth, in half precision.

    Args:
        model: The whole model.
        tokens: Text `(N, T)`.
        depths: Ascending; 0 is the embeddings.
    """
    states = [
        torch.empty(*tokens.shape, model.config.hidden_size, dtype=torch.float16) for _ in depths
    ]
    for first in range(0, len(tokens), _SEQUENCES):
        part = slice(first, first + _SEQUENCES)
        for depth, hidden in enumerate(hidden_states(model, tokens[part])):
            if depth in depths:
                states[depths.index(depth)][part] = hidden
    return states
