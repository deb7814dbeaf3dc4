"""llama.cpp through its low-level API: one model in memory, several contexts over it.

Expert and antiexpert are one `LlamaModel` with two `LlamaContext`s, an adapter set on one of them.
A context is not thread safe, and contexts of one process fight for the same cores: call all of them
from one thread at a time. Every file is checked by us before libllama opens it, for it crashes on
damaged ones; and it reports failure by null pointers, which ctypes makes objects, not None.
"""

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from fedpt.adapter_file import require_adapter_fits
from fedpt.drivers.llama_runs import Piece, Run, pieces_of
from fedpt.drivers.thread_choice import ThreadChoice
from fedpt.errors import AdapterError, FedptError, ModelFileError, UsageError
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from fedpt.ids import Sha256
from fedpt.proxy_tuning import Logits
from fedpt.shared_cores import let_others_run
from fedpt.token_texts import common_prefix
from fedpt.vocabulary import Vocabulary, vocabulary_of

let_others_run()  # libgomp asks when it is loaded, so it is before these

import llama_cpp as ll  # noqa: E402

from fedpt.drivers.llama_batch import LlamaBatch, told_rows  # noqa: E402

_BATCH_TOKENS: Final = 512
_PIECE_BYTES: Final = 256
_NO_KV_SLOT: Final = 1
BFLOAT16: Final = 30
"""Of the cache's values: ggml's number, which llama_cpp does not name. With float16, one token on
several threads goes another way through attention than a batch does: up to 1 nat apart at 500
tokens, so drafts would be judged by other rows than they were made of. With bfloat16 the logits of
quantised models are the same, bit for bit, however a text is cut and on however many threads (of
float32 ones up to the order of sums); no larger, and as far from a float32 cache as float16 is (KL
0.004 nats a token, nearly all of it from 8-bit activations)."""


class LlamaModel:
    """A GGUF model's weights and tokenizer."""

    def __init__(self, path: Path, *, vocabulary_only: bool = False) -> None:
        """Load it.

        Raises:
            ModelFileError: It is missing, damaged, or not supported by this llama.cpp.
        """
        self.file: GgufFile = read_gguf(path)
        self.vocabulary: Vocabulary = vocabulary_of(self.file)
        _silence()
        parameters = ll.llama_model_default_params()
        parameters.vocab_only = vocabulary_only
        self._model: Any = ll.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise ModelFileError(
                f"llama.cpp cannot load {path} (architecture {self.file.architecture!r})"
            )
        self._vocab: Any = ll.llama_model_get_vocab(self._model)

    @cached_property
    def weights(self) -> Sha256:
        """Which weights these are; found out once, for it may take a reading of the whole file.

        Raises:
            ModelFileError: The file cannot be read.
        """
        return weights_sha256(self.file)

    @property
    def vocabulary_size(self) -> int:
        """Tokens that mean something, and the width `V` of a row of logits.

        The padding rows that some families have at the end of their embedding are cut here: small
        and large models of one family are padded differently.
        """
        return len(self.vocabulary.tokens)

    @property
    def handle(self) -> Any:  # Any: a ctypes pointer
        """For `LlamaContext` only."""
        return self._model

    @property
    def vocab_handle(self) -> Any:  # Any: a ctypes pointer
        """For contexts and `fedpt.drivers.llama_grammar` only."""
        return self._vocab

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text, nothing added.

        `special`: spellings such as <|im_end|> are one token.
        """
        data = text.encode(errors="replace")  # half a surrogate pair is no character
        room = len(data) + 8  # a token is at least a byte
        ids = (ll.llama_token * room)()
        count = ll.llama_tokenize(self._vocab, data, len(data), ids, room, False, special)
        if count < 0:
            raise ModelFileError(
                f"{self.file.path}: its tokenizer failed on a text of {len(data)} bytes"
            )
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; of a special token none.

        Raises:
            UsageError: It is not in the vocabulary.
        """
        if not 0 <= token < self.vocabulary_size:  # libllama would end the process
            raise UsageError(f"token {token} is not among {self.vocabulary_size} tokens")
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        size = ll.llama_token_to_piece(self._vocab, token, buffer, _PIECE_BYTES, 0, False)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = ll.llama_token_to_piece(self._vocab, token, buffer, -size, 0, False)
        return buffer.raw[:size]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out, bytes that are no UTF-8 replaced."""
        return b"".join(self.piece(token) for token in tokens).decode("utf-8", errors="replace")

    def is_end(self, token: int) -> bool:
        """Whether generation stops at this token."""
        return bool(ll.llama_vocab_is_eog(self._vocab, token))

    @property
    def end_token(self) -> int:
        """The token that ends an answer: that of the chat template, else end of text.

        libllama's own guess at an end of turn may be <|endoftext|> where turns end in <|im_end|>.

        Raises:
            ModelFileError: The file names no such token.
        """
        guesses = ll.llama_vocab_eos(self._vocab), ll.llama_vocab_eot(self._vocab)
        known = [int(token) for token in guesses if 0 <= token < self.vocabulary_size]
        if not known:
            raise ModelFileError(f"{self.file.path} has no tokenizer.ggml.eos_token_id")
        spellings = self.vocabulary.tokens
        return next((one for one in known if spellings[one] in self.chat_template), known[0])

    @property
    def begin_token(self) -> int | None:
        """The token that every text begins with, if the model wants one."""
        wanted = ll.llama_vocab_get_add_bos(self._vocab)
        return int(ll.llama_vocab_bos(self._vocab)) if wanted else None

    @property
    def chat_template(self) -> str:
        """The model's Jinja chat template; empty if it has none."""
        return str(self.file.metadata.get("tokenizer.chat_template", ""))

    def close(self) -> None:
        """Free it; its contexts must be closed before."""
        if self._model:
            ll.llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()


class LlamaContext:
    """A KV cache over a model, with an adapter of its own or none."""

    def __init__(
        self,
        model: LlamaModel,
        *,
        tokens: int,
        sequences: int = 1,
        threads: int | None = None,
        adapter: Path | None = None,
        is_shared: bool = True,
    ) -> None:
        """Make one.

        Args:
            model: Must outlive the context.
            tokens: Room in the cache, shared by all sequences.
            sequences: How many independent texts it can hold at a time.
            threads: None: all cores for batches, and as many as are fastest for single tokens.
            adapter: A GGUF adapter for this model.
            is_shared: Whether a sequence may use what the others leave of the room; else each has
                an equal share, and what others hold costs it no time.

        Raises:
            AdapterError: The adapter is damaged or does not fit.
            ModelFileError: No memory for the context.
        """
        if adapter is not None:
            require_adapter_fits(adapter, model.file)
        self.model = model
        self.tokens = tokens
        self.sequences = sequences
        parameters = ll.llama_context_default_params()
        parameters.n_ctx = tokens
        parameters.n_batch = parameters.n_ubatch = _BATCH_TOKENS
        parameters.n_seq_max = sequences
        parameters.kv_unified = is_shared
        parameters.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_ENABLED
        parameters.type_v = BFLOAT16
        self._all_threads = parameters.n_threads = parameters.n_threads_batch = (
            threads or os.cpu_count() or 1
        )
        self._choice = ThreadChoice(self._all_threads) if threads is None else None
        self._lora: Any = None
        self._context: Any = ll.llama_init_from_model(model.handle, parameters)
        if not self._context:
            raise ModelFileError(f"no memory for {tokens} tokens of context of {model.file.path}")
        self._memory: Any = ll.llama_get_memory(self._context)
        self._batch_tokens = min(_BATCH_TOKENS, ll.llama_n_batch(self._context))
        self._batch = LlamaBatch(self._batch_tokens)
        self._width = int(ll.llama_vocab_n_tokens(model.vocab_handle))
        if adapter is not None:
            self._set_adapter(adapter)

    def evaluate(
        self, runs: Sequence[Run], *, on_batch: Callable[[], None] = lambda: None
    ) -> list[Logits]:
        """Add tokens to their sequences and give the logits that were wanted.

        Args:
            runs: What to add, and where.
            on_batch: Called after each part of a long text, on this thread.

        Returns:
            For each run `(wanted, V)`, copied out of libllama.

        Raises:
            UsageError: The cache is full, a token is not in the vocabulary, or more rows are
                wanted than there are tokens.
        """
        self._require_sense(runs)
        rows = [np.empty((run.wanted, self.model.vocabulary_size), np.float32) for run in runs]
        for pieces in pieces_of(runs, self._batch_tokens):
            self._decode(pieces, rows)
            on_batch()
        return rows

    def forget(self, sequence: int, position: int = 0) -> None:
        """Drop a sequence's tokens from `position` on.

        Raises:
            ModelFileError: This architecture cannot drop a part (recurrent models).
        """
        if not ll.llama_memory_seq_rm(self._memory, sequence, position, -1):
            raise ModelFileError(
                f"{self.model.file.path}: {self.model.file.architecture!r} models cannot go back in"
                " their cache"
            )

    def share(self, source: int, target: int) -> None:
        """Let `target`, which must be empty, begin with all that `source` holds."""
        ll.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def close(self) -> None:
        """Free it."""
        if self._context:
            ll.llama_free(self._context)
            self._context = None
        if self._lora:
            ll.llama_adapter_lora_free(self._lora)
            self._lora = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()

    def _set_adapter(self, path: Path) -> None:
        self._lora = ll.llama_adapter_lora_init(self.model.handle, str(path).encode())
        if not self._lora:
            self.close()
            raise AdapterError(f"llama.cpp cannot load the adapter {path}")
        adapters = (ll.llama_adapter_lora_p_ctypes * 1)(self._lora)
        scales = (ctypes.c_float * 1)(1.0)
        ll.llama_set_adapters_lora(self._context, adapters, 1, scales)

    def _require_sense(self, runs: Sequence[Run]) -> None:
        size = self.model.vocabulary_size
        for run in runs:
            if run.wanted > len(run.tokens):
                raise UsageError(f"{run.wanted} rows are wanted of {len(run.tokens)} tokens")
            bad = next((token for token in run.tokens if not 0 <= token < size), None)
            if bad is not None:
                raise UsageError(f"token {bad} is not in the vocabulary of {size} tokens")

    def _decode(self, pieces: Sequence[Piece], rows: Sequence[Logits]) -> None:
        """One call of libllama."""
        self._batch.fill(pieces)
        count = sum(piece.wanted for piece in pieces)
        result = self._call()
        if result == _NO_KV_SLOT:
            raise UsageError(
                f"the text does not fit into a context of {self.tokens} tokens; shorten it or raise"
                " the context's size"
            )
        if result != 0:
            raise ModelFileError(f"llama.cpp failed on {self.model.file.path} with code {result}")
        if not count:
            return
        told = told_rows(self._context, count, self._width)[:, : self.model.vocabulary_size]
        begin = 0
        for piece in pieces:
            end = begin + piece.wanted
            rows[piece.run][piece.row : piece.row + piece.wanted] = told[begin:end]
            begin = end

    def _call(self) -> int:
        """Libllama's code; single tokens with as many threads as are fastest."""
        tokens, choice = self._batch.handle.n_tokens, self._choice
        is_trial = tokens == 1 and choice is not None and not choice.is_made
        if is_trial:
            self._use_chosen_threads()
        began = time.perf_counter()
        code = int(ll.llama_decode(self._context, self._batch.handle))
        if is_trial and choice is not None:
            choice.saw(time.perf_counter() - began)
            self._use_chosen_threads()
        return code

    def _use_chosen_threads(self) -> None:
        if self._choice is not None:
            ll.llama_set_n_threads(self._context, self._choice.threads, self._all_threads)


class CachedText:
    """One text in a context; only what is new since the last call is computed.

    A `fedpt.decoding.ports.LocalText`.
    """

    def __init__(self, context: LlamaContext, sequence: int = 0) -> None:
        self._context = context
        self._sequence = sequence
        self._tokens: list[int] = []

    @property
    def tokens(self) -> Sequence[int]:
        """What the cache holds."""
        return self._tokens

    def begin(self, tokens: Sequence[int]) -> int:
        """Go back to the longest beginning that is shared with `tokens`; how long it is."""
        kept = common_prefix(self._tokens, tokens)
        self.rewind(kept)
        return kept

    def append(self, tokens: Sequence[int], wanted: int) -> Logits:
        """Add tokens; the logits `(wanted, V)` after each of the last `wanted` of them.

        Raises:
            UsageError: See `LlamaContext.evaluate`. The cache is then empty, and usable.
        """
        run = Run(self._sequence, len(self._tokens), tokens, wanted)
        try:
            (rows,) = self._context.evaluate([run])
        except FedptError:
            self.rewind(0)
            raise
        self._tokens += tokens
        return rows

    def rows(self, tokens: Sequence[int], wanted: int) -> Logits:
        """The logits `(wanted, V)` after each of a text's last tokens; only what is new is read.

        Raises:
            UsageError: See `append`.
        """
        held = self.begin(tokens[: len(tokens) - wanted])
        return self.append(tokens[held:], wanted)

    def rewind(self, length: int) -> None:
        """Forget all from `length` on."""
        if length < len(self._tokens) or length == 0:
            self._context.forget(self._sequence, length)
            del self._tokens[length:]


@ll.llama_log_callback  # type: ignore[untyped-decorator]  # ctypes
def _drop(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    pass


def _silence() -> None:
    """Libllama prints hundreds of lines while it loads; what went wrong we tell ourselves."""
    ll.llama_log_set(_drop, ctypes.c_void_p(0))
