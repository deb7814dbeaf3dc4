"""What a board sends to workers, what it hears of them, and what that costs."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.drivers.worker_desk import WorkerDesk
from edge_runtime.settings import DeviceSettings
from fedpt.decoding.ports import RowsWanted
from fedpt.drivers.mqtt import Publication, Received
from fedpt.errors import BrokerError, LargeModelError
from fedpt.ids import FederationId
from fedpt.vocabulary import Vocabulary
from fedpt.wire.codec import decode, encode
from fedpt.wire.logit_format import rows_to_bytes
from fedpt.wire.messages import CoordinatorStatus, LogitReply, LogitRequest
from fedpt.wire.topics import Topics

TOPICS = Topics(FederationId("home"))
VOCABULARY = Vocabulary("tiny", tuple("abcdefgh"))
NONE = np.zeros(0, np.int64)
QUESTION = RowsWanted([1, 2, 3], 1, [NONE], "all")
INBOX = TOPICS.inbox("board-1", "logits")


class Broker:
    """Takes what is published, or does not; a worker may reply at once."""

    def __init__(self, folder: Path) -> None:
        self.published: list[Publication] = []
        self.is_connected = True
        self.most_bytes = 10_000
        self.replies = True
        settings = DeviceSettings(name="board-1", small=folder / "s", state_dir=folder)
        self.desk = WorkerDesk(settings, TOPICS, VOCABULARY, publish=self.publish)

    def publish(self, publication: Publication) -> bool:
        if len(publication.payload) > self.most_bytes:
            raise BrokerError("a packet of too many bytes")
        if not self.is_connected:
            return False
        self.published.append(publication)
        if self.replies:
            self.desk.hear(Received(INBOX, encode(self.reply())))
        return True

    def reply(self) -> LogitReply:
        request = decode(self.published[-1].payload, LogitRequest)
        rows = rows_to_bytes(np.zeros((1, 8), np.float32), k=0, candidates=[], precision="f32")
        return LogitReply(request=request.request, session=request.session, worker="w1", rows=rows)

    def ask(self) -> None:
        self.desk.access.large.ask(QUESTION)
        self.desk.access.large.fetch()


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    one = Broker(tmp_path)
    one.desk.hear_coordinator(status())
    return one


def status(session: int = 1, *, online: bool = True, vocabulary: str = "") -> CoordinatorStatus:
    return CoordinatorStatus(
        online=online, session=session, vocabulary=vocabulary or VOCABULARY.sha256, large_name="L"
    )


def test_a_first_request_goes_to_any_worker_and_the_next_to_the_one_that_replied(
    broker: Broker,
) -> None:
    broker.ask()
    broker.ask()
    assert [one.topic for one in broker.published] == [
        "fedpt/v1/home/device/board-1/logits",
        "fedpt/v1/home/worker/w1/logits/board-1",
    ]
    assert {(one.qos, one.retain) for one in broker.published} == {(0, False)}
    assert all(one.expiry_s for one in broker.published)
    opening = decode(broker.published[0].payload, LogitRequest).opening
    assert opening is not None
    assert opening.vocabulary == VOCABULARY.sha256


def mqtt_bytes(topic: str, payload: bytes) -> int:
    """A QoS 0 publish with an expiry, as MQTT 5, section 3.3, writes it."""
    body = 2 + len(topic) + 1 + 5 + len(payload)
    return 1 + (1 if body < 128 else 2) + body


@pytest.mark.parametrize("tokens", [1, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 30])
def test_bytes_are_those_on_the_wire(broker: Broker, tokens: int) -> None:
    """Among these is a packet whose length takes a second byte only with the expiry."""
    large = broker.desk.access.large
    large.ask(RowsWanted([1] * tokens, 1, [NONE], "all"))
    large.fetch()
    large.ask(RowsWanted([1] * 2 * tokens, 1, [NONE], "all"))
    large.fetch()
    traffic = broker.desk.access.traffic
    assert traffic.bytes_up == sum(mqtt_bytes(one.topic, one.payload) for one in broker.published)
    assert traffic.bytes_down == 2 * mqtt_bytes(INBOX, encode(broker.reply()))
    assert traffic.tokens_sent == 2 * tokens


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (status(online=False), "the coordinator is offline"),
        (status(vocabulary="x"), "the coordinator's large model 'L' has another vocabulary"),
    ],
)
def test_what_cannot_come_is_not_asked_for(
    broker: Broker, what: CoordinatorStatus, reason: str
) -> None:
    broker.desk.hear_coordinator(what)
    with pytest.raises(LargeModelError, match=reason):
        broker.ask()
    assert broker.published == []
    broker.desk.hear_coordinator(status())
    broker.ask()


def test_without_any_word_of_a_coordinator_nothing_is_asked(tmp_path: Path) -> None:
    with pytest.raises(LargeModelError, match="offline"):
        Broker(tmp_path).ask()


def test_a_last_will_that_comes_late_is_no_news(broker: Broker) -> None:
    assert broker.desk.hear_coordinator(status(session=3))
    assert not broker.desk.hear_coordinator(status(session=2, online=False))
    broker.ask()


def test_a_lost_broker_is_told_at_once(broker: Broker) -> None:
    broker.is_connected = False
    with pytest.raises(LargeModelError, match="the broker cannot be reached"):
        broker.ask()


def test_a_question_that_the_broker_does_not_take_fails_like_any_other(broker: Broker) -> None:
    broker.most_bytes = 10
    with pytest.raises(LargeModelError, match="a packet of too many bytes"):
        broker.ask()


def test_garbage_and_replies_to_others_are_dropped_and_not_counted(broker: Broker) -> None:
    for payload in (
        b"",
        b"garbage",
        encode(status()),
        encode(LogitReply(request=1, session=bytes(8))),
    ):
        broker.desk.hear(Received(INBOX, payload))
    assert broker.desk.access.traffic.bytes_down == 0
    broker.ask()
