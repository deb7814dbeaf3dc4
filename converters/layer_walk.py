"""A decoder's layers one at a time: what healing a shortened model looks at."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import LlamaForCausalLM


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
