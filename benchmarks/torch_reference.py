"""The reference algorithm, plainly: three models in torch, one token at a time.

Written from the equation, ``z = alpha * expert + beta * large - gamma * antiexpert`` at every token
(https://arxiv.org/abs/2401.08565), with transformers' own key-value caches. Weights are those of
the GGUF files, dequantised to float32; the expert is the small model with the adapter beside it, as
PEFT loads it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.adapter_in_torch import load_tuned
from converters.gguf_to_torch import load_causal_lm
from fedpt.proxy_tuning import Coefficients


class TorchReference:
    """Greedy proxy-tuning."""

    def __init__(
        self, small: Path, adapter: Path, large: Path, coefficients: Coefficients, *, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        alpha, beta, gamma = coefficients
        self._models = (
            (alpha, load_tuned(small, adapter)),
            (beta, load_causal_lm(large)),
            (-gamma, load_causal_lm(small)),
        )
        self.begin()

    def begin(self) -> None:
        """Forget all text."""
        self._caches: list[Any] = [None] * len(self._models)  # Any: transformers has no types
        self._held = 0

    @torch.inference_mode()
    def read(self, tokens: list[int]) -> list[torch.Tensor]:
        """Add tokens to all models' caches; each model's row after the last."""
        rows = []
        for place, (_, model) in enumerate(self._models):
            told = model(
                input_ids=torch.tensor([tokens]),
                past_key_values=self._caches[place],
                use_cache=True,
                logits_to_keep=1,
            )
            self._caches[place] = told.past_key_values
            rows.append(told.logits[0, -1])
        self._held += len(tokens)
        return rows

    def answer(
        self, prompt: list[int], most: int, *, is_end: Callable[[int], bool], width: int
    ) -> list[int]:
        """The tokens after a prompt, which may be read already; the ending one included."""
        new, answer = prompt[self._held :], list[int]()
        while len(answer) < most:
            rows = self.read(new)
            weighed = [w * row[:width] for (w, _), row in zip(self._models, rows, strict=True)]
            token = int(torch.stack(weighed).sum(dim=0).argmax())
            answer.append(token)
            if is_end(token):
                break
            new = [token]
        return answer
