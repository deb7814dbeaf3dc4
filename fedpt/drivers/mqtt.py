"""A connection to an MQTT 5 broker that comes back by itself.

On paho-mqtt, with its measured traps covered: TCP_NODELAY on our side (88 ms a round trip at QoS 1
without it), no exception in a callback (it would end the network thread silently), packets above
the broker's limit refused here (the broker would disconnect us, paho would resend, forever),
subscriptions renewed at every connection.
"""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fedpt.drivers.tls import broker_context, load_identity
from fedpt.errors import BrokerError
from fedpt.settings import BrokerSettings
from fedpt.wire.codec import MAX_MESSAGE_BYTES

_logger = logging.getLogger(__name__)

_KEEPALIVE_S: Final = 30
_POLL_S: Final = 0.2
_SLOWEST_RETRY_S: Final = 5
_PACKET_OVERHEAD_BYTES: Final = 256
"""What topic and properties add to a payload, generously."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the broker."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Publication:
    """A message to the broker."""

    topic: str
    payload: bytes
    qos: Literal[0, 1] = 1
    retain: bool = False
    expiry_s: int | None = None
    """The broker drops it when it could not deliver it for so long."""


class MqttLink:
    """One MQTT connection. Callbacks run on its network thread: put into a queue, do no work."""

    def __init__(
        self,
        broker: BrokerSettings,
        client_id: str,
        *,
        on_message: Callable[[Received], None],
        on_connected: Callable[[], None] = lambda: None,
        will: Publication | None = None,
    ) -> None:
        """Make it; `start` connects.

        Raises:
            BrokerError: A password, certificate or key cannot be read.
        """
        self._broker = broker
        self._on_message = on_message
        self._on_connected = on_connected
        self._filters: dict[str, int] = {}
        self._ready = threading.Event()
        self._first_subscription: int | None = None
        self._refusal = ""
        self._max_packet_bytes = MAX_MESSAGE_BYTES
        self.bytes_received = 0
        """Payload and topic bytes received since the start."""
        with _told_as_broker_error(broker):
            self._tls = broker_context(broker)
        self._client = self._make_client(client_id)
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=will.qos, retain=will.retain)

    def start(self, *, timeout_s: float, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Connect, and hear what was subscribed to; later losses are mended in the background.

        Raises:
            BrokerError: No connection within the time, or the broker refuses us.
            KeyboardInterrupt: `is_cancelled` came true while we waited; the command line ends.
        """
        broker = self._broker
        self._client.connect_async(broker.host, broker.port, _KEEPALIVE_S)
        self._client.loop_start()
        end = time.monotonic() + timeout_s
        while not self._ready.wait(_POLL_S) and time.monotonic() < end:
            if is_cancelled():
                self.stop()
                raise KeyboardInterrupt
        if not self._ready.is_set():
            self.stop()
            why = self._refusal or f"no answer within {timeout_s:g} s"
            raise BrokerError(
                f"cannot reach the MQTT broker at {broker.host}:{broker.port}: {why};"
                " is it running, and are host and port right?"
            )

    def reload_certificate(self) -> None:
        """Use our renewed certificate from the next connection on; the present one goes on.

        Raises:
            BrokerError: It cannot be read.
        """
        if self._tls is not None:
            with _told_as_broker_error(self._broker):
                load_identity(self._tls, self._broker)

    def stop(self) -> None:
        """Disconnect cleanly: the last will is not sent."""
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # paho leaves some of them to the garbage collector

    @property
    def is_connected(self) -> bool:
        """Whether the broker answers at present."""
        return self._client.is_connected()

    @property
    def is_alive(self) -> bool:
        """Whether the network thread runs, which mends every loss of the connection."""
        thread = self._client._thread  # paho keeps it to itself, and does not watch it
        return thread is not None and thread.is_alive()

    def subscribe(self, *filters: str, qos: Literal[0, 1] = 1) -> None:
        """Receive what matches, now and after every reconnection."""
        for one in filters:
            self._filters[one] = qos
        if self._client.is_connected():
            self._client.subscribe([(one, _options(qos)) for one in filters])

    def unsubscribe(self, *filters: str) -> None:
        """Receive it no more."""
        for one in filters:
            self._filters.pop(one, None)
        if self._client.is_connected():
            self._client.unsubscribe(list(filters))

    def publish(self, publication: Publication) -> None:
        """Send; with QoS 1 it is kept until the broker has it, also over a lost connection.

        Raises:
            BrokerError: It is larger than the broker takes.
        """
        self._send(publication)

    def publish_now(self, publication: Publication) -> bool:
        """Send at once, with QoS 0; False: there is no connection, and nothing will be sent.

        Raises:
            BrokerError: It is larger than the broker takes.
        """
        return self.is_connected and self._send(publication).rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def publish_and_wait(self, publication: Publication, *, timeout_s: float) -> None:
        """Send and wait until the broker has it, or the time is over (no error then)."""
        info = self._send(publication)
        with contextlib.suppress(RuntimeError, ValueError):  # paho: not connected, queue full
            info.wait_for_publish(timeout_s)

    def _send(self, publication: Publication) -> MQTTMessageInfo:
        size = len(publication.payload) + len(publication.topic) + _PACKET_OVERHEAD_BYTES
        if size > self._max_packet_bytes:
            raise BrokerError(
                f"a packet of {size} bytes for {publication.topic}; the broker takes"
                f" {self._max_packet_bytes}: raise its max_packet_size"
            )
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's
        if publication.expiry_s is not None:
            properties.MessageExpiryInterval = publication.expiry_s
        return self._client.publish(
            publication.topic,
            publication.payload,
            qos=publication.qos,
            retain=publication.retain,
            properties=properties,
        )

    def _make_client(self, client_id: str) -> Client:
        broker = self._broker
        client = Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        with _told_as_broker_error(broker):
            if broker.username is not None:
                password = broker.password_file.read_text() if broker.password_file else None
                client.username_pw_set(broker.username, password and password.strip())
            if self._tls is not None:
                client.tls_set_context(self._tls)
        client.reconnect_delay_set(min_delay=1, max_delay=_SLOWEST_RETRY_S)
        client.suppress_exceptions = True  # ours are caught and logged in `_guard`
        client.on_socket_open = _set_nodelay
        client.on_connect = self._connect_ended
        client.on_disconnect = self._connection_lost
        client.on_subscribe = self._subscription_stands
        client.on_message = self._message_came
        return client

    def _connect_ended(
        self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Any
    ) -> None:
        if reason.is_failure:
            self._refusal = f"it says {str(reason)!r}"
            return
        theirs = getattr(properties, "MaximumPacketSize", MAX_MESSAGE_BYTES)
        self._max_packet_bytes = min(theirs, MAX_MESSAGE_BYTES)  # the embedded broker tells none
        if filters := list(self._filters.items()):  # a copy: others subscribe meanwhile
            subscription = client.subscribe([(one, _options(qos)) for one, qos in filters])
            self._first_subscription = subscription[1]
        else:
            self._ready.set()
        self._guard(self._on_connected)

    def _subscription_stands(
        self, _client: Client, _data: Any, number: int, _reasons: Any, _properties: Any
    ) -> None:
        """Only from now on is nothing missed that others publish."""
        if number == self._first_subscription:
            self._ready.set()

    def _connection_lost(
        self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            _logger.warning("connection to the broker lost", extra={"reason": str(reason)})

    def _message_came(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.bytes_received += len(message.payload) + len(message.topic)
        received = Received(message.topic, bytes(message.payload))
        self._guard(lambda: self._on_message(received))

    def _guard(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:  # an exception here would end the network thread without a word
            _logger.exception("a callback failed")


def packet_bytes(topic: str, payload_bytes: int) -> int:
    """What a QoS 0 publish without properties is on the wire: MQTT 5, section 3.3."""
    remaining = 2 + len(topic.encode()) + 1 + payload_bytes
    return 1 + max(1, -(-remaining.bit_length() // 7)) + remaining


@contextlib.contextmanager
def _told_as_broker_error(broker: BrokerSettings) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = (broker.password_file, broker.ca_file, broker.certificate_file, broker.key_file)
        raise BrokerError(
            f"cannot use the files for the MQTT broker at {broker.host}:{broker.port}"
            f" ({', '.join(str(file) for file in files if file)}): {error}"
        ) from error


def _options(qos: int) -> Any:  # paho's SubscribeOptions has no types
    from paho.mqtt.subscribeoptions import SubscribeOptions

    return SubscribeOptions(qos=qos)


def _set_nodelay(_client: Client, _data: Any, sock: Any) -> None:
    with contextlib.suppress(OSError):  # not a TCP socket
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
