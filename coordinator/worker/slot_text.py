"""A conversation's text in one of the batched models, as the decode loop wants it.

For threads that steer answers here: each call waits until the batcher has done its part.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from coordinator.worker.batching import Batcher, Job, Told
from fedpt.decoding.large_row import full_row
from fedpt.decoding.ports import RowsTold, RowsWanted
from fedpt.errors import FedptError, LargeModelError
from fedpt.ids import DeviceId
from fedpt.proxy_tuning import Logits
from fedpt.token_texts import common_prefix

_LONGEST_S: Final = 300.0
"""A job that takes longer is not coming: the worker is stuck."""


class SlotText:
    """A `fedpt.decoding.ports.LocalText` in a batched model."""

    def __init__(self, batcher: Batcher, context: str, device: DeviceId, slot: int) -> None:
        self._batcher = batcher
        self._context = context
        self._device = device
        self._slot = slot
        self._tokens: list[int] = []

    def begin(self, tokens: Sequence[int]) -> int:
        """Go back to the longest beginning that is shared with `tokens`; how long it is."""
        kept = common_prefix(self._tokens, tokens)
        self.rewind(kept)
        return kept

    def append(self, tokens: Sequence[int], wanted: int) -> Logits:
        """Add tokens; the logits `(wanted, V)` after each of the last `wanted` of them.

        Raises:
            FedptError: The model failed.
        """
        return self.submit(tokens, wanted).rows()

    def rewind(self, length: int) -> None:
        """Forget all from `length` on: the next job says so to the model."""
        del self._tokens[length:]

    def submit(self, tokens: Sequence[int], wanted: int) -> "Waiting":
        """Add tokens without waiting."""
        waiting = Waiting()
        position = len(self._tokens)
        self._tokens += tokens
        self._batcher.submit(
            Job(
                self._context,
                self._device,
                self._slot,
                position,
                list(tokens),
                wanted,
                waiting.put,
            )
        )
        return waiting


class Waiting:
    """Rows that are being computed."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self._told: Told | FedptError | None = None

    def put(self, told: Told | FedptError) -> None:
        """They are there, or cannot be had."""
        self._told = told
        self._done.set()

    @property
    def is_done(self) -> bool:
        """Whether `rows` returns at once."""
        return self._done.is_set()

    def rows(self) -> Logits:
        """Wait for them.

        Raises:
            FedptError: The model failed, or is being stopped.
        """
        if not self._done.wait(_LONGEST_S):
            raise LargeModelError("the worker is stuck")
        if isinstance(self._told, FedptError):
            raise self._told
        assert isinstance(self._told, np.ndarray)  # contexts of ours give whole rows
        return self._told


class SlotLarge:
    """A `fedpt.decoding.ports.LargeModel` that is batched in this process."""

    def __init__(self, text: SlotText, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._text = text
        self._clock = clock
        self._waiting: Waiting | None = None
        self._asked_at = 0.0

    def ask(self, question: RowsWanted) -> None:
        """Queue it."""
        first = len(question.tokens) - question.rows
        held = self._text.begin(question.tokens[:first])
        self._asked_at = self._clock()
        self._waiting = self._text.submit(question.tokens[held:], question.rows)

    def is_there(self) -> bool:
        """Whether it is computed."""
        return self._waiting is not None and self._waiting.is_done

    def fetch(self) -> RowsTold:
        """Wait for it.

        Raises:
            FedptError: The model failed.
        """
        assert self._waiting is not None  # `ask` comes first
        rows = self._waiting.rows()
        return RowsTold([full_row(row) for row in rows], 0.0, self._clock() - self._asked_at)

    def is_back(self, _tokens: Sequence[int]) -> bool:
        """Failures here end the answer; the device decides what then."""
        return False
