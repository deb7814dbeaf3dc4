"""The device's desk for the large model: what goes to logit workers, and what comes back.

Knows topics and the coordinator's state; `large_models` and `worker_answers` know the conversation.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edge_runtime.drivers.large_models import Asking, RemoteLarge
from edge_runtime.drivers.worker_answers import WorkerAnswers
from edge_runtime.settings import DeviceSettings
from edge_runtime.steering import LargeAccess, Traffic
from fedpt.decoding.ports import LargeModel
from fedpt.drivers.mqtt import Publication, Received, packet_bytes
from fedpt.errors import BrokerError, FedptError, LargeModelError
from fedpt.ids import DeviceId
from fedpt.vocabulary import Vocabulary
from fedpt.wire.codec import decode_worker_reply, encode
from fedpt.wire.messages import (
    AnswerRequest,
    CoordinatorStatus,
    LogitReply,
    LogitRequest,
    Opening,
)
from fedpt.wire.topics import Topics

_logger = logging.getLogger(__name__)

_EXPIRY_BYTES: Final = 5
"""Of the property that tells when a message expires; requests and replies have it."""


class WorkerDesk:
    """One device's way to the large model."""

    def __init__(
        self,
        settings: DeviceSettings,
        topics: Topics,
        vocabulary: Vocabulary,
        *,
        publish: Callable[[Publication], bool],
    ) -> None:
        """Make it; nothing is sent.

        Args:
            settings: The device's.
            topics: Of its federation.
            vocabulary: Of its small model.
            publish: Sends at once or not at all; whether it was sent.
        """
        self._device = DeviceId(settings.name)
        self._topics = topics
        self._vocabulary = vocabulary.sha256
        self._publish = publish
        self._coordinator: CoordinatorStatus | None = None
        assistant = settings.assistant
        self._expiry_s = int(assistant.large_deadline_s) + 1
        self._traffic = Traffic()
        asking = Asking(
            vocabulary_size=len(vocabulary.tokens),
            deadline_s=assistant.large_deadline_s,
            retry_s=assistant.large_retry_s,
            largest=assistant.largest_logits,
            precision=assistant.logit_precision,
            opening=Opening(vocabulary=self._vocabulary),
        )
        self._asking = asking
        self._rows = RemoteLarge(self._send, asking, self._traffic)
        self._aside: RemoteLarge | None = None
        self._answers = WorkerAnswers(self._send, asking, self._traffic)
        self.access = LargeAccess(self._rows, self._traffic, self._answers.steerer)

    def hear(self, message: Received) -> None:
        """On the network thread: a worker's reply; whatever is of no use is dropped."""
        try:
            reply = decode_worker_reply(message.payload)
        except FedptError as error:
            _logger.warning("dropped: %s", error, extra={"code": error.code})
            return
        aside = self._aside
        if aside is not None and isinstance(reply, LogitReply) and aside.mailbox.put(reply):
            return
        is_ours = (
            self._rows.mailbox.put(reply)
            if isinstance(reply, LogitReply)
            else self._answers.mailbox.put(reply)
        )
        if is_ours:
            self._traffic.bytes_down += _packet_bytes(message.topic, message.payload)

    def aside(self, largest: int) -> LargeModel:
        """Another conversation beside that of answers, in which no answer's traffic is counted.

        There is one at a time: replies to those before are dropped.

        Args:
            largest: Of each row's largest logits, so many.
        """
        self._aside = RemoteLarge(self._send, replace(self._asking, largest=largest), Traffic())
        return self._aside

    @property
    def large_name(self) -> str:
        """The large model's name, as the coordinator last told; empty before it did."""
        return self._coordinator.large_name if self._coordinator is not None else ""

    def hear_coordinator(self, status: CoordinatorStatus) -> bool:
        """Take note of the coordinator's state; False: a last will that came late."""
        if self._coordinator is not None and status.session < self._coordinator.session:
            return False
        self._coordinator = status
        return True

    def _send(self, request: LogitRequest | AnswerRequest, worker: str) -> int:
        self._require_large_model()
        topics = self._topics
        topic = (
            topics.worker_logits(worker, self._device)
            if worker
            else topics.device(self._device, "logits")
        )
        publication = Publication(topic, encode(request), qos=0, expiry_s=self._expiry_s)
        try:
            is_sent = self._publish(publication)
        except BrokerError as error:  # too large for the broker
            raise LargeModelError(str(error)) from error
        if not is_sent:
            raise LargeModelError("the broker cannot be reached")
        return _packet_bytes(topic, publication.payload)

    def _require_large_model(self) -> None:
        """Refuse at once to ask for what cannot come."""
        coordinator = self._coordinator
        if coordinator is None or not coordinator.online:
            raise LargeModelError("the coordinator is offline")
        if coordinator.vocabulary != self._vocabulary:
            raise LargeModelError(
                f"the coordinator's large model {coordinator.large_name!r} has another vocabulary"
            )


def _packet_bytes(topic: str, payload: bytes) -> int:
    return packet_bytes(topic, _EXPIRY_BYTES + len(payload))
