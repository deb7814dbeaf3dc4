"""The assistant's doors on the board: a Unix socket that only its owner may use, and maybe TCP."""

import ipaddress
import logging
import os
import socket as connection
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from edge_runtime.api.auth import DoorRules, read_token
from edge_runtime.api.server import ApiServer, ServedAssistant
from edge_runtime.settings import ApiSettings, DeviceSettings
from edge_runtime.training_view import TrainingView

_logger = logging.getLogger(__name__)

_STOP_S: Final = 5.0


class LocalApi:
    """Serves an assistant on threads of its own."""

    def __init__(
        self,
        assistant: ServedAssistant,
        settings: DeviceSettings,
        *,
        status: Callable[[], dict[str, object]],
        training: Callable[[], TrainingView] = TrainingView,
        forget_personal: Callable[[], None] = lambda: None,
    ) -> None:
        """Make it; nothing listens yet.

        Args:
            assistant: Who answers.
            settings: The device's.
            status: Tells how the device is.
            training: Tells how its training is.
            forget_personal: Has the personal adapter deleted, soon.

        Raises:
            SettingsError: The token's file cannot be read.
        """
        self._socket = settings.socket
        self._server = ApiServer(
            assistant, settings, status=status, training=training, forget_personal=forget_personal
        )
        self._doors = [
            _Door("local-api", self._server.on_socket(), lambda: _listen_locally(self._socket))
        ]
        api = settings.api
        if api.port is not None:
            rules = DoorRules(
                token=read_token(api.token_file),
                names=DoorRules().names | {api.host},
                origins=frozenset(api.allowed_origins),
            )
            self._doors.append(
                _Door("tcp-api", self._server.on_tcp(rules), lambda: _listen_on_tcp(api))
            )

    def start(self) -> None:
        """Begin to listen; where that cannot be, the device goes on without that door."""
        self._server.desk.start()
        for door in self._doors:
            door.open()

    def stop(self) -> None:
        """Stop listening; a running answer is cut off."""
        self._server.desk.close()
        for door in self._doors:
            door.close()
        with suppress(OSError):
            self._socket.unlink(missing_ok=True)


class _Door:
    """One place to listen at, with its own event loop."""

    def __init__(self, name: str, app: ASGIApp, listen: Callable[[], connection.socket]) -> None:
        self._name = name
        self._listen = listen
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", server_header=False
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        try:
            listener = self._listen()
        except OSError as error:
            _logger.error("the API cannot listen: %s", error, extra={"door": self._name})
            return
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name=self._name, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        if self._thread is not None:
            self._thread.join(_STOP_S)


def _listen_locally(path: Path) -> connection.socket:
    """A socket for its owner only; uvicorn would open its own to everybody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = connection.socket(connection.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen()
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _listen_on_tcp(api: ApiSettings) -> connection.socket:
    address = (api.host, api.port or 0)
    if not _is_ipv6(api.host):
        return connection.create_server(address)
    both = api.host == "::" and connection.has_dualstack_ipv6()
    return connection.create_server(address, family=connection.AF_INET6, dualstack_ipv6=both)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
