"""A logit worker: answers devices' logit requests with the large model, over MQTT.

One thread owns the model. A conversation's cache is kept under (device, session) in a slot; the
least recently used one gives way, and its device, told `session_lost`, sends all its tokens again.
New sessions come by a shared subscription, so adding a worker is starting another process.
"""

import logging
import queue
import signal
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from coordinator.settings import CoordinatorSettings
from coordinator.worker_identity import worker_identity
from fedpt.drivers.child_process import end_with_parent
from fedpt.drivers.llama import LlamaContext, LlamaModel, Run
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.drivers.service_manager import ServiceManager, Watchdog
from fedpt.errors import FedptError, SessionLostError, TooLongError, UsageError
from fedpt.ids import DeviceId, FederationId
from fedpt.log_setup import configure
from fedpt.proxy_tuning import Logits
from fedpt.wire.codec import decode, encode, row_to_bytes
from fedpt.wire.messages import LogitReply, LogitRequest
from fedpt.wire.topics import FromDevice, Topics, parse

_logger = logging.getLogger(__name__)

_INBOX_SIZE: Final = 256
_REPLY_EXPIRY_S: Final = 30
_TICK_S: Final = 0.5


@dataclass(slots=True)
class _Session:
    slot: int
    tokens: list[int] = field(default_factory=list)


class Sessions:
    """The large model's conversations in one context."""

    def __init__(
        self, context: LlamaContext, *, on_batch: Callable[[], None] = lambda: None
    ) -> None:
        self._context = context
        self._on_batch = on_batch
        self._sessions: OrderedDict[tuple[DeviceId, str], _Session] = OrderedDict()
        self._free = list(range(context.sequences))

    def logits(self, device: DeviceId, request: LogitRequest) -> Logits:
        """The logits `(V,)` after the request's tokens; repeating a request changes nothing.

        Raises:
            SessionLostError: We do not hold the tokens before its position.
            TooLongError: The conversation is longer than the context.
            UsageError: A token is not in the vocabulary.
        """
        key = (device, request.session)
        session = self._sessions.get(key)
        held = len(session.tokens) if session else 0
        if request.position > held:
            raise SessionLostError(f"{held} tokens are here, not {request.position}")
        length = request.position + len(request.tokens)
        if length > self._context.tokens:
            raise TooLongError(f"{length} tokens; the context holds {self._context.tokens}")
        session = session or self._open(key)
        self._sessions.move_to_end(key)
        self._context.forget(session.slot, request.position)
        del session.tokens[request.position :]
        self._make_room(key, length)
        try:
            run = Run(session.slot, request.position, request.tokens)
            (rows,) = self._context.evaluate([run], on_batch=self._on_batch)
        except UsageError:
            self._close(key)
            raise
        session.tokens += request.tokens
        return np.asarray(rows[0])

    def _open(self, key: tuple[DeviceId, str]) -> _Session:
        if not self._free:
            self._close(next(iter(self._sessions)))
        session = self._sessions[key] = _Session(self._free.pop())
        return session

    def _close(self, key: tuple[DeviceId, str]) -> None:
        slot = self._sessions.pop(key).slot
        self._context.forget(slot)
        self._free.append(slot)

    def _make_room(self, key: tuple[DeviceId, str], length: int) -> None:
        """The cache is shared: close the longest unused sessions until the text fits."""
        others = [other for other in self._sessions if other != key]
        used = sum(len(self._sessions[other].tokens) for other in others)
        for other in others:
            if used + length <= self._context.tokens:
                return
            used -= len(self._sessions[other].tokens)
            self._close(other)


class LogitWorker:
    """Serves until `stop`."""

    def __init__(
        self, settings: CoordinatorSettings, service: ServiceManager | None = None
    ) -> None:
        """Load the large model; nothing is answered yet.

        Args:
            settings: The coordinator's.
            service: Who hears how we are; None: nobody.

        Raises:
            ModelFileError: It is missing or damaged.
            SettingsError: It has no identity of its own.
        """
        self._name, broker = worker_identity(settings)
        self._service = service or ServiceManager()
        self._watchdog = Watchdog(self._service)
        self._topics = Topics(FederationId(settings.federation))
        self._settings = settings
        self._inbox: queue.Queue[Received] = queue.Queue(_INBOX_SIZE)
        self._is_stopping = False
        self._model = LlamaModel(settings.large)
        self._context = LlamaContext(
            self._model,
            tokens=settings.worker.context_tokens,
            sequences=settings.worker.sessions,
            threads=settings.threads,
        )
        self._sessions = Sessions(self._context, on_batch=self._beat)
        self._link = MqttLink(broker, self._name, on_message=self._receive)

    def run(self) -> None:
        """Answer requests.

        Raises:
            BrokerError: The broker cannot be reached at the start.
        """
        topics = self._topics
        self._link.subscribe(topics.shared_logits, topics.worker_logits(self._name, "+"), qos=0)
        self._link.start(
            timeout_s=self._settings.connect_timeout_s, is_cancelled=lambda: self._is_stopping
        )
        self._service.ready()
        _logger.info("logit worker is up", extra={"worker": self._name})
        while not self._is_stopping:
            self._answer_next()
            self._beat()
        self._service.stopping()
        self._link.stop()
        self._context.close()
        self._model.close()

    def stop(self) -> None:
        """Ask `run` to end; safe from signal handlers."""
        self._is_stopping = True

    def _receive(self, message: Received) -> None:
        """On the network thread. Above what we can answer in time, the oldest is dropped."""
        while True:
            try:
                self._inbox.put_nowait(message)
            except queue.Full:
                self._inbox.get_nowait()
            else:
                return

    def _beat(self) -> None:
        """On the main thread: between requests, and between the parts of a long one."""
        self._watchdog.beat([] if self._link.is_alive else ["the connection's thread has ended"])

    def _answer_next(self) -> None:
        try:
            self._answer(self._inbox.get(timeout=_TICK_S))
        except queue.Empty:
            return
        except FedptError as error:  # a bad message never stops the worker
            _logger.warning("dropped: %s", error, extra={"code": error.code})

    def _answer(self, message: Received) -> None:
        source = parse(message.topic)
        if not isinstance(source, FromDevice):
            return
        request = decode(message.payload, LogitRequest)
        try:
            row = self._sessions.logits(source.device, request)
        except FedptError as error:
            reply = self._reply(request, code=error.code, reason=str(error))
        else:
            reply = self._reply(request, row=row_to_bytes(row))
        topic = self._topics.inbox(source.device, "logits")
        self._link.publish(Publication(topic, encode(reply), qos=0, expiry_s=_REPLY_EXPIRY_S))

    def _reply(
        self, request: LogitRequest, *, row: bytes = b"", code: str = "", reason: str = ""
    ) -> LogitReply:
        return LogitReply(
            request=request.request,
            session=request.session,
            worker=self._name,
            row=row,
            code=code,
            reason=reason,
        )


def run_until_signal(settings: CoordinatorSettings, service: ServiceManager | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        FedptError: The model cannot be loaded, or the broker not be reached.
    """
    worker = LogitWorker(settings, service)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: worker.stop())
    worker.run()


def _main(arguments: Sequence[str]) -> None:
    """Started by the coordinator: settings as JSON in a file."""
    end_with_parent()
    configure()
    run_until_signal(CoordinatorSettings.model_validate_json(Path(arguments[0]).read_text()))


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except FedptError as failure:
        sys.exit(str(failure))
