"""Messages to bytes and back; the only place that knows MessagePack."""

from typing import Any, TypeVar

import msgspec

from fedpt.errors import MalformedMessageError
from fedpt.wire.messages import AnswerReply, AnswerRequest, LogitReply, LogitRequest, Message

M = TypeVar("M", bound=Message)

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest legitimate message holds whole float32 rows: 1 MB each at a vocabulary of 260,000."""


def encode(message: Message) -> bytes:
    """The message as MessagePack."""
    return msgspec.msgpack.encode(message)


def decode(payload: bytes, kind: type[M]) -> M:
    """Read a message of the expected kind; strict on types and ranges.

    Raises:
        MalformedMessageError: It is something else. Daemons log it and go on.
    """
    message: M = _decode(payload, kind, kind.__name__)
    return message


def decode_worker_request(payload: bytes) -> LogitRequest | AnswerRequest:
    """Read what a device asks of a logit worker.

    Raises:
        MalformedMessageError: It is neither.
    """
    message: LogitRequest | AnswerRequest = _decode(
        payload, LogitRequest | AnswerRequest, "logit or answer request"
    )
    return message


def decode_worker_reply(payload: bytes) -> LogitReply | AnswerReply:
    """Read what a logit worker answers.

    Raises:
        MalformedMessageError: It is neither.
    """
    message: LogitReply | AnswerReply = _decode(
        payload, LogitReply | AnswerReply, "logit or answer reply"
    )
    return message


def _decode(payload: bytes, kind: Any, name: str) -> Any:  # Any: msgspec takes unions too
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MalformedMessageError(
            f"a {name} of {len(payload)} bytes; {MAX_MESSAGE_BYTES} is the most"
        )
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not a {name}: {error}") from error
