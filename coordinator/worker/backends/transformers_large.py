"""The large model in transformers: a folder of safetensors, on any device map; whole rows.

Each text has a cache of its own, which is cut where the text goes back, and goes through the model
by itself: texts of different lengths in one batch would need padding in every cache. Only this
module of the worker's imports torch, and it is imported only where it is chosen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from fedpt.drivers.llama_runs import Run
from fedpt.errors import FedptError, LargeModelError, ModelFileError
from fedpt.proxy_tuning import Logits

_LEAST_ROWS: Final = 1
"""`logits_to_keep` 0 would keep all."""


class TransformersTexts:
    """A `coordinator.worker.batching.Context`; a text that fails does not fail the others."""

    def __init__(self, folder: Path, *, device_map: str, size: int, threads: int | None) -> None:
        """Load it. Code that the folder may hold is never run.

        Args:
            folder: `config.json` and safetensors.
            device_map: As transformers takes it: "cpu", "auto", "cuda:0", …
            size: Of the vocabulary; the model may have padding rows above.
            threads: Of torch; None: all cores.

        Raises:
            ModelFileError: It cannot be loaded, or has fewer rows than the vocabulary.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                device_map=device_map,
                dtype="auto",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            ).eval()
        except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelFileError(f"transformers cannot load {folder}: {reason}") from error
        rows = self._model.get_output_embeddings().weight.shape[0]
        if rows < size:
            raise ModelFileError(
                f"{folder} has {rows} rows of logits for a vocabulary of {size} tokens"
            )
        self._size = size
        self._caches: dict[int, DynamicCache] = {}

    def evaluate(self, runs: Sequence[Run]) -> list[Logits | FedptError]:
        """Add tokens to their texts; for each run `(wanted, V)`, or why it failed."""
        return [self._evaluate(run) for run in runs]

    def forget(self, sequence: int, position: int = 0) -> None:
        """Drop a text's tokens from `position` on.

        Raises:
            LargeModelError: This architecture cannot drop a part.
        """
        cache = self._caches.get(sequence)
        if cache is None or position >= cache.get_seq_length():
            return
        if position == 0:
            del self._caches[sequence]
            return
        try:
            cache.crop(position - cache.get_seq_length())  # so many from its end
        except (NotImplementedError, RuntimeError, ValueError) as error:
            del self._caches[sequence]
            raise LargeModelError(f"this model cannot go back in its cache: {error}") from error

    def close(self) -> None:
        """Free everything."""
        self._caches.clear()
        self._model = None

    def _evaluate(self, run: Run) -> Logits | FedptError:
        cache = self._caches.setdefault(run.sequence, DynamicCache(config=self._model.config))
        if (held := cache.get_seq_length()) != run.position:
            return LargeModelError(f"{held} tokens are here, not {run.position}")
        try:
            with torch.inference_mode():
                told = self._model(
                    input_ids=torch.tensor([list(run.tokens)], device=self._model.device),
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=max(_LEAST_ROWS, run.wanted),
                )
        except RuntimeError as error:  # no memory, mostly
            del self._caches[run.sequence]
            return LargeModelError(f"torch failed: {' '.join(str(error).split())[:200]}")
        rows = told.logits[0, :, : self._size].float().cpu().numpy()
        return np.ascontiguousarray(rows[len(rows) - run.wanted :])
