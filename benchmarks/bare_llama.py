"""llama.cpp by the shortest way through its C interface: what fedpt is measured against.

Nothing of `fedpt.drivers.llama` is used. Parameters of contexts are the same as there.
"""

import ctypes
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from fedpt.drivers import llama  # its import sets how OpenMP waits, the same for all sides
from fedpt.drivers.thread_choice import ThreadChoice
from fedpt.proxy_tuning import Logits

ll = llama.ll  # type: ignore[attr-defined]  # loaded there, after the environment was set

_BATCH_TOKENS: Final = 512
_WARM_TOKENS: Final = 32


def fastest_threads(path: Path) -> int:
    """With how many threads llama.cpp decodes single tokens of a model fastest."""
    choice = ThreadChoice(os.cpu_count() or 1)
    with BareModel(path) as model, ExitStack() as stack:
        contexts = {
            count: stack.enter_context(BareContext(model, tokens=_BATCH_TOKENS, threads=count))
            for count in choice.counts
        }
        for context in contexts.values():
            context.decode([0] * _WARM_TOKENS, 0)
        position = dict.fromkeys(contexts, _WARM_TOKENS)
        while not choice.is_made:
            count = choice.threads
            began = time.perf_counter()
            contexts[count].decode([0], position[count])
            choice.saw(time.perf_counter() - began)
            position[count] += 1
    return choice.threads


class BareModel:
    """Weights, and contexts over them."""

    def __init__(self, path: Path) -> None:
        ll.llama_log_set(_drop, ctypes.c_void_p(0))
        self.handle: Any = ll.llama_model_load_from_file(
            str(path).encode(), ll.llama_model_default_params()
        )
        if not self.handle:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.width = int(ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.handle)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        ll.llama_model_free(self.handle)


class BareContext:
    """A context of one or more sequences."""

    def __init__(
        self,
        model: BareModel,
        *,
        tokens: int,
        threads: int,
        sequences: int = 1,
        adapter: Path | None = None,
    ) -> None:
        parameters = ll.llama_context_default_params()
        parameters.n_ctx = tokens
        parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
        parameters.n_seq_max = sequences
        parameters.kv_unified = True
        parameters.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_ENABLED
        parameters.type_v = llama.BFLOAT16
        parameters.n_threads = parameters.n_threads_batch = threads
        self._width = (model.width,)
        self._context: Any = ll.llama_init_from_model(model.handle, parameters)
        self._memory: Any = ll.llama_get_memory(self._context)
        self._batch: Any = ll.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self._lora: Any = None
        if adapter is not None:
            self._lora = ll.llama_adapter_lora_init(model.handle, str(adapter).encode())
            one = (ll.llama_adapter_lora_p_ctypes * 1)(self._lora)
            ll.llama_set_adapters_lora(self._context, one, 1, (ctypes.c_float * 1)(1.0))

    def clear(self) -> None:
        """Forget everything."""
        ll.llama_memory_clear(self._memory, True)

    def rewind(self, length: int) -> None:
        """Forget what comes after so many tokens of every sequence."""
        ll.llama_memory_seq_rm(self._memory, -1, length, -1)

    def prefill(self, tokens: Sequence[int], sequence: int) -> None:
        """Begin a sequence; no rows."""
        for place, token in enumerate(tokens):
            self._put(place, token, position=place, sequence=sequence, wanted=False)
        self._call(len(tokens))

    def decode(self, tokens: Sequence[int], position: int) -> Logits:
        """Add tokens to sequence 0; the row after the last, which is libllama's own memory."""
        last = len(tokens) - 1
        for place, token in enumerate(tokens):
            self._put(place, token, position=position + place, sequence=0, wanted=place == last)
        self._call(len(tokens))
        row: Logits = np.ctypeslib.as_array(
            ll.llama_get_logits_ith(self._context, last), shape=self._width
        )
        return row

    def decode_many(self, texts: Sequence[Sequence[int]], position: int) -> int:
        """Add tokens to sequences 0, 1, …, all rows wanted; the sum of the likeliest tokens."""
        place = 0
        for sequence, tokens in enumerate(texts):
            for offset, token in enumerate(tokens):
                at = position + offset
                self._put(place, token, position=at, sequence=sequence, wanted=True)
                place += 1
        self._call(place)
        rows = np.ctypeslib.as_array(
            ll.llama_get_logits(self._context), shape=(place, *self._width)
        )
        return int(rows.argmax(axis=1).sum())

    def _put(self, place: int, token: int, *, position: int, sequence: int, wanted: bool) -> None:
        batch = self._batch
        batch.token[place] = token
        batch.pos[place] = position
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = sequence
        batch.logits[place] = wanted

    def _call(self, count: int) -> None:
        self._batch.n_tokens = count
        if ll.llama_decode(self._context, self._batch) != 0:
            raise SystemExit("llama.cpp failed")

    def close(self) -> None:
        """Free it."""
        ll.llama_batch_free(self._batch)
        ll.llama_free(self._context)
        if self._lora:
            ll.llama_adapter_lora_free(self._lora)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@ll.llama_log_callback  # type: ignore[untyped-decorator]  # ctypes
def _drop(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """Libllama tells hundreds of lines while it loads."""
