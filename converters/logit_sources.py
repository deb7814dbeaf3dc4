"""A model's logits on windows of text: a transformers folder by torch, a GGUF file by llama.cpp.

llama.cpp keeps keys and values in float32 here, so that only the weights' storage makes a
difference. For comparing models, not for serving: that is `fedpt.drivers.llama`.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol, Self

import llama_cpp as ll
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from converters.folder_tokens import tokens_of_folder
from converters.text_windows import window_of
from fedpt.drivers.llama import LlamaModel
from fedpt.drivers.llama_batch import LlamaBatch, told_rows
from fedpt.drivers.llama_runs import Piece
from fedpt.errors import ModelFileError
from fedpt.proxy_tuning import Logits
from fedpt.vocabulary import Vocabulary

_CONFIG: Final = "config.json"


class LogitSource(Protocol):
    """A model as `converters.verify` sees it."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text, special tokens by their spelling, none added."""

    def rows(self, tokens: Sequence[int]) -> Logits:
        """Logits after each token of a text that begins here, `(T, V)`."""


class GgufLogits:
    """A GGUF file's, by llama.cpp."""

    def __init__(self, path: Path) -> None:
        """Load it, for texts of at most `window` tokens.

        Raises:
            ModelFileError: It is missing, damaged, no model, or llama.cpp cannot load it.
        """
        with ExitStack() as stack:
            self.model = stack.enter_context(LlamaModel(path))
            if self.model.file.metadata.get("general.type", "model") != "model":
                raise ModelFileError(f"{path} is no model")
            self.window = window = window_of(self.model.file)
            parameters = ll.llama_context_default_params()
            parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = window
            parameters.n_threads = parameters.n_threads_batch = os.cpu_count() or 1
            parameters.type_k = parameters.type_v = ll.GGML_TYPE_F32
            parameters.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
            self._context: Any = ll.llama_init_from_model(self.model.handle, parameters)
            if not self._context:
                raise ModelFileError(f"no memory for {window} tokens of context of {path}")
            stack.callback(ll.llama_free, self._context)
            self._memory: Any = ll.llama_get_memory(self._context)
            self._batch = LlamaBatch(window)
            self._width = int(ll.llama_vocab_n_tokens(self.model.vocab_handle))
            self._resources = stack.pop_all()

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        return self.model.vocabulary

    def tokenize(self, text: str) -> list[int]:
        """See `LogitSource`."""
        return self.model.tokenize(text, special=True)

    def rows(self, tokens: Sequence[int]) -> Logits:
        """See `LogitSource`. They are llama.cpp's memory until the next call.

        Raises:
            ModelFileError: llama.cpp failed.
        """
        ll.llama_memory_clear(self._memory, True)
        piece = Piece(run=0, sequence=0, position=0, tokens=tokens, wanted=len(tokens), row=0)
        self._batch.fill([piece])
        code = ll.llama_decode(self._context, self._batch.handle)
        if code:
            raise ModelFileError(f"llama.cpp failed on {self.model.file.path} with code {code}")
        rows: Logits = told_rows(self._context, len(tokens), self._width)
        return rows[:, : self.model.vocabulary_size]

    def close(self) -> None:
        """Free it."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TorchLogits:
    """A transformers folder's, by torch in float32."""

    def __init__(self, folder: Path) -> None:
        """Load it; no code of the folder's is run and nothing is unpickled.

        Raises:
            ModelFileError: The folder is no model that transformers can load.
        """
        if not (folder / _CONFIG).is_file():
            raise ModelFileError(f"{folder} is no transformers folder: it has no {_CONFIG}")
        transformers_logging.disable_progress_bar()
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
            ).eval()
        except Exception as error:  # transformers and tokenizers raise whatever they like
            reason = str(error).strip().partition("\n")[0]
            raise ModelFileError(f"transformers cannot load {folder}: {reason}") from error
        self.vocabulary = Vocabulary(f"tokenizer of {folder.name}", tokens_of_folder(folder))

    def tokenize(self, text: str) -> list[int]:
        """See `LogitSource`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def rows(self, tokens: Sequence[int]) -> Logits:
        """See `LogitSource`."""
        with torch.no_grad():
            logits = self._model(torch.tensor([list(tokens)]), use_cache=False).logits[0]
        rows: Logits = logits[:, : len(self.vocabulary.tokens)].float().numpy()
        return rows
