"""Text that every Python carries: for healing a derived model where no corpus is at hand.

The standard library's docstrings, its language reference (`pydoc_data.topics`) and some of its
source: English prose and code, a few megabytes, read from the running interpreter.
"""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from fedpt.errors import DataFileError

_SHORTEST_DOCSTRING: Final = 150
_SOURCE_PIECE: Final = 1500


def public_text(rng: np.random.Generator) -> list[str]:
    """Passages in random order: about two thirds prose, the rest code."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [*_reference(), *(text for path in modules for text in _passages(path, rng))]
    return [texts[index] for index in rng.permutation(len(texts))]


def text_file(path: Path) -> list[str]:
    """A text file's paragraphs.

    Raises:
        DataFileError: It is missing, empty or not UTF-8.
    """
    try:
        paragraphs = path.read_text(encoding="utf-8").split("\n\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"cannot read the text {path}: {error}") from error
    texts = [paragraph for paragraph in paragraphs if paragraph.strip()]
    if not texts:
        raise DataFileError(f"{path} holds no text")
    return texts


def _reference() -> list[str]:
    from pydoc_data.topics import topics

    return list(topics.values())


def _passages(path: Path, rng: np.random.Generator) -> Iterator[str]:
    """A module's longer docstrings and one piece of its source."""
    source = path.read_text(encoding="utf-8", errors="replace")
    if len(source) > 2 * _SOURCE_PIECE:
        start = int(rng.integers(len(source) - _SOURCE_PIECE))
        yield source[start : start + _SOURCE_PIECE]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            docstring = ast.get_docstring(node) or ""
            if len(docstring) > _SHORTEST_DOCSTRING:
                yield docstring
