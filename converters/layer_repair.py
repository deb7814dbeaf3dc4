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

from converters.layer_walk import start, step

RIDGE: Final = 0.1
"""Strength of the pull towards the old weights, as a share of the inputs' mean square. Between 0.03
and 0.3 it hardly matters; at 0.003 twelve thousand tokens overfit (KL 3.1 after it, not 2.6)."""

_SEQUENCES: Final = 8


@torch.no_grad()
def repair(small: LlamaForCausalLM, goals: Sequence[torch.Tensor], tokens: torch.Tensor) -> None:
    """Refit a thinned model in place.

    Args:
        small: The thinned model.
        goals: For each of its layers, what the large model has where it should be, `(N, T, H)`.
        tokens: The text `(N, T)`; ten to twenty thousand tokens are enough.
    """
    hidden, rotary = start(small, tokens)
    for layer, goal in zip(small.model.layers, goals, strict=True):
        output, inner = _run(layer, hidden, rotary)
        weight = layer.mlp.down_proj.weight
        rest = output - inner @ weight.T
        weight.copy_(_ridge(inner, goal.float().flatten(0, 1) - rest, weight.T).T)
        hidden = (rest + inner @ weight.T).view_as(hidden)


def _run(layer: Any, hidden: torch.Tensor, rotary: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's output, and what its `down_proj` saw; a row each token."""
    seen: list[torch.Tensor] = []
    hook = layer.mlp.down_proj.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].flatten(0, 1))
    )
    parts = torch.split(hidden, _SEQUENCES)
    outputs = [step(layer, part, rotary).flatten(0, 1) for part in parts]
    hook.remove()
    return torch.cat(outputs), torch.cat(seen)


def _ridge(inner: torch.Tensor, goal: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """The map near `old` that takes `inner` `(N, F)` to `goal` `(N, H)`.

    Rows count by the inverse of their goal's square, or the few tokens with huge activations that
    such models have (attention sinks) would decide everything.
    """
    weighted = inner / (goal.square().mean(dim=-1, keepdim=True) + 1e-6)
    gram = weighted.T @ inner
    pull = RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    change: torch.Tensor = torch.linalg.solve(gram + pull, weighted.T @ (goal - inner @ old))
    return old + change
