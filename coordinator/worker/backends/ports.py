"""What a worker needs of its large model, wherever that is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.worker.batching import Context
from fedpt.decoding.large_row import LargeRow
from fedpt.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Large:
    """A large model that is ready."""

    name: str
    """What devices may ask for by name."""
    vocabulary: Vocabulary
    context: Context
    gives_whole_rows: bool
    """False: `context` gives `LargeRow`s."""
    close: Callable[[], None]
    is_approximate: bool = False
    """Whether its rows may be off by more than they say, for its tokens are known by spelling."""


def beginnings(tokens: Sequence[int], count: int) -> list[list[int]]:
    """A text up to each of its last `count` tokens: for servers that tell one row a prompt."""
    return [list(tokens[:length]) for length in range(len(tokens) - count + 1, len(tokens) + 1)]


class Scorer(Protocol):
    """A server's model. It keeps nothing of ours: each call has the whole text. Thread-safe."""

    def rows(self, tokens: Sequence[int], wanted: int, sequence: int) -> list[LargeRow]:
        """The rows after each of the last `wanted` tokens of a text.

        Args:
            tokens: The whole text.
            wanted: At least one.
            sequence: Which of the worker's conversations; the server may keep a cache for it.

        Raises:
            LargeModelError: The server cannot be reached, refuses, or answers with nonsense.
        """
