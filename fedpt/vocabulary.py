"""Whether two models speak in the same tokens.

Steering adds logits token id by token id, so one differing token makes nonsense of all of it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from fedpt.errors import ModelFileError, VocabularyMismatchError
from fedpt.gguf_file import GgufFile
from fedpt.ids import Sha256


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
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ModelFileError(f"{file.path} has no vocabulary (tokenizer.ggml.tokens)")
    texts = tuple(str(token) for token in tokens)
    model = file.metadata.get("tokenizer.ggml.pre") or file.metadata.get("tokenizer.ggml.model")
    return Vocabulary(f"{model} tokenizer of {file.name}", texts[: _real_count(texts)])


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
