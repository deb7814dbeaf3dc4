"""A batched context over a server that keeps nothing: the texts are here, and are sent whole."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from coordinator.worker.backends.ports import Scorer
from coordinator.worker.batching import Told
from fedpt.drivers.llama_runs import Run
from fedpt.errors import FedptError, LargeModelError

_CONCURRENT: Final = 16
"""Texts that a server is asked about at a time: it batches them."""


class RemoteTexts:
    """A `coordinator.worker.batching.Context`; a text that fails does not fail the others."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._texts: dict[int, list[int]] = {}
        self._threads = ThreadPoolExecutor(_CONCURRENT, thread_name_prefix="model-server")

    def evaluate(self, runs: Sequence[Run]) -> list[Told | FedptError]:
        """Add tokens to their texts, and ask for the rows that are wanted, all at once."""
        for run in runs:
            held = self._texts.setdefault(run.sequence, [])
            if run.position > len(held):
                raise LargeModelError(f"{len(held)} tokens are here, not {run.position}")
            held[run.position :] = run.tokens
        return list(self._threads.map(self._rows, runs))

    def forget(self, sequence: int, position: int = 0) -> None:
        """Drop a text's tokens from `position` on."""
        del self._texts.setdefault(sequence, [])[position:]

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown(cancel_futures=True)

    def _rows(self, run: Run) -> Told | FedptError:
        if not run.wanted:  # a part of a long text: it is sent with the rest
            return []
        try:
            rows = self._scorer.rows(self._texts[run.sequence], run.wanted, run.sequence)
        except FedptError as error:
            return error
        if len(rows) != run.wanted:
            return LargeModelError(f"the model server told {len(rows)} rows, not {run.wanted}")
        return rows
