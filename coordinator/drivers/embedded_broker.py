"""The broker for a single box, the demo and the tests: rumqttd, from the package `iotcore`.

It runs in a child process that ends with ours, also when ours is killed. It keeps no sessions and
has no access control: a fleet beyond one trusted network uses Mosquitto or another real broker.
"""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from fedpt.errors import BrokerError
from fedpt.settings import BrokerSettings
from fedpt.wire.codec import MAX_MESSAGE_BYTES

_CONFIG: Final = """
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "fedpt"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_bytes}
max_inflight_count = 100
dynamic_filters = true
"""


class EmbeddedBroker:
    """Runs from `start` to `stop`."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._broker: Any = None  # Any: iotcore has no types

    def start(self) -> None:
        """Start, and wait until it listens.

        Raises:
            BrokerError: The port is in use, or the broker does not come up.
        """
        from iotcore import Broker

        where = f"{self._settings.host}:{self._settings.port}"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "broker.toml"
            path.write_text(
                _CONFIG.format(
                    host=self._settings.host,
                    port=self._settings.port,
                    max_bytes=MAX_MESSAGE_BYTES,
                ),
                encoding="utf-8",
            )
            try:
                self._broker = Broker(config_path=str(path)).start()
            except OSError as error:
                raise BrokerError(
                    f"cannot start the broker at {where}: {error}; is the port in use? Choose"
                    " another (broker.port), or set embedded_broker = false to use what runs there"
                ) from error
            except (RuntimeError, ValueError) as error:
                raise BrokerError(f"the broker at {where} does not start: {error}") from error

    def stop(self) -> None:
        """Stop it; its port is free then."""
        if self._broker is not None:
            self._broker.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.stop()
