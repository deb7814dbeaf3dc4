"""Whether two models speak in the same tokens.

Steering adds logits token id by token id, so one differing token makes nonsense of all of it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from fedpt.errors import ModelFileError, VocabularyMismatchError
from fedpt.gguf_file import GgufFile, GgufValue
from fedpt.ids import Sha256

VOCABULARY_KEY: Final = "fedpt.vocabulary.sha256"
"""`Vocabulary.sha256` in a model's file, and in an adapter's, so that a look is enough."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer's tokens by id, with the name people know it by."""

    name: str
    tokens: tuple[str, ...]

    @property
    def sha256(self) -> Sha256:
        """Hash of all tokens in order: equal hashes, equal meaning of every token id."""
        return Sha256(hashlib.sha256(json.dumps(self.tokens).encode()).hexdigest())


def vocabulary_of(file: GgufFile) -> Vocabulary:
    """The vocabulary in a GGUF file, without the padding rows after its last real token.

    Raises:
        ModelFileError: The file has no vocabulary.
    """
    try:
        return vocabulary_in(file.metadata, file.name)
    except ModelFileError as error:
        raise ModelFileError(f"{file.path} {error}") from error


def vocabulary_in(metadata: Mapping[str, GgufValue], name: str) -> Vocabulary:
    """The vocabulary in a GGUF file's metadata; `name` is the model's.

    Raises:
        ModelFileError: There is none.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ModelFileError("has no vocabulary (tokenizer.ggml.tokens)")
    texts = tuple(str(token) for token in tokens)
    model = metadata.get("tokenizer.ggml.pre") or metadata.get("tokenizer.ggml.model")
    return Vocabulary(f"{model} tokenizer of {name}", texts[: _real_count(texts)])


def require_same_vocabulary(small: Vocabulary, large: Vocabulary) -> None:
    """Refuse two vocabularies that differ in any token.

    Raises:
        VocabularyMismatchError: Names both and shows the first difference.
    """
    pairs = zip_longest(small.tokens, large.tokens)
    for token_id, (of_small, of_large) in enumerate(pairs):
        if of_small != of_large:
            raise VocabularyMismatchError(
                f"the vocabularies differ: {small.name} ({len(small.tokens)} tokens) and"
                f" {large.name} ({len(large.tokens)} tokens); the first difference is token"
                f" {token_id}: {of_small!r} and {of_large!r}. Steering needs models of one family"
            )


def _real_count(tokens: Sequence[str]) -> int:
    """Padding rows are called [PAD123] after their id by every converter of the field."""
    count = len(tokens)
    while count and tokens[count - 1] == f"[PAD{count - 1}]":
        count -= 1
    return count
