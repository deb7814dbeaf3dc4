"""The reference: transformers and PEFT as anybody would use them, the base expanded to float32.

Needs several times the memory of `lean_network`, which is proved against this.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from converters.answer_positions import answer_tokens
from converters.gguf_to_torch import load_causal_lm
from converters.lora_in_torch import answer_logits, put_on
from edge_runtime.training.how import How
from edge_runtime.training.precision import DTYPES
from fedpt.adapters import Adapter
from fedpt.chat import EncodedExample
from fedpt.gguf_file import GgufFile


class PlainNetwork:
    """A frozen base with trainable factors."""

    def __init__(self, file: GgufFile, adapter: Adapter, how: How) -> None:
        """Load everything."""
        self._network = put_on(load_causal_lm(file.path, dtype=DTYPES[how.precision]), adapter)
        self._network.eval()  # no dropout: nothing is random
        self.factors = {
            name.replace(".default.", "."): parameter
            for name, parameter in sorted(self._network.named_parameters())
            if parameter.requires_grad
        }

    def loss(self, examples: Sequence[EncodedExample]) -> torch.Tensor:
        """Sum over the answers' tokens, nats."""
        logits = answer_logits(self._network, examples)
        return cross_entropy(logits, answer_tokens(examples), reduction="sum")
