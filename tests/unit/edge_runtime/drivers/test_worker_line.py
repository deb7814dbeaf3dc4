"""What is known of a worker, and what was really sent."""

import pytest

from edge_runtime.drivers.worker_line import WorkerLine
from edge_runtime.steering import Traffic
from fedpt.errors import LargeModelError
from fedpt.wire.messages import AnswerRequest, LogitRequest

REQUEST = LogitRequest(request=1, session=b"12345678", position=0, tokens=b"", rows=1, largest=0)


class Wire:
    def __init__(self) -> None:
        self.is_up = True
        self.workers: list[str] = []

    def send(self, _request: LogitRequest | AnswerRequest, worker: str) -> int:
        if not self.is_up:
            raise LargeModelError("the broker cannot be reached")
        self.workers.append(worker)
        return 100


def test_only_what_a_known_worker_has_read_counts_as_held() -> None:
    line = WorkerLine(Wire().send, Traffic())
    assert line.held([1, 2, 3], 3) == 0
    line.heard("w1", [1, 2, 9])
    assert line.held([1, 2, 3], 3) == 2
    assert line.held([1, 2, 3], 1) == 1
    line.cut(1)
    assert line.held([1, 2, 3], 3) == 1
    line.forget()
    assert line.held([1, 2, 3], 3) == 0


def test_from_the_beginning_any_worker_is_asked() -> None:
    wire = Wire()
    line = WorkerLine(wire.send, Traffic())
    line.heard("w1", [1, 2, 3])
    for position in (2, 0):
        line.cut(position)
        line.send(REQUEST, 1)
    assert wire.workers == ["w1", ""]


def test_what_could_not_be_sent_is_not_counted() -> None:
    wire, traffic = Wire(), Traffic()
    line = WorkerLine(wire.send, traffic)
    line.send(REQUEST, 3)
    wire.is_up = False
    with pytest.raises(LargeModelError):
        line.send(REQUEST, 4)
    assert traffic == Traffic(bytes_up=100, tokens_sent=3)
