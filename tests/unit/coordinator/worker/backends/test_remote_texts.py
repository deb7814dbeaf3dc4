"""Texts that are kept here for a server that keeps nothing."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from coordinator.worker.backends.remote_texts import RemoteTexts
from coordinator.worker.batching import Batcher, Job, Told
from fedpt.decoding.large_row import LargeRow
from fedpt.drivers.llama_runs import Run
from fedpt.errors import FedptError, LargeModelError
from fedpt.ids import DeviceId

BAD = 6666


class Echo:
    """A server: each row's only token is the text's last; `BAD` in a text is refused."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], int, int]] = []
        self.together = threading.Barrier(1)

    def rows(self, tokens: Sequence[int], wanted: int, sequence: int) -> list[LargeRow]:
        self.asked.append((list(tokens), wanted, sequence))
        self.together.wait(5)
        if BAD in tokens:
            raise LargeModelError("bad")
        return [
            LargeRow(np.array([token]), np.zeros(1, np.float32), np.zeros(1, np.float32), 0, 0, 999)
            for token in tokens[len(tokens) - wanted :]
        ]


@pytest.fixture
def server() -> Echo:
    return Echo()


@pytest.fixture
def texts(server: Echo) -> Iterator[RemoteTexts]:
    one = RemoteTexts(server)
    yield one
    one.close()


def ids(told: Told | FedptError) -> list[int]:
    assert not isinstance(told, FedptError | np.ndarray)
    return [int(row.ids[0]) for row in told]


def test_a_text_is_sent_whole_whenever_rows_of_it_are_wanted(
    texts: RemoteTexts, server: Echo
) -> None:
    texts.evaluate([Run(3, 0, [1, 2], 0)])
    (told,) = texts.evaluate([Run(3, 2, [4, 5], 2)])
    assert ids(told) == [4, 5]
    texts.forget(3, 3)
    texts.evaluate([Run(3, 3, [6], 1)])
    assert server.asked == [([1, 2, 4, 5], 2, 3), ([1, 2, 4, 6], 1, 3)]


def test_texts_are_asked_about_at_the_same_time_and_one_that_fails_fails_alone(
    texts: RemoteTexts, server: Echo
) -> None:
    server.together = threading.Barrier(2)  # breaks unless both are asked before either is told
    good, bad = texts.evaluate([Run(0, 0, [1], 1), Run(1, 0, [BAD], 1)])
    assert ids(good) == [1]
    assert isinstance(bad, LargeModelError)


def test_a_text_that_is_not_here_is_not_made_up(texts: RemoteTexts) -> None:
    with pytest.raises(LargeModelError, match="0 tokens are here, not 4"):
        texts.evaluate([Run(0, 4, [1], 1)])


def test_too_few_rows_are_a_failure(texts: RemoteTexts, server: Echo) -> None:
    server.rows = lambda *_: []  # type: ignore[method-assign]  # a server that tells nothing
    (told,) = texts.evaluate([Run(0, 0, [1], 1)])
    assert "told 0 rows, not 1" in str(told)


def test_long_texts_of_several_devices_go_through_a_batcher(texts: RemoteTexts) -> None:
    batcher, told = Batcher({"large": texts}), dict[int, Told | FedptError]()
    for slot, tokens in enumerate([list(range(1200)), [BAD], [5, 6, 7]]):
        done = lambda rows, slot=slot: told.__setitem__(slot, rows)  # noqa: E731
        batcher.submit(Job("large", DeviceId(f"d{slot}"), slot, 0, tokens, 1, done))
    while batcher.step():
        pass
    assert ids(told[0]) == [1199]
    assert ids(told[2]) == [7]
    assert isinstance(told[1], LargeModelError)
