"""A large model in this very process, for trying models out and for measuring."""

from collections.abc import Callable, Sequence

from fedpt.decoding.large_row import full_row
from fedpt.decoding.ports import RowsTold, RowsWanted
from fedpt.drivers.llama import CachedText


class LocalLarge:
    """A `fedpt.decoding.ports.LargeModel` that computes when it is fetched from, whole rows."""

    def __init__(self, text: CachedText, *, clock: Callable[[], float]) -> None:
        self._text = text
        self._clock = clock
        self._question: RowsWanted | None = None

    def ask(self, question: RowsWanted) -> None:
        """Remember the question; nothing runs beside us in one process."""
        self._question = question

    def is_there(self) -> bool:
        """Always: there is nothing to wait for."""
        return True

    def fetch(self) -> RowsTold:
        """Compute.

        Raises:
            UsageError: The text does not fit into the context.
        """
        question = self._question
        assert question is not None  # `ask` comes first
        began = self._clock()
        first = len(question.tokens) - question.rows
        held = self._text.begin(question.tokens[:first])
        rows = self._text.append(question.tokens[held:], question.rows)
        return RowsTold([full_row(row) for row in rows], 0.0, self._clock() - began)

    def is_back(self, _tokens: Sequence[int]) -> bool:
        """It never went."""
        return True
