"""What a daemon tells the service manager (systemd) about itself: ready, status, still alive.

The protocol is one datagram a message to the socket named in the environment. Without that variable
nothing is ever sent, so the same daemon runs from a terminal. Knows nothing of what a daemon does.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Final, Self

_logger = logging.getLogger(__name__)

_SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
_WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"
_WATCHDOG_PROCESS_VARIABLE: Final = "WATCHDOG_PID"
_MICROSECONDS_PER_S: Final = 1_000_000


class ServiceManager:
    """Sends to one service manager, or to none. Never raises and never waits."""

    def __init__(self, address: str = "", *, watchdog_s: float | None = None) -> None:
        """Make it.

        Args:
            address: A socket's path, or `@name` for one in the abstract namespace; empty: nobody
                listens.
            watchdog_s: We are ended and started again when we are silent for so long; None: never.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""
        self.watchdog_s = watchdog_s if address else None
        """How long we may be silent."""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] | None = None) -> Self:
        """The one that started this process, if any did.

        Its variables are taken out of the environment: a child of ours must not speak for us.
        """
        environment = os.environ if environment is None else environment
        address = environment.pop(_SOCKET_VARIABLE, "")
        period = environment.pop(_WATCHDOG_VARIABLE, "")
        process = environment.pop(_WATCHDOG_PROCESS_VARIABLE, "")
        is_ours = process in ("", str(os.getpid()))
        microseconds = int(period) if period.isascii() and period.isdigit() and is_ours else 0
        return cls(address, watchdog_s=microseconds / _MICROSECONDS_PER_S or None)

    def ready(self) -> None:
        """Say that the daemon is up."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that the daemon ends on purpose."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Say in one line what the daemon does; sent when it changes."""
        line = " ".join(text.split())  # a line break would begin another message
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def alive(self) -> None:
        """Say that the daemon works; `Watchdog` decides when."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.connect(self._address)
                channel.send(message.encode())
        except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
            _logger.debug("the service manager does not hear us: %s", error)


class Watchdog:
    """Feeds the service manager's watchdog; only a daemon's main loop calls `beat`.

    A loop that hangs does not come to call it, and one whose vital parts are dead says so: either
    way the service manager hears nothing and starts the daemon anew.
    """

    def __init__(
        self, service: ServiceManager, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._clock = clock
        self._fed_at: float | None = None
        self._faults: tuple[str, ...] = ()

    def beat(self, faults: Sequence[str] = ()) -> None:
        """The loop has come round once.

        Args:
            faults: What is dead that the daemon cannot do without; with any, it is not fed.
        """
        if tuple(faults) != self._faults:
            self._faults = tuple(faults)
            if faults:
                _logger.error("not alive: %s", "; ".join(faults))
        now = self._clock()
        if not faults and _is_due(now, self._fed_at, self._service.watchdog_s):
            self._fed_at = now
            self._service.alive()


def _is_due(now: float, fed_at: float | None, watchdog_s: float | None) -> bool:
    """At half the time that we may be silent."""
    if watchdog_s is None:
        return False
    return fed_at is None or now - fed_at >= watchdog_s / 2
