"""What the training loop needs of a model, and which of the two networks that is."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from edge_runtime.training.how import How
from edge_runtime.training.lean_network import LeanNetwork
from edge_runtime.training.placement import HOST, Placement
from fedpt.adapters import Adapter
from fedpt.chat import EncodedExample
from fedpt.gguf_file import GgufFile


class Network(Protocol):
    """A frozen base with trainable factors."""

    @property
    def factors(self) -> Mapping[str, torch.nn.Parameter]:
        """By PEFT's names, sorted."""

    def loss(self, examples: Sequence[EncodedExample]) -> torch.Tensor:
        """Sum of the cross-entropies of the answers' tokens, nats."""


def open_network(
    file: GgufFile, adapter: Adapter, how: How, placement: Placement = HOST
) -> Network:
    """The network for a way to train.

    Raises:
        ModelFileError: The file is of an unsupported family, or contradicts itself.
        TrainingError: The adapter cannot be trained this way.
    """
    if how.mode == "plain":
        from edge_runtime.training.plain_network import PlainNetwork  # PEFT takes memory

        return PlainNetwork(file, adapter, how)
    return LeanNetwork(file, adapter, how, placement)


def nll(network: Network, examples: Sequence[EncodedExample]) -> float:
    """Mean over the answers' tokens, nats; one example after another."""
    with torch.no_grad():
        total = sum(network.loss([one]).item() for one in examples)
    return total / sum(len(one.answer) for one in examples)
