"""A text as windows of tokens, for measuring a model on it or for calibrating with it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fedpt.errors import DataFileError
from fedpt.gguf_file import GgufFile

WINDOW: Final = 256
"""Tokens of context: enough to tell types apart, and little memory with large vocabularies."""


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        DataFileError: It is missing, empty or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"cannot read the text {path}: {error}") from error
    if not text.strip():
        raise DataFileError(f"{path} holds no text")
    return text


def window_of(file: GgufFile) -> int:
    """How many tokens a window may have for this model: learned positions end somewhere."""
    context = file.metadata.get(f"{file.architecture}.context_length")
    return min(WINDOW, context) if isinstance(context, int) else WINDOW


def windows(tokens: Sequence[int], size: int, *, begin: int | None = None) -> Iterator[list[int]]:
    """Consecutive stretches of at most `size` tokens, none of a single one.

    Args:
        tokens: The whole text.
        size: With `begin` among them.
        begin: A token that every text of this model begins with, if there is one.
    """
    head = [] if begin is None else [begin]
    step = size - len(head)
    for start in range(0, len(tokens), step):
        window = head + list(tokens[start : start + step])
        if len(window) > 1:
            yield window
