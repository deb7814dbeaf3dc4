"""Real MQTT brokers on free loopback ports: Mosquitto and the embedded one."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator.drivers.embedded_broker import EmbeddedBroker
from fedpt.settings import BrokerSettings

_WAIT_S = 20.0
_END_WITH_US = "import os, sys; from fedpt.drivers.child_process import end_with_parent;"
_END_WITH_US += "end_with_parent(); os.execv(sys.argv[1], sys.argv[1:])"  # an exec keeps it


def free_port() -> int:
    """A TCP port of the loopback that nobody uses at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mosquitto_path() -> Path:
    """Where Mosquitto is; skips the test if it is nowhere."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if found is None:
        pytest.skip("mosquitto is not installed; apt-get install mosquitto")
    return Path(found)


@contextmanager
def running_mosquitto(port: int | None = None, *, lines: str = "") -> Iterator[BrokerSettings]:
    """Mosquitto while the block runs, killed at its end; `lines` go into its configuration."""
    port = port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{lines}\n")
        program = [sys.executable, "-c", _END_WITH_US, str(mosquitto_path()), "-c", str(config)]
        with subprocess.Popen(program, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for_port(port)
                yield BrokerSettings(port=port)
            finally:
                process.kill()


@contextmanager
def running_embedded(port: int | None = None) -> Iterator[BrokerSettings]:
    """The embedded broker while the block runs."""
    settings = BrokerSettings(port=port or free_port())
    with EmbeddedBroker(settings):
        yield settings


def wait_for_port(port: int) -> None:
    """Return when somebody listens there."""
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)  # a port cannot be waited for otherwise
        else:
            return
