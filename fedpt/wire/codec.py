"""Messages to bytes and back; the only place that knows MessagePack, and logits' own format."""

from typing import TypeVar

import msgspec
import numpy as np

from fedpt.errors import MalformedMessageError
from fedpt.proxy_tuning import Logits
from fedpt.wire.messages import Message

M = TypeVar("M", bound=Message)

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest legitimate message is a float32 row of logits: 1 MB at a vocabulary of 260,000."""


def encode(message: Message) -> bytes:
    """The message as MessagePack."""
    return msgspec.msgpack.encode(message)


def decode(payload: bytes, kind: type[M]) -> M:
    """Read a message of the expected kind; strict on types and ranges.

    Raises:
        MalformedMessageError: It is something else. Daemons log it and go on.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MalformedMessageError(
            f"a {kind.__name__} of {len(payload)} bytes; {MAX_MESSAGE_BYTES} is the most"
        )
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"not a {kind.__name__}: {error}") from error


def row_to_bytes(row: Logits) -> bytes:
    """One row of logits `(V,)` as little-endian float32."""
    return row.astype("<f4").tobytes()


def row_from_bytes(content: bytes, *, vocabulary_size: int) -> Logits:
    """Read a row of logits, trusting nothing.

    Raises:
        MalformedMessageError: Another length than the vocabulary's, or a value that is not finite.
    """
    if len(content) != 4 * vocabulary_size:
        raise MalformedMessageError(
            f"a row of {len(content)} bytes for a vocabulary of {vocabulary_size} tokens"
        )
    row: Logits = np.frombuffer(content, dtype="<f4").astype(np.float32)
    if not np.isfinite(row).all():
        raise MalformedMessageError("a row of logits with values that are not finite")
    return row
