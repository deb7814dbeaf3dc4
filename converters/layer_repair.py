"""Mending a model whose layers were thinned out, in closed form: no gradient, seconds of work.

Layer by layer, the last linear map of each kept layer (`down_proj`) is refitted by ridge regression
so that the layer's output comes near to what the large model has just before the next kept layer,
that is, after the layers in between that were dropped. Each layer is fitted on what the mended
layers below it really give, so errors do not pile up unseen.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers import LlamaForCausalLM

from converters.layer_walk import hidden_states, start, step

RIDGE: Final = 0.1
"""Strength of the pull towards the old weights, as a share of the inputs' mean square. Between 0.03
and 0.3 it hardly matters; at 0.003 twelve thousand tokens overfit."""

_CHUNK: Final = 8


def targets(kept: Sequence[int], depth: int) -> list[int]:
    """For each kept layer, after how many of the large model's layers its output should be."""
    return [*kept[1:], depth]


@torch.no_grad()
def repair(
    small: LlamaForCausalLM, large: LlamaForCausalLM, kept: Sequence[int], tokens: torch.Tensor
) -> None:
    """Refit `small`, which has `large`'s layers `kept`, in place.

    Args:
        small: The thinned model.
        large: The whole one.
        kept: Indices of the layers that `small` has.
        tokens: Text `(B, T)`; ten thousand tokens are enough.
    """
    wanted = _wanted(large, targets(kept, len(large.model.layers)), tokens)
    hidden, rotary = start(small, tokens)
    for layer, goal in zip(small.model.layers, wanted, strict=True):
        output, inner = _run(layer, hidden, rotary)
        weight = layer.mlp.down_proj.weight
        rest = output - inner @ weight.T
        weight.copy_(_ridge(inner, goal - rest, weight.T).T)
        hidden = (rest + inner @ weight.T).view_as(hidden)


def _wanted(
    large: LlamaForCausalLM, depths: Sequence[int], tokens: torch.Tensor
) -> list[torch.Tensor]:
    """The large model's hidden states after so many layers, `(B * T, H)` each."""
    chunks: list[list[torch.Tensor]] = [[] for _ in depths]
    for part in torch.split(tokens, _CHUNK):
        for depth, hidden in enumerate(hidden_states(large, part)):
            if depth in depths:
                chunks[depths.index(depth)].append(hidden.flatten(0, 1))
    return [torch.cat(part) for part in chunks]


def _run(layer: Any, hidden: torch.Tensor, rotary: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's output, and what its `down_proj` saw; a row each token."""
    seen: list[torch.Tensor] = []
    hook = layer.mlp.down_proj.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].flatten(0, 1))
    )
    outputs = [step(layer, part, rotary).flatten(0, 1) for part in torch.split(hidden, _CHUNK)]
    hook.remove()
    return torch.cat(outputs), torch.cat(seen)


def _ridge(inner: torch.Tensor, goal: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """The map near `old` that takes `inner` `(N, F)` to `goal` `(N, H)`.

    Rows count by the inverse of their goal's square, or the few tokens with huge activations that
    such models have (attention sinks) would decide everything.
    """
    weights = 1 / (goal.square().mean(dim=-1, keepdim=True) + 1e-6)
    weighted = inner * weights
    gram = weighted.T @ inner
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    change: torch.Tensor = torch.linalg.solve(gram, weighted.T @ (goal - inner @ old))
    return old + change
