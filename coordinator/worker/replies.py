"""A worker's replies to devices: built, and sent from any thread."""

import logging
from collections.abc import Callable
from typing import Final, TypeAlias

from fedpt.drivers.mqtt import Publication
from fedpt.errors import FedptError, TooMuchError
from fedpt.ids import DeviceId
from fedpt.wire.codec import encode
from fedpt.wire.messages import AnswerReply, AnswerRequest, LogitReply, LogitRequest
from fedpt.wire.topics import Topics

_logger = logging.getLogger(__name__)

_EXPIRY_S: Final = 30

Request: TypeAlias = LogitRequest | AnswerRequest
Reply: TypeAlias = LogitReply | AnswerReply


class Replies:
    """The way back to all devices. Sending raises nothing: no device may stop a worker."""

    def __init__(
        self, worker: str, topics: Topics, *, publish: Callable[[Publication], None]
    ) -> None:
        """Make it.

        Args:
            worker: Our name.
            topics: Of our federation.
            publish: From any thread; raises FedptError for what the broker does not take.
        """
        self.worker = worker
        self._topics = topics
        self._publish = publish

    def send(self, device: DeviceId, reply: Reply) -> bool:
        """Send; whether the broker takes it."""
        topic = self._topics.inbox(device, "logits")
        try:
            self._publish(Publication(topic, encode(reply), qos=0, expiry_s=_EXPIRY_S))
        except FedptError as error:
            facts = {"code": error.code, "device": device}
            _logger.warning("a reply could not be sent: %s", error, extra=facts)
            return False
        return True

    def send_rows(self, device: DeviceId, request: LogitRequest, reply: LogitReply) -> None:
        """Send rows, or say that they are too many."""
        if not self.send(device, reply):
            most = "so many logits are more than the broker takes in one message"
            self.refuse(device, request, TooMuchError(most))

    def refuse(self, device: DeviceId, request: Request, error: FedptError) -> None:
        """Say why there is nothing."""
        number, session, code = request.request, request.session, error.code
        reply: Reply
        if isinstance(request, LogitRequest):
            reply = LogitReply(
                request=number, session=session, worker=self.worker, code=code, reason=str(error)
            )
        else:
            reply = AnswerReply(
                request=number,
                session=session,
                worker=self.worker,
                code=code,
                reason=str(error),
                is_last=True,
            )
        self.send(device, reply)
