"""The line to a worker: who is at its other end, what that one has read, and what it all costs."""

from collections.abc import Callable, Sequence

from edge_runtime.steering import Traffic
from fedpt.token_texts import common_prefix
from fedpt.wire.messages import AnswerRequest, LogitRequest

Send = Callable[[LogitRequest | AnswerRequest, str], int]
"""Publishes a request to a worker, or to any if its name is empty; returns how many bytes went out.
Raises LargeModelError when there is no connection."""


class WorkerLine:
    """One conversation's line; only new tokens need travel on it."""

    def __init__(self, send: Send, traffic: Traffic) -> None:
        """Know nobody yet.

        Args:
            send: The way out.
            traffic: Counted up.
        """
        self.worker = ""
        """Whom requests go to; empty: any worker."""
        self._send = send
        self._traffic = traffic
        self._held: list[int] = []
        """What the worker has read for certain, whatever became of the last request."""

    def held(self, text: Sequence[int], most: int) -> int:
        """How much of a text the worker holds already; `most` tokens count."""
        return min(common_prefix(self._held, text), most) if self.worker else 0

    def cut(self, position: int) -> None:
        """The next request goes on from here; from the very beginning, any worker can take it."""
        if position == 0:
            self.forget()
        del self._held[position:]

    def send(self, request: LogitRequest | AnswerRequest, tokens: int) -> None:
        """Send a request with so many of the text's tokens.

        Raises:
            LargeModelError: There is no connection to the broker.
        """
        self._traffic.bytes_up += self._send(request, self.worker)
        self._traffic.tokens_sent += tokens  # of what was sent, not of what should have been

    def heard(self, worker: str, text: Sequence[int]) -> None:
        """This worker has read so much."""
        self.worker, self._held = worker, list(text)

    def forget(self) -> None:
        """The worker is dead, or of no use: any may be asked, from the beginning."""
        self.worker = ""
