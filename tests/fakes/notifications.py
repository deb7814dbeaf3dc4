"""A service manager's ear: a datagram socket, and what came in."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT_S = 60.0


class NotificationEar:
    """Hears what daemons send."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def next(self) -> str:
        """The next message; waits for it."""
        self._listener.settimeout(_WAIT_S)
        return self._listener.recv(4096).decode()

    def wait_for(self, message: str) -> list[str]:
        """All messages up to this one."""
        heard: list[str] = []
        end = time.monotonic() + _WAIT_S
        while message not in heard:
            assert time.monotonic() < end, f"no {message}, only {heard}"
            heard.append(self.next())
        return heard

    def pending(self) -> list[str]:
        """What has come so far."""
        self._listener.setblocking(False)
        heard = []
        try:
            while True:
                heard.append(self._listener.recv(4096).decode())
        except BlockingIOError:
            return heard


@contextmanager
def listening(address: Path | str) -> Iterator[NotificationEar]:
    """Listen at a path, or at `@name` in the abstract namespace."""
    text = str(address)
    bound = f"\0{text[1:]}" if text.startswith("@") else text
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(bound)
        yield NotificationEar(listener)
