"""MQTT 5 on a bare socket, as far as a simulated device needs it: cheap enough to be no load."""

import select
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

_CONNECT: Final = 0x10
_PUBLISH: Final = 0x30
_SUBSCRIBE: Final = 0x82
_TYPE: Final = 0xF0
_RECEIVE_BYTES: Final = 1 << 20
_KEEPALIVE_S: Final = 0
"""0: the broker never asks."""


class RawMqtt:
    """One connection; QoS 0 only."""

    def __init__(self, host: str, port: int, client_id: str) -> None:
        """Connect."""
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        name, keepalive = client_id.encode(), _KEEPALIVE_S.to_bytes(2, "big")
        self._socket.sendall(_packet(_CONNECT, b"\0\4MQTT\5\2" + keepalive + b"\0" + _string(name)))
        self._one_of(0x20)

    def subscribe(self, topic_filter: str) -> None:
        """Receive what matches; returns when it stands."""
        self._socket.sendall(
            _packet(_SUBSCRIBE, b"\0\1\0" + _string(topic_filter.encode()) + b"\0")
        )
        self._one_of(0x90)

    def send(self, packets: bytes) -> None:
        """Send what `publication` made."""
        self._socket.sendall(packets)

    def received(self, timeout_s: float) -> Iterator[tuple[str, bytes]]:
        """Topics and payloads of what is there, or comes first within the time."""
        while not (packets := list(self._packets())):
            if not select.select([self._socket], [], [], timeout_s)[0]:
                return
            self._receive()
        for kind, body in packets:
            if kind & _TYPE == _PUBLISH:
                size = int.from_bytes(body[:2], "big")
                properties = body[2 + size]  # below 128 bytes of them
                yield body[2 : 2 + size].decode(), bytes(body[3 + size + properties :])

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()

    def _one_of(self, kind: int) -> None:
        while True:
            for got, _ in self._packets():
                if got & _TYPE == kind:
                    return
            self._receive()

    def _receive(self) -> None:
        more = self._socket.recv(_RECEIVE_BYTES)
        if not more:
            raise SystemExit("the broker hung up")
        self._received += more

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        while (found := _first_packet(self._received)) is not None:
            kind, begin, end = found
            body = bytes(self._received[begin:end])
            del self._received[:end]
            yield kind, body


def publication(topic: str, payload: bytes) -> bytes:
    """A QoS 0 PUBLISH."""
    return _packet(_PUBLISH, _string(topic.encode()) + b"\0" + payload)


def _packet(kind: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, part = left >> 7, left & 0x7F
        length.append(part | (0x80 if left else 0))
        if not left:
            return bytes([kind]) + bytes(length) + body


def _first_packet(data: bytearray) -> tuple[int, int, int] | None:
    """Kind, begin and end of the body of the first packet, if it is whole."""
    size, place = 0, 1
    while place < len(data):
        byte = data[place]
        size |= (byte & 0x7F) << (7 * (place - 1))
        place += 1
        if not byte & 0x80:
            return (data[0], place, place + size) if len(data) >= place + size else None
    return None


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text
