"""Calls to a fleet's enrolment service: MessagePack over HTTPS, refusals as errors."""

from pathlib import Path
from typing import Final, TypeVar

import httpx
import msgspec

from fedpt.drivers.tls import authority_context
from fedpt.enrolment import Refusal
from fedpt.errors import EnrolmentError
from fedpt.wire.messages import Message

_TIMEOUT_S: Final = 20.0
_ERROR: Final = 400

M = TypeVar("M", bound=Message)


def call(
    url: str, message: Message, reply: type[M], *, ca_file: Path, largest_reply: int | None = None
) -> M:
    """Post a message and read the answer.

    Args:
        url: Of the service's path.
        message: What is asked.
        reply: What is answered.
        ca_file: The authority that must vouch for the service.
        largest_reply: Bytes, at most; None: no matter.

    Raises:
        EnrolmentError: The service refuses, or is none.
        httpx.HTTPError: It cannot be reached, or cannot be believed.
    """
    with httpx.Client(
        verify=authority_context(ca_file), timeout=_TIMEOUT_S, trust_env=False
    ) as client:
        response = client.post(url, content=msgspec.msgpack.encode(message))
    if largest_reply is not None and len(response.content) > largest_reply:
        raise EnrolmentError(f"{url} answered with {len(response.content)} bytes")
    try:
        if response.status_code >= _ERROR:
            refusal = msgspec.msgpack.decode(response.content, type=Refusal)
            raise EnrolmentError(f"the enrolment service says: {refusal.reason}")
        return msgspec.msgpack.decode(response.content, type=reply)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise EnrolmentError(
            f"{url} answered HTTP {response.status_code} and nothing of ours; is it the enrolment"
            " service?"
        ) from None
