"""Whether a model elsewhere has the small model's vocabulary, as far as that can be found out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from converters.folder_tokens import tokens_of_folder
from coordinator.worker.backends.token_bytes import TokenBytes
from fedpt.errors import VocabularyMismatchError
from fedpt.vocabulary import Vocabulary

_AT_ONCE: Final = 128

Texts = Callable[[Sequence[int]], str]
"""A server's own way from tokens to text."""


def vocabulary_of_folder(folder: Path) -> Vocabulary:
    """The vocabulary of a folder with a `tokenizer.json`.

    Raises:
        ModelFileError: There is none, or it cannot be read.
    """
    return Vocabulary(f"tokenizer of {folder}", tokens_of_folder(folder))


def require_same_texts(texts: Texts, tokens: TokenBytes, *, server: str) -> int:
    """Refuse a server that makes other text of a token than we do.

    Args:
        texts: The server's.
        tokens: Ours.
        server: For the message.

    Returns:
        How many tokens were compared: all that are text by themselves, white space aside, which
        some tokenizers tidy. Pieces of characters and special tokens are not.

    Raises:
        VocabularyMismatchError: Names the first token that differs.
        LargeModelError: The server does not say.
    """
    plain = [token for token, piece in enumerate(tokens.pieces) if _is_plain(piece)]
    for start in range(0, len(plain), _AT_ONCE):
        part = plain[start : start + _AT_ONCE]
        if _bare(texts(part)) != _bare(tokens.text(part)):
            for token in part:
                theirs, ours = texts([token]), tokens.text([token])
                if _bare(theirs) != _bare(ours):
                    raise VocabularyMismatchError(
                        f"the vocabularies differ: token {token} is {ours!r} to the small model"
                        f" and {theirs!r} to {server}. Steering needs models of one family"
                    )
    return len(plain)


def _bare(text: str) -> str:
    return "".join(text.split())


def _is_plain(piece: bytes) -> bool:
    """Text that no tokenizer's decoder changes: no pieces of characters, no special tokens."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return False
    return text.isprintable() and not text.startswith("<") and not text.isspace()
