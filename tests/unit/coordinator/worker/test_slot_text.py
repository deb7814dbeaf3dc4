"""A conversation's text in a batched model, as the decode loop sees it from its own thread."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from coordinator.worker.batching import Batcher, Told
from coordinator.worker.slot_text import SlotLarge, SlotText
from fedpt.decoding.ports import RowsWanted
from fedpt.drivers.llama_runs import Run
from fedpt.errors import SessionLostError
from fedpt.ids import DeviceId

NONE = np.zeros(0, np.int64)


class Echo:
    """A context whose row after a token is that token; it knows what it had to compute."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def evaluate(self, runs: Sequence[Run]) -> list[Told]:
        self.runs += runs
        return [
            np.float32(run.tokens[len(run.tokens) - run.wanted :]).reshape(-1, 1) for run in runs
        ]

    def forget(self, sequence: int, position: int = 0) -> None:
        pass


@contextmanager
def stepped(batcher: Batcher) -> Iterator[None]:
    """Another thread steps it."""
    is_over = threading.Event()

    def step() -> None:
        while not is_over.is_set():
            if not batcher.step():
                batcher.wait(1, unless=is_over.is_set)

    thread = threading.Thread(target=step)
    thread.start()
    yield
    is_over.set()
    batcher.wake()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def batcher(echo: Echo) -> Batcher:
    return Batcher({"m": echo})


@pytest.fixture
def text(batcher: Batcher) -> SlotText:
    return SlotText(batcher, "m", DeviceId("board-1"), 0)


def test_only_what_is_new_is_computed(batcher: Batcher, text: SlotText, echo: Echo) -> None:
    with stepped(batcher):
        assert text.begin([1, 2, 3]) == 0
        assert text.append([1, 2, 3], 2).tolist() == [[2], [3]]
        assert text.begin([1, 2, 9, 9]) == 2
        assert text.append([9, 9], 1).tolist() == [[9]]
    assert [(run.position, list(run.tokens)) for run in echo.runs] == [(0, [1, 2, 3]), (2, [9, 9])]


def test_a_question_computes_at_least_the_rows_that_it_wants(
    batcher: Batcher, text: SlotText
) -> None:
    large = SlotLarge(text)
    with stepped(batcher):
        for _ in range(2):
            large.ask(RowsWanted([5, 6, 7], 2, [NONE] * 2, "all"))
            rows = large.fetch().rows
            assert [row.logits.tolist() for row in rows] == [[6], [7]]
            assert all(row.is_full for row in rows)
            assert large.is_there()


def test_who_waits_is_told_when_the_worker_stops(batcher: Batcher, text: SlotText) -> None:
    waiting = text.submit([1], 1)
    assert not waiting.is_done
    batcher.close()
    with pytest.raises(SessionLostError):
        waiting.rows()
