"""Which tokens stand for which bytes: how servers that speak in text are understood."""

from collections.abc import Sequence
from typing import TypeVar

from fedpt.drivers.llama import LlamaModel
from fedpt.errors import ModelFileError

_Key = TypeVar("_Key", bytes, str)


class TokenBytes:
    """All tokens of a vocabulary, both ways."""

    def __init__(self, model: LlamaModel) -> None:
        """Read them.

        Args:
            model: Its vocabulary is enough. Special tokens stand for their spelling.
        """
        spellings = model.vocabulary.tokens
        self.pieces = [
            model.piece(token) or spellings[token].encode() for token in range(len(spellings))
        ]
        self._by_bytes: dict[bytes, int | None] = {}
        self._by_text: dict[str, int | None] = {}
        for token, piece in enumerate(self.pieces):
            _add(self._by_bytes, piece, token)
            for text in {piece.decode(errors="replace"), piece.decode(errors="ignore")}:
                _add(self._by_text, text, token)

    def token_of_bytes(self, piece: bytes) -> int | None:
        """The token that stands for these bytes; None if there is none, or more than one."""
        return self._by_bytes.get(piece)

    def token_of_text(self, text: str) -> int | None:
        """The token that a server writes like that; None if there is none, or more than one.

        Bytes that are no UTF-8 become replacement characters, or are dropped: then a piece of a
        character with a letter after it looks like the letter.
        """
        return self._by_text.get(text)

    def letter(self) -> int:
        """Any token that is a plain letter.

        Raises:
            ModelFileError: There is none.
        """
        letters = (token for token, piece in enumerate(self.pieces) if piece.strip().isalpha())
        if (letter := next(letters, None)) is None:
            raise ModelFileError("no token of the vocabulary is a plain letter")
        return letter

    def text(self, tokens: Sequence[int]) -> str:
        """Special tokens spelt out; bytes that are no UTF-8 replaced."""
        return self.bytes_of(tokens).decode(errors="replace")

    def bytes_of(self, tokens: Sequence[int]) -> bytes:
        """Likewise, not yet as text."""
        return b"".join(self.pieces[token] for token in tokens)


def _add(known: dict[_Key, int | None], key: _Key, token: int) -> None:
    known[key] = None if key in known else token
