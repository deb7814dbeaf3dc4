"""A large model in this very process, for trying models out and for measuring."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

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
        rows = self._text.rows(question.tokens, question.rows)
        return RowsTold([full_row(row) for row in rows], 0.0, self._clock() - began)

    def is_back(self, _tokens: Sequence[int]) -> bool:
        """It never went."""
        return True


class ParallelLarge:
    """The same, computing on a thread of its own as soon as it is asked.

    Expert and antiexpert run meanwhile, so give each model a part of the cores. Close it before the
    text's context.
    """

    def __init__(self, text: CachedText, *, clock: Callable[[], float]) -> None:
        self._large = LocalLarge(text, clock=clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="large")
        self._told: Future[RowsTold] | None = None

    def ask(self, question: RowsWanted) -> None:
        """Begin to compute; after what an abandoned answer has left, if anything."""
        self._told = self._thread.submit(self._compute, question)

    def is_there(self) -> bool:
        """Whether it is computed."""
        return self._told is not None and self._told.done()

    def fetch(self) -> RowsTold:
        """Wait for it.

        Raises:
            UsageError: The text does not fit into the context.
        """
        assert self._told is not None  # `ask` comes first
        return self._told.result()

    def is_back(self, _tokens: Sequence[int]) -> bool:
        """It never went."""
        return True

    def close(self) -> None:
        """Wait for what is being computed; nothing can be asked any more."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _compute(self, question: RowsWanted) -> RowsTold:
        self._large.ask(question)
        return self._large.fetch()
