"""Where a conversation's replies arrive, from the network thread to the one that waits for them."""

import secrets
import threading
from collections import deque
from typing import Final, Generic, TypeVar

from fedpt.errors import (
    BusyError,
    LargeModelError,
    NotServedError,
    SessionLostError,
    TooLongError,
    TooMuchError,
)
from fedpt.ids import is_name
from fedpt.wire.messages import AnswerReply, LogitReply

_MOST_REPLIES: Final = 256
"""More than an honest worker sends to one request before they are taken."""

_REFUSALS: Final = {
    one.code: one
    for one in (BusyError, NotServedError, SessionLostError, TooLongError, TooMuchError)
}

Reply = TypeVar("Reply", LogitReply, AnswerReply)


class Mailbox(Generic[Reply]):
    """Where replies to one session's present request arrive; all others are dropped."""

    def __init__(self) -> None:
        self.session = secrets.token_bytes(8)
        self._number: int | None = None
        self._replies: deque[Reply] = deque(maxlen=_MOST_REPLIES)
        self._changed = threading.Condition()

    def expect(self, number: int | None) -> None:
        """From now on only replies to this request count; None: none."""
        with self._changed:
            self._number = number
            self._replies.clear()

    def put(self, reply: Reply) -> bool:
        """On the network thread; whether it is of this conversation."""
        if reply.session != self.session:
            return False
        with self._changed:
            if reply.request == self._number:
                self._replies.append(reply)
                self._changed.notify()
        return True

    @property
    def is_full(self) -> bool:
        """Whether a reply is there."""
        return bool(self._replies)

    def take(self, timeout_s: float) -> Reply | None:
        """The next reply; None: none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._replies), max(0.0, timeout_s))
            return self._replies.popleft() if self._replies else None


def require_good(reply: Reply | None) -> Reply:
    """The reply, if it is one that can be used.

    Raises:
        LargeModelError: It is a refusal, or comes from no worker.
    """
    if reply is None:
        raise LargeModelError("no reply")
    if reply.code:
        kind = _REFUSALS.get(reply.code, LargeModelError)
        raise kind(f"the coordinator refuses: {reply.reason} ({reply.code})")
    if not is_name(reply.worker):  # it becomes a topic level
        raise LargeModelError(f"the reply comes from {reply.worker!r}, which is no worker")
    return reply
