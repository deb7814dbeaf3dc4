"""A logit worker: answers devices' requests with the large model, over MQTT.

New conversations come by a shared subscription, so adding a worker is starting another process.
What is done with a message: `serving`.
"""

import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from coordinator.settings import CoordinatorSettings
from coordinator.worker.identity import worker_identity
from coordinator.worker.serving import Serving
from fedpt.drivers.mqtt import MqttLink, Received
from fedpt.drivers.service_manager import ServiceManager, Watchdog
from fedpt.ids import FederationId
from fedpt.wire.topics import Topics

_logger = logging.getLogger(__name__)

_TICK_S: Final = 0.5


class LogitWorker:
    """Serves until `stop`."""

    def __init__(
        self, settings: CoordinatorSettings, service: ServiceManager | None = None
    ) -> None:
        """Find out who we are; nothing is loaded yet.

        Args:
            settings: The coordinator's.
            service: Who hears how we are; None: nobody.

        Raises:
            SettingsError: It has no identity of its own.
        """
        self._name, broker = worker_identity(settings)
        self._service = service or ServiceManager()
        self._watchdog = Watchdog(self._service)
        self._topics = Topics(FederationId(settings.federation))
        self._settings = settings
        self._is_stopping = False
        self._serving: Serving | None = None
        self._link = MqttLink(broker, self._name, on_message=self._receive)

    def run(self) -> None:
        """Load the models and answer requests.

        Raises:
            ModelFileError: The large model is missing or damaged.
            BrokerError: The broker cannot be reached at the start.
        """
        topics = self._topics
        requests = (topics.shared_logits, topics.worker_logits(self._name, "+"))
        with ExitStack() as stack:
            serving = self._serving = Serving(
                self._name,
                self._settings,
                topics,
                publish=self._link.publish,
                folder=self._folder(stack),
            )
            self._link.subscribe(*requests, qos=0)
            if serving.steers_answers:
                self._link.subscribe(topics.round, topics.coordinator_chunk("+", "+"))
            self._link.start(
                timeout_s=self._settings.connect_timeout_s, is_cancelled=lambda: self._is_stopping
            )
            self._service.ready()
            _logger.info("logit worker is up", extra={"worker": self._name})
            while not self._is_stopping:
                serving.turn(_TICK_S)
                dead = [] if self._link.is_alive else ["the connection's thread ended"]
                self._watchdog.beat(dead)
            self._service.stopping()
            self._link.unsubscribe(*requests)  # before others are told to ask again
            has_ended = serving.end()
            self._link.stop()
            if has_ended:
                serving.close()

    def stop(self) -> None:
        """Ask `run` to end; safe from signal handlers."""
        self._is_stopping = True

    def _receive(self, message: Received) -> None:
        """On the network thread."""
        if self._serving is not None:
            self._serving.receive(message)

    def _folder(self, stack: ExitStack) -> Path:
        """For the adapter. Under a name by chance nothing is kept: nobody would find it again."""
        worker = self._settings.worker
        if worker.name is None and worker.certificate_file is None:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedpt-worker-")))
        return self._settings.state_dir / "workers" / self._name
