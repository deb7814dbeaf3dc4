"""Rows of the large model over a wire that the test holds in its hand."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from edge_runtime.drivers.large_models import Asking, RemoteLarge
from edge_runtime.steering import Traffic
from fedpt.decoding.ports import Detail, RowsTold, RowsWanted
from fedpt.errors import BusyError, LargeModelError, SessionLostError, TooLongError, TooMuchError
from fedpt.proxy_tuning import Logits
from fedpt.wire.logit_format import rows_to_bytes
from fedpt.wire.messages import AnswerRequest, LogitReply, LogitRequest, Opening
from fedpt.wire.token_format import id_sets_from_bytes, tokens_from_bytes

V = 40
OPENING = Opening(vocabulary="v", large="l")
NONE = np.zeros(0, np.int64)

Respond = Callable[[LogitRequest], list[LogitReply]]


def model(token: int) -> Logits:
    return np.roll(np.arange(V, dtype=np.float32), token)


def rows(request: LogitRequest) -> bytes:
    """What an honest worker tells: each row depends on its token."""
    tokens = tokens_from_bytes(request.tokens)[-request.rows :]
    candidates = id_sets_from_bytes(request.candidates, request.rows, vocabulary_size=V)
    logits = np.stack([model(token) for token in tokens])
    return rows_to_bytes(
        logits, k=request.largest, candidates=candidates, precision=request.precision
    )


def reply(request: LogitRequest, worker: str = "w1", content: bytes | None = None) -> LogitReply:
    return LogitReply(
        request=request.request,
        session=request.session,
        worker=worker,
        busy_us=1000,
        rows=rows(request) if content is None else content,
    )


def refusal(request: LogitRequest, code: str) -> LogitReply:
    return LogitReply(
        request=request.request, session=request.session, worker="w1", code=code, reason="no"
    )


class Clock:
    """The real one, set forward at will."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


class Wire:
    """Notes what is sent and delivers at once what `respond` makes of it."""

    def __init__(self, respond: Respond, *, deadline_s: float = 5.0, retry_s: float = 5.0) -> None:
        self.sent: list[tuple[int, list[int], str]] = []
        self.requests: list[LogitRequest] = []
        self.respond = respond
        self.clock = Clock()
        self.traffic = Traffic()
        asking = Asking(V, deadline_s, retry_s, largest=4, largest_more=8, opening=OPENING)
        self.large = RemoteLarge(self.send, asking, self.traffic, clock=self.clock)

    def send(self, request: LogitRequest | AnswerRequest, worker: str) -> int:
        assert isinstance(request, LogitRequest)
        self.sent.append((request.position, tokens_from_bytes(request.tokens), worker))
        self.requests.append(request)
        for one in self.respond(request):
            self.large.mailbox.put(one)
        return 100

    def ask(self, tokens: list[int], count: int = 1, detail: Detail = "few") -> RowsTold:
        self.large.ask(RowsWanted(tokens, count, [NONE] * count, detail))
        return self.large.fetch()


def honest(request: LogitRequest) -> list[LogitReply]:
    return [reply(request)]


def silent(_request: LogitRequest) -> list[LogitReply]:
    return []


def assert_right(told: RowsTold, tokens: list[int]) -> None:
    for row, token in zip(told.rows, tokens, strict=True):
        np.testing.assert_allclose(row.logits, model(token)[row.ids], atol=0.02)  # float16


def test_only_new_tokens_travel_to_the_worker_that_holds_the_others() -> None:
    wire = Wire(honest)
    assert_right(wire.ask([7, 8, 9]), [9])
    assert_right(wire.ask([7, 8, 9, 10]), [10])
    assert_right(wire.ask([7, 8, 11, 12], 2), [11, 12])
    assert wire.sent == [(0, [7, 8, 9], ""), (3, [10], "w1"), (2, [11, 12], "w1")]
    assert [one.opening for one in wire.requests] == [OPENING, None, None]
    assert wire.traffic == Traffic(bytes_up=300, tokens_sent=6)


def test_asking_the_same_again_sends_the_tokens_whose_rows_are_wanted() -> None:
    wire = Wire(honest)
    wire.ask([7, 8, 9])
    wire.ask([7, 8, 9], 2)
    assert wire.sent[1] == (1, [8, 9], "w1")


def test_what_an_unheard_request_may_have_changed_is_sent_again() -> None:
    wire = Wire(honest)
    wire.ask([1, 2, 3, 4, 5])
    wire.large.ask(RowsWanted([1, 2, 9, 9], 1, [NONE], "few"))  # nobody fetches: the answer stopped
    wire.ask([1, 2, 3, 4, 6])
    assert wire.sent[-1] == (2, [3, 4, 6], "w1")


@pytest.mark.parametrize(
    ("detail", "largest", "precision"), [("few", 4, "f16"), ("more", 8, "f32"), ("all", 0, "f32")]
)
def test_more_detail_is_more_logits(detail: Detail, largest: int, precision: str) -> None:
    wire = Wire(honest)
    told = wire.ask([7], detail=detail)
    assert (wire.requests[0].largest, wire.requests[0].precision) == (largest, precision)
    assert len(told.rows[0].ids) == (largest or V)


def test_a_lost_session_gets_all_tokens_again_once() -> None:
    lost = iter([False, True, False])
    wire = Wire(lambda r: [refusal(r, "session_lost") if next(lost) else reply(r)])
    wire.ask([7, 8])
    assert_right(wire.ask([7, 8, 9]), [9])
    assert wire.sent[1:] == [(2, [9], "w1"), (0, [7, 8, 9], "")]


def test_a_session_that_is_lost_for_good_is_given_up() -> None:
    wire = Wire(lambda request: [refusal(request, "session_lost")])
    with pytest.raises(SessionLostError, match=r"refuses: no \(session_lost\)"):
        wire.ask([7])
    assert len(wire.sent) == 2


def test_a_silent_worker_is_replaced_by_any_other() -> None:
    wire = Wire(honest)
    wire.ask([7, 8])
    wire = Wire(lambda r: [] if len(wire.sent) == 1 else [reply(r, "w2")], retry_s=0.01)
    assert_right(wire.ask([7, 8, 9]), [9])
    wire.ask([7, 8, 9, 5])
    assert wire.sent == [(0, [7, 8, 9], ""), (0, [7, 8, 9], ""), (3, [5], "w2")]


def test_a_slow_worker_is_heard_though_another_was_asked_meanwhile() -> None:
    wire = Wire(lambda _r: [reply(wire.requests[0], "slow")] if len(wire.sent) == 2 else [],
                retry_s=0.01)  # fmt: skip
    assert_right(wire.ask([7]), [7])
    assert len({one.request for one in wire.requests}) == 1


def test_nobody_who_answers_is_told_within_the_deadline() -> None:
    wire = Wire(silent, deadline_s=0.05, retry_s=0.02)
    with pytest.raises(LargeModelError, match=r"silent for 0\.05 s"):
        wire.ask([7])
    assert 2 <= len(wire.sent) <= 3
    assert not wire.large.mailbox.is_full


def test_whether_a_reply_is_there_is_known_without_waiting() -> None:
    wire = Wire(silent)
    wire.large.ask(RowsWanted([7], 1, [NONE], "few"))
    assert not wire.large.is_there()
    wire.clock.ahead_s = 5.1
    assert wire.large.is_there()


@pytest.mark.parametrize(
    ("code", "kind"),
    [("busy", BusyError), ("too_long", TooLongError), ("too_much", TooMuchError),
     ("usage", LargeModelError), ("of a later version", LargeModelError)],
)  # fmt: skip
def test_a_refusal_is_told_and_what_was_refused_is_sent_again(
    code: str, kind: type[LargeModelError]
) -> None:
    codes = iter(["", code, ""])
    wire = Wire(lambda r: [refusal(r, one) if (one := next(codes)) else reply(r)])
    wire.ask([7])
    with pytest.raises(kind, match=code):
        wire.ask([7, 8])
    wire.ask([7, 8, 9])
    assert wire.sent[-1] == (1, [8, 9], "w1")


def test_late_and_foreign_replies_are_ignored_and_the_first_right_one_counts() -> None:
    def respond(request: LogitRequest) -> list[LogitReply]:
        wrong = rows_to_bytes(np.zeros((1, V), np.float32), k=0, candidates=[], precision="f32")
        late = LogitReply(
            request=request.request - 1, session=request.session, worker="x", rows=wrong
        )
        foreign = LogitReply(request=request.request, session=bytes(8), worker="x", rows=wrong)
        return [late, foreign, reply(request), reply(request, "twice")]

    wire = Wire(respond)
    assert_right(wire.ask([7]), [7])
    wire.ask([7, 8])
    assert wire.sent[1] == (1, [8], "w1")
    wire.large.mailbox.put(reply(wire.requests[-1]))
    assert not wire.large.mailbox.is_full


def test_replies_that_nobody_takes_are_not_kept_for_ever() -> None:
    wire = Wire(silent)
    wire.large.ask(RowsWanted([7], 1, [NONE], "few"))
    for _ in range(10_000):
        wire.large.mailbox.put(reply(wire.requests[0]))
    assert len(wire.large.mailbox._replies) <= 256


def nan_row() -> bytes:
    logits = np.zeros((1, V), np.float32)
    logits[0, 3] = np.nan
    return rows_to_bytes(logits, k=0, candidates=[], precision="f32")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x02\x00\x00\x00",
        nan_row(),
        nan_row()[:-1],
        rows_to_bytes(np.zeros((1, V + 1), np.float32), k=0, candidates=[], precision="f32"),
        rows_to_bytes(np.zeros((2, V), np.float32), k=0, candidates=[], precision="f32"),
    ],
)
def test_rows_that_are_none_are_an_error_and_another_worker_is_asked_next(content: bytes) -> None:
    contents = iter([None, content, None])
    wire = Wire(lambda request: [reply(request, content=next(contents))])
    wire.ask([7])
    with pytest.raises(LargeModelError, match="of no use"):
        wire.ask([7, 8])
    assert_right(wire.ask([7, 8]), [8])
    assert wire.sent[-1] == (0, [7, 8], "")


@pytest.mark.parametrize("worker", ["", "a/b", "+", "x" * 300, "../up"])
def test_a_worker_whose_name_is_no_topic_level_is_not_followed(worker: str) -> None:
    wire = Wire(lambda request: [reply(request, worker)])
    with pytest.raises(LargeModelError, match="which is no worker"):
        wire.ask([7])


def test_time_is_split_between_network_and_model() -> None:
    told = Wire(honest).ask([7])
    assert told.model_s <= 0.001
    assert told.network_s >= 0


def test_without_a_connection_it_fails_at_once() -> None:
    def send(_request: object, _worker: str) -> int:
        raise LargeModelError("the coordinator is offline")

    large = RemoteLarge(send, Asking(V, 5.0, 1.0), Traffic())
    with pytest.raises(LargeModelError, match="offline"):
        large.ask(RowsWanted([7], 1, [NONE], "few"))


def test_after_a_failure_it_is_asked_ever_more_seldom_and_never_waited_for() -> None:
    wire = Wire(silent)
    probes = []
    for _ in range(2000):
        wire.clock.ahead_s += 0.1
        assert not wire.large.is_back([7, 8])
        if len(wire.sent) > len(probes):
            probes.append(wire.clock.ahead_s)
    pauses = np.diff(probes)
    assert probes[0] == pytest.approx(1.0, abs=0.2)
    # a deadline of 5 s, and a pause that doubles up to half a minute
    assert pauses[:6] == pytest.approx([7, 9, 13, 21, 35, 35], abs=0.5)


def test_it_is_back_once_a_probe_is_answered_and_knows_what_was_read() -> None:
    wire = Wire(silent)
    wire.large.is_back([7, 8])
    wire.clock.ahead_s = 1.1
    assert not wire.large.is_back([7, 8])
    wire.large.mailbox.put(reply(wire.requests[0]))
    assert wire.large.is_back([7, 8, 9])
    wire.respond = honest
    wire.ask([7, 8, 9])
    assert wire.sent == [(0, [7, 8], ""), (2, [9], "w1")]


def test_a_probe_that_is_refused_is_no_return() -> None:
    wire = Wire(lambda request: [refusal(request, "session_lost")])
    wire.large.is_back([7])
    for ahead_s in (1.1, 1.2):
        wire.clock.ahead_s = ahead_s
        assert not wire.large.is_back([7])
    assert len(wire.sent) == 1
