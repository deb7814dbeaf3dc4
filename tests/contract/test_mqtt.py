"""What `MqttLink` promises, with each broker that we say works."""

import logging
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.errors import BrokerError
from fedpt.settings import BrokerSettings
from fedpt.wire.codec import MAX_MESSAGE_BYTES
from tests.fakes.brokers import free_port, running_embedded, running_mosquitto

pytestmark = pytest.mark.broker

WAIT_S = 20.0

Running = Callable[..., AbstractContextManager[BrokerSettings]]

BOTH = {"embedded": running_embedded, "mosquitto": running_mosquitto}


@pytest.fixture(params=BOTH)
def running(request: pytest.FixtureRequest) -> Running:
    """Starts a broker of the kind under test."""
    return BOTH[request.param]


@pytest.fixture(scope="module", params=BOTH)
def broker(request: pytest.FixtureRequest) -> Iterator[BrokerSettings]:
    """One broker for all tests that leave it running; each uses topics of its own."""
    with BOTH[request.param]() as settings:
        yield settings


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return f"tests/{request.node.name.partition('[')[0]}"


@dataclass
class Ear:
    """Where a link's messages and connections come in."""

    received: "queue.Queue[Received]" = field(default_factory=queue.Queue)
    connected: "queue.Queue[bool]" = field(default_factory=queue.Queue)

    def next(self) -> Received:
        return self.received.get(timeout=WAIT_S)

    def wait_until_connected(self) -> None:
        self.connected.get(timeout=WAIT_S)


@contextmanager
def linked(
    broker: BrokerSettings, name: str, *filters: str, **options: object
) -> Iterator[tuple[MqttLink, Ear]]:
    """A link that is up and whose subscriptions the broker has: it answers in order."""
    ear = Ear()
    link = MqttLink(
        broker,
        name,
        on_message=ear.received.put,
        on_connected=lambda: ear.connected.put(True),
        **options,
    )
    link.subscribe(*filters, f"ready/{name}")
    link.start(timeout_s=WAIT_S)
    try:
        ear.wait_until_connected()
        make_sure_of(link, ear, name)
        yield link, ear
    finally:
        link.stop()


def make_sure_of(link: MqttLink, ear: Ear, name: str) -> None:
    """Return when the broker delivers to this link. With QoS 0: it must never come again."""
    link.publish(Publication(f"ready/{name}", b"", qos=0))
    while ear.next().topic != f"ready/{name}":
        pass


def wait_until(is_true: Callable[[], bool]) -> None:
    """For what nobody tells of."""
    end = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_is_published_is_received(broker: BrokerSettings, topic: str) -> None:
    payload = bytes(range(256)) * 1024
    with linked(broker, "sub", f"{topic}/+") as (_, ear), linked(broker, "pub") as (link, _):
        link.publish(Publication(f"{topic}/a", payload))
        link.publish(Publication(f"{topic}/b", b"", qos=0))
        assert ear.next() == Received(f"{topic}/a", payload)
        assert ear.next() == Received(f"{topic}/b", b"")


def test_all_messages_come_in_order(broker: BrokerSettings, topic: str) -> None:
    with linked(broker, "sub", topic) as (_, ear), linked(broker, "pub") as (link, _):
        for number in range(500):
            link.publish(Publication(topic, str(number).encode()))
        assert [int(ear.next().payload) for _ in range(500)] == list(range(500))


def test_a_retained_message_waits_for_later_subscribers(broker: BrokerSettings, topic: str) -> None:
    with linked(broker, "pub") as (link, _):
        link.publish_and_wait(Publication(topic, b"old", retain=True), timeout_s=WAIT_S)
        link.publish_and_wait(Publication(topic, b"new", retain=True), timeout_s=WAIT_S)
    with linked(broker, "sub") as (link, ear):
        link.subscribe(topic)
        assert ear.next().payload == b"new"


def test_what_is_unsubscribed_comes_no_more(broker: BrokerSettings, topic: str) -> None:
    with linked(broker, "sub", topic) as (link, ear):
        link.unsubscribe(topic)
        link.publish(Publication(topic, b"unheard"))
        link.publish(Publication("ready/sub", b"after it"))
        assert ear.next().payload == b"after it"


def test_received_bytes_are_counted(broker: BrokerSettings, topic: str) -> None:
    with linked(broker, "sub", topic) as (link, ear):
        before = link.bytes_received
        link.publish(Publication(topic, bytes(1000)))
        ear.next()
        assert link.bytes_received - before == 1000 + len(topic)


DYING = """
import os, signal, sys
from fedpt.drivers.mqtt import MqttLink, Publication
from fedpt.settings import BrokerSettings
port, topic = int(sys.argv[1]), sys.argv[2]
link = MqttLink(BrokerSettings(port=port), "dying", on_message=print,
                will=Publication(topic, b"offline", retain=True))
link.start(timeout_s=20)
link.publish_and_wait(Publication(topic, b"online", retain=True), timeout_s=20)
if sys.argv[3] == "abrupt":
    os.kill(os.getpid(), signal.SIGKILL)
link.stop()
"""


def run_dying(broker: BrokerSettings, topic: str, manner: str) -> int:
    arguments = [sys.executable, "-c", DYING, str(broker.port), topic, manner]
    return subprocess.run(arguments, cwd=Path.cwd(), timeout=WAIT_S, check=False).returncode


def test_the_last_will_tells_of_an_abrupt_death(broker: BrokerSettings, topic: str) -> None:
    with linked(broker, "sub", topic) as (_, ear):
        assert run_dying(broker, topic, "abrupt") == -signal.SIGKILL
        assert [ear.next().payload, ear.next().payload] == [b"online", b"offline"]


def test_after_an_orderly_end_there_is_no_last_will(broker: BrokerSettings, topic: str) -> None:
    with linked(broker, "sub", topic) as (link, ear):
        assert run_dying(broker, topic, "orderly") == 0
        link.publish(Publication(topic, b"next"))
        assert [ear.next().payload, ear.next().payload] == [b"online", b"next"]


def test_a_shared_subscription_gives_each_message_to_one(
    broker: BrokerSettings, topic: str
) -> None:
    shared = f"$share/workers/{topic}"
    with (
        linked(broker, "worker-1", shared) as (_, one),
        linked(broker, "worker-2", shared) as (_, two),
        linked(broker, "pub") as (link, _),
    ):
        for number in range(20):
            link.publish(Publication(topic, str(number).encode()))
        wait_until(lambda: one.received.qsize() + two.received.qsize() == 20)
        heard = [
            [int(ear.next().payload) for _ in range(ear.received.qsize())] for ear in (one, two)
        ]
    assert sorted(heard[0] + heard[1]) == list(range(20))
    assert all(heard)


def test_a_failing_callback_does_not_end_the_link(
    broker: BrokerSettings, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard: queue.Queue[bytes] = queue.Queue()

    def fail(message: Received) -> None:
        heard.put(message.payload)
        raise ZeroDivisionError

    def fail_too() -> None:
        raise ZeroDivisionError

    link = MqttLink(broker, "failing", on_message=fail, on_connected=fail_too)
    link.subscribe(topic)
    with caplog.at_level(logging.ERROR):
        link.start(timeout_s=WAIT_S)
        link.publish(Publication(topic, b"one"))
        link.publish(Publication(topic, b"two"))
        assert [heard.get(timeout=WAIT_S), heard.get(timeout=WAIT_S)] == [b"one", b"two"]
        link.stop()
    assert caplog.text.count("a callback failed") == 3


@pytest.mark.slow
def test_a_link_comes_back_after_its_broker_with_its_subscriptions(
    running: Running, topic: str
) -> None:
    port = free_port()
    with ExitStack() as later:
        with running(port) as broker:
            link, ear = later.enter_context(linked(broker, "back", topic))
        link.publish(Publication(topic, b"while it was down"))
        later.enter_context(running(port))
        ear.wait_until_connected()
        assert ear.next().payload == b"while it was down"
        assert link.is_connected


@pytest.mark.slow
def test_what_was_subscribed_while_disconnected_is_heard(running: Running, topic: str) -> None:
    port = free_port()
    with ExitStack() as later:
        with running(port) as broker:
            link, ear = later.enter_context(linked(broker, "back"))
        wait_until(lambda: not link.is_connected)
        link.subscribe(topic)
        later.enter_context(running(port))
        ear.wait_until_connected()
        link.publish(Publication(topic, b"heard"))
        assert ear.next().payload == b"heard"


def test_a_link_has_started_only_when_its_subscriptions_stand() -> None:
    """What others publish from then on is not missed. The broker here takes its time."""
    has_asked, may_answer = threading.Event(), threading.Event()

    def serve() -> None:
        caller, _ = listener.accept()
        with caller:
            caller.recv(1000)
            caller.sendall(bytes([0x20, 3, 0, 0, 0]))  # connected
            number = caller.recv(1000)[2:4]
            has_asked.set()
            may_answer.wait(WAIT_S)
            caller.sendall(bytes([0x90, 4, *number, 0, 1]))  # subscribed
            caller.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        broker = BrokerSettings(port=listener.getsockname()[1])
        link = MqttLink(broker, "patient", on_message=print)
        link.subscribe("news")
        threads = [
            threading.Thread(target=serve),
            threading.Thread(target=partial(link.start, timeout_s=WAIT_S)),
        ]
        for thread in threads:
            thread.start()
        assert has_asked.wait(WAIT_S)
        threads[1].join(0.3)  # that nothing happens has no event
        assert threads[1].is_alive()
        may_answer.set()
        threads[1].join(WAIT_S)
        assert link.is_connected
        link.stop()
        threads[0].join(WAIT_S)


def test_waiting_for_a_broker_can_be_cancelled() -> None:
    link = MqttLink(BrokerSettings(port=free_port()), "hasty", on_message=print)
    with pytest.raises(KeyboardInterrupt):
        link.start(timeout_s=WAIT_S, is_cancelled=lambda: True)


def test_an_unreachable_broker_is_told_with_address_and_what_to_do() -> None:
    port = free_port()
    link = MqttLink(BrokerSettings(port=port), "lonely", on_message=print)
    with pytest.raises(BrokerError, match=rf"127.0.0.1:{port}: no answer within 0.3 s; is it run"):
        link.start(timeout_s=0.3)
    assert not link.is_connected


def test_a_host_that_does_not_exist_is_told() -> None:
    link = MqttLink(BrokerSettings(host="broker.invalid"), "lonely", on_message=print)
    with pytest.raises(BrokerError, match=r"broker\.invalid:1883.* are host and port right"):
        link.start(timeout_s=0.3)


# -- what only Mosquitto has -----------------------------------------------------------------------


def test_a_packet_above_the_brokers_maximum_is_refused_here(topic: str) -> None:
    with (
        running_mosquitto(lines="max_packet_size 2000") as broker,
        linked(broker, "big", topic) as (link, ear),
    ):
        with pytest.raises(BrokerError, match=r"a packet of \d+ bytes for .* takes 2000: raise"):
            link.publish(Publication(topic, bytes(2000)))
        link.publish(Publication(topic, b"small"))
        assert ear.next().payload == b"small"


def test_a_packet_above_our_own_maximum_is_refused_too(broker: BrokerSettings, topic: str) -> None:
    with linked(broker, "big", topic) as (link, ear):
        with pytest.raises(BrokerError, match="takes 4194304"):
            link.publish(Publication(topic, bytes(MAX_MESSAGE_BYTES)))
        largest = MAX_MESSAGE_BYTES - 1000
        link.publish(Publication(topic, bytes(largest)))
        assert len(ear.next().payload) == largest


def test_a_refusal_is_told_in_the_brokers_words(tmp_path: Path) -> None:
    (tmp_path / "passwords").touch(mode=0o600)
    lines = f"allow_anonymous false\npassword_file {tmp_path}/passwords\nuser root"
    with running_mosquitto(lines=lines) as broker:
        link = MqttLink(broker, "stranger", on_message=print)
        with pytest.raises(BrokerError, match=r"it says '(Not authorized|Bad user name)"):
            link.start(timeout_s=1)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {"username": "me", "password_file": "none"},
        {"ca_file": "none"},
        {"ca_file": "empty"},
        {"ca_file": "empty", "key_file": "empty"},
    ],
)
def test_a_file_that_cannot_be_used_is_a_broker_error(
    tmp_path: Path, files: dict[str, str]
) -> None:
    (tmp_path / "empty").touch()
    paths = {key: name if key == "username" else tmp_path / name for key, name in files.items()}
    with pytest.raises(
        BrokerError, match=r"cannot use the files for the MQTT broker at .*none|empty"
    ):
        MqttLink(BrokerSettings(**paths), "me", on_message=print)
