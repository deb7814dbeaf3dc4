"""Rows from request to reply, over a model that fails in every way, and a broker that refuses."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from coordinator.worker.admission import Admission, Limits
from coordinator.worker.batching import Batcher, Told
from coordinator.worker.replies import Replies
from coordinator.worker.rows_desk import RowsDesk, RowSource
from coordinator.worker.sessions import Capacity, Sessions
from fedpt.drivers.llama_runs import Run
from fedpt.drivers.mqtt import Publication
from fedpt.errors import BrokerError, ModelFileError
from fedpt.ids import DeviceId, FederationId
from fedpt.wire.codec import decode_worker_reply
from fedpt.wire.messages import LogitReply, LogitRequest
from fedpt.wire.token_format import tokens_to_bytes
from fedpt.wire.topics import Topics

V = 20
ONE = DeviceId("board-1")
BROKEN, NAN = 18, 19
"""Tokens that break the model."""


class Model:
    """A context whose rows are zero."""

    def evaluate(self, runs: Sequence[Run]) -> list[Told]:
        if any(BROKEN in run.tokens for run in runs):
            raise ModelFileError("broken")
        return [
            np.full((run.wanted, V), np.nan if NAN in run.tokens else 0, np.float32) for run in runs
        ]

    def forget(self, sequence: int, position: int = 0) -> None:
        pass


class Worker:
    """The desk, and what it sends."""

    def __init__(self) -> None:
        self.most_bytes = 10_000
        self.sent: list[LogitReply] = []
        self.batcher = Batcher({"large": Model()})
        limits = Limits(V, V, True, 1e6, 1e6, waiting=8, waiting_per_device=8)
        self.admission = Admission(limits)
        self.sessions = Sessions(Capacity(2, 2, 64, V), on_cut=self.batcher.forget)
        replies = Replies("w1", Topics(FederationId("home")), publish=self.publish)
        source = RowSource(self.batcher, V, is_approximate=True)
        self.desk = RowsDesk(source, self.sessions, self.admission, replies)

    def publish(self, publication: Publication) -> None:
        if len(publication.payload) > self.most_bytes:
            raise BrokerError("too large")
        reply = decode_worker_reply(publication.payload)
        assert isinstance(reply, LogitReply)
        self.sent.append(reply)

    def ask(self, tokens: list[int], **more: object) -> str:
        """The reply's code."""
        request = LogitRequest(
            request=1,
            session=bytes(8),
            position=0,
            tokens=tokens_to_bytes(tokens),
            rows=1,
            largest=0,
        )
        self.desk.hear(ONE, msgspec.structs.replace(request, **more), 0.0)
        while self.batcher.step():
            pass
        assert not self.admission._waiting
        return self.sent[-1].code


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.mark.parametrize("token", [BROKEN, NAN])
def test_a_model_that_fails_is_told_and_its_text_is_not_counted_on(
    worker: Worker, token: int
) -> None:
    assert worker.ask([1, 2]) == ""
    assert worker.ask([token], position=2) in ("model_file", "large_model")
    session = worker.sessions.find((ONE, "rows", bytes(8)))
    assert session is not None
    assert (session.tokens, session.users) == ([], 0)
    assert worker.ask([1, 2]) == ""


def test_rows_that_the_broker_does_not_take_are_too_much_and_the_worker_goes_on(
    worker: Worker,
) -> None:
    worker.most_bytes = 200
    assert worker.ask([1] * 10, rows=8) == "too_much"
    assert worker.ask([1] * 10) == ""


def test_a_broker_that_takes_nothing_stops_nobody(worker: Worker) -> None:
    worker.ask([1])
    worker.most_bytes = 0
    worker.ask([1, 2])
    assert len(worker.sent) == 1


def test_how_long_the_worker_was_busy_is_told(worker: Worker) -> None:
    worker.ask([1])
    assert worker.sent[0].busy_us > 0
    assert worker.sent[0].worker == "w1"


def test_rows_of_an_approximate_model_are_marked() -> None:
    worker = Worker()
    assert worker.ask([5]) == ""
    assert worker.sent[-1].is_approximate
