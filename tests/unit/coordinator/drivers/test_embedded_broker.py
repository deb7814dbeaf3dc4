"""The broker in the wheel: it listens, it stops, and a taken port is told in one line."""

import socket

import pytest

from coordinator.drivers.embedded_broker import EmbeddedBroker
from fedpt.errors import BrokerError
from fedpt.settings import BrokerSettings

pytestmark = pytest.mark.broker


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_it_listens_until_it_is_stopped() -> None:
    port = free_port()
    with EmbeddedBroker(BrokerSettings(port=port)):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            BrokerError, match=rf"127\.0\.0\.1:{port}.*is the port in use"
        ) as caught:
            EmbeddedBroker(BrokerSettings(port=port)).start()
    assert "\n" not in str(caught.value)


def test_stopping_what_never_started_does_nothing() -> None:
    EmbeddedBroker(BrokerSettings()).stop()
