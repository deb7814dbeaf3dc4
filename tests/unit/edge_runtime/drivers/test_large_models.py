"""The large model over a wire that the test holds in its hand."""

from collections.abc import Callable

import numpy as np
import pytest

from edge_runtime.drivers.large_models import LogitDesk, RemoteLarge
from fedpt.errors import LargeModelError
from fedpt.proxy_tuning import Logits
from fedpt.wire.codec import row_to_bytes
from fedpt.wire.messages import LogitReply, LogitRequest

ROW = np.arange(5, dtype=np.float32)

Respond = Callable[[LogitRequest], list[LogitReply]]


def reply(request: LogitRequest, row: Logits = ROW) -> LogitReply:
    return LogitReply(
        request=request.request, session=request.session, worker="w1", row=row_to_bytes(row)
    )


def refusal(request: LogitRequest, code: str) -> LogitReply:
    return LogitReply(request=request.request, session=request.session, code=code, reason="no")


class Wire:
    """Notes what is sent and delivers at once what `respond` makes of it."""

    def __init__(self, respond: Respond) -> None:
        self.sent: list[tuple[int, list[int], str]] = []
        self.requests: list[LogitRequest] = []
        self.desk = LogitDesk()
        self._respond = respond

    def send(self, request: LogitRequest, worker: str) -> None:
        self.sent.append((request.position, request.tokens, worker))
        self.requests.append(request)
        for one in self._respond(request):
            self.desk.deliver(one)

    def open(self, deadline_s: float = 5.0) -> RemoteLarge:
        return RemoteLarge(self.send, self.desk, vocabulary_size=5, deadline_s=deadline_s)


def ask(large: RemoteLarge, tokens: list[int]) -> Logits:
    large.ask(tokens)
    return large.fetch()


def test_only_new_tokens_travel_to_the_worker_that_holds_the_others() -> None:
    wire = Wire(lambda request: [reply(request)])
    large = wire.open()
    assert ask(large, [7, 8, 9]).tolist() == ROW.tolist()
    ask(large, [7, 8, 9, 10])
    ask(large, [7, 8, 11])
    assert wire.sent == [(0, [7, 8, 9], ""), (3, [10], "w1"), (2, [11], "w1")]


def test_asking_the_same_again_sends_the_last_token() -> None:
    wire = Wire(lambda request: [reply(request)])
    large = wire.open()
    for _ in range(2):
        ask(large, [7, 8])
    assert wire.sent[1] == (1, [8], "w1")


def test_a_lost_session_gets_all_tokens_again_once() -> None:
    lost = iter([False, True, False])
    wire = Wire(lambda r: [refusal(r, "session_lost") if next(lost) else reply(r)])
    large = wire.open()
    ask(large, [7, 8])
    assert ask(large, [7, 8, 9]).tolist() == ROW.tolist()
    assert wire.sent[1:] == [(2, [9], "w1"), (0, [7, 8, 9], "")]


def test_a_session_that_is_lost_for_good_is_given_up() -> None:
    wire = Wire(lambda request: [refusal(request, "session_lost")])
    with pytest.raises(LargeModelError, match=r"refuses: no \(session_lost\)"):
        ask(wire.open(), [7])
    assert len(wire.sent) == 2


def test_late_and_foreign_replies_are_ignored() -> None:
    wrong = np.zeros(5, np.float32)
    wire = Wire(
        lambda request: [
            reply(LogitRequest(request=request.request + 5, session=request.session, position=0,
                               tokens=[1]), wrong),
            reply(LogitRequest(request=request.request, session="another", position=0,
                               tokens=[1]), wrong),
            reply(request),
        ]
    )  # fmt: skip
    assert ask(wire.open(), [7]).tolist() == ROW.tolist()


def test_a_reply_to_the_conversation_before_is_ignored() -> None:
    wire = Wire(lambda _request: [])
    wire.open().ask([7])
    large = wire.open(deadline_s=0.01)
    wire.desk.deliver(reply(wire.requests[0]))
    large.ask([7])
    with pytest.raises(LargeModelError, match=r"silent for 0\.01 s"):
        large.fetch()


def test_a_row_with_a_nan_is_refused() -> None:
    row = np.array([0, 1, np.nan, 3, 4], np.float32)
    with pytest.raises(LargeModelError, match="not finite"):
        ask(Wire(lambda request: [reply(request, row)]).open(), [7])


def test_a_row_of_another_vocabulary_is_refused() -> None:
    with pytest.raises(LargeModelError, match="a row of 24 bytes for a vocabulary of 5 tokens"):
        ask(Wire(lambda request: [reply(request, np.zeros(6, np.float32))]).open(), [7])


def test_what_was_refused_is_sent_again_with_the_next_request() -> None:
    codes = iter(["", "too_long", ""])
    wire = Wire(lambda r: [refusal(r, code) if (code := next(codes)) else reply(r)])
    large = wire.open()
    ask(large, [7])
    with pytest.raises(LargeModelError, match="too_long"):
        ask(large, [7, 8])
    ask(large, [7, 8, 9])
    assert wire.sent[-1] == (1, [8, 9], "w1")
