"""The positions of a batch from which the answers' tokens are predicted.

The head, a third of a small model's work, need run at these only.
"""

from collections.abc import Sequence

import torch

from fedpt.chat import EncodedExample


def padded(examples: Sequence[EncodedExample], *, multiple: int = 1) -> torch.Tensor:
    """What a model reads, `(B, T)`: prompts, and answers without their last token.

    Padding is on the right, where causal attention cannot see it, so no mask is needed. T is a
    multiple of `multiple`.
    """
    tokens = [example.prompt + example.answer[:-1] for example in examples]
    width = -(-max(map(len, tokens)) // multiple) * multiple
    return torch.tensor([list(row) + [0] * (width - len(row)) for row in tokens])


def at_answers(hidden: torch.Tensor, examples: Sequence[EncodedExample]) -> torch.Tensor:
    """Of a model's states `(B, T, E)`, those `(N, E)` that predict the answers' `N` tokens."""
    states = [
        hidden[row, len(example.prompt) - 1 :][: len(example.answer)]
        for row, example in enumerate(examples)
    ]
    return torch.cat(states)


def answer_tokens(examples: Sequence[EncodedExample]) -> torch.Tensor:
    """The answers' tokens `(N,)`, example after example."""
    return torch.tensor([token for example in examples for token in example.answer])
