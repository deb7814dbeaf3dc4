"""A GGUF model as a network that needs little memory.

The adapter's factors are the only parameters; everything else is looked up in the mapped file by
the parts that `decoder` puts together. The reference beside it, whose losses and gradients it has,
is `plain_network`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import torch

from converters.answer_positions import answer_tokens, at_answers, padded
from edge_runtime.training.answer_loss import answer_loss
from edge_runtime.training.decoder import LowRank, open_decoder
from edge_runtime.training.how import How
from edge_runtime.training.low_rank_linear import Pair
from edge_runtime.training.placement import Placement
from edge_runtime.training.recomputing import recomputed
from fedpt.adapters import TENSOR_PREFIX, Adapter
from fedpt.chat import EncodedExample
from fedpt.gguf_file import GgufFile

_MULTIPLES: Final = {"float32": 1, "bfloat16": 8}
"""Of lengths: oneDNN keeps kernels and buffers for each. On ragged data 472 MB instead of 590."""


class LeanNetwork:
    """A frozen base with trainable factors."""

    def __init__(self, file: GgufFile, adapter: Adapter, how: How, placement: Placement) -> None:
        """Lay the network out. In mapped mode hardly anything of the file is read.

        Raises:
            ModelFileError: The file is of an unsupported family, or contradicts itself.
            TrainingError: The adapter changes what only the plain mode can train.
        """
        self.factors = {
            name: torch.nn.Parameter(placement.bring(torch.from_numpy(tensor.copy())))
            for name, tensor in sorted(adapter.tensors.items())
        }
        self._placement = placement
        self._multiple = _MULTIPLES[how.precision]
        self._recompute = how.recompute
        low_rank = LowRank(_pairs(self.factors), adapter.manifest.scale)
        self._decoder = open_decoder(file, low_rank, how, placement)

    def loss(self, examples: Sequence[EncodedExample]) -> torch.Tensor:
        """Sum over the answers' tokens, nats."""
        hidden = self._hidden(self._placement.bring(padded(examples, multiple=self._multiple)))
        targets = self._placement.bring(answer_tokens(examples))
        states = self._decoder.norm(at_answers(hidden, examples))
        return answer_loss(states, targets, self._decoder.head)

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """What the last layer makes of tokens `(B, T)`: `(B, T, H)`."""
        decoder = self._decoder
        x = decoder.embedded(ids)
        turns = decoder.turns(ids.shape[1])
        again = self._recompute and torch.is_grad_enabled()
        for layer, kind in zip(decoder.layers, decoder.kinds, strict=True):
            compute = partial(layer, turns=turns.get(kind))
            x = recomputed(compute, x) if again else compute(x)
        return x


def _pairs(factors: Mapping[str, torch.nn.Parameter]) -> dict[str, Pair]:
    """A and B by the module that they change."""
    return {
        name.removeprefix(TENSOR_PREFIX).removesuffix(".lora_A.weight"): (
            factor,
            factors[name.replace(".lora_A.", ".lora_B.")],
        )
        for name, factor in factors.items()
        if name.endswith(".lora_A.weight")
    }
