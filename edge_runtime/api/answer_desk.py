"""One thread that answers one question after another, for clients of several event loops.

libllama's contexts want one thread at a time, and an assistant one question at a time: so questions
wait here in order, not too many of them, and whoever hangs up is passed over or cut short.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Final, TypeAlias

from edge_runtime.question import AnswerSummary, Notice, Piece, Question
from fedpt.errors import BusyError, FedptError

_logger = logging.getLogger(__name__)

_STOP_S: Final = 5.0

Item: TypeAlias = Piece | Notice | AnswerSummary


class Ticket:
    """A question at the desk, as its client's event loop sees it."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.is_cancelled = False
        self.is_over = False
        """Whether its last item has come, or its fault."""
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Item | Exception | None] = asyncio.Queue()

    async def items(self) -> AsyncIterator[Item]:
        """The answer as it comes; ends early where it was cancelled.

        Raises:
            FedptError: The question is refused, or the answer failed.
        """
        while (item := await self._items.get()) is not None:
            if isinstance(item, Exception):
                self.is_over = True
                raise item
            yield item

    def put(self, item: Item | Exception | None) -> None:
        """On the desk's thread: hand something over; None ends it."""
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the client's event loop is closed
            self.is_cancelled = True


class AnswerDesk:
    """Where questions wait for the assistant."""

    def __init__(self, answer: Callable[[Question], Iterator[Item]], *, most_waiting: int) -> None:
        """Make it; `start` opens it.

        Args:
            answer: Answers one question; closing what it returns stops the work.
            most_waiting: Questions that may wait behind the one that is answered.
        """
        self._answer = answer
        self._most_waiting = most_waiting
        self._waiting: deque[Ticket] = deque()
        self._present: Ticket | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)

    @property
    def waiting(self) -> int:
        """Questions that are not begun yet."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Cut off the present answer and refuse those that wait."""
        with self._changed:
            self._is_closed = True
            refused = [*self._waiting]
            self._waiting.clear()
            if self._present is not None:
                self._present.is_cancelled = True
            self._changed.notify()
        for ticket in refused:
            ticket.put(BusyError("the device is stopping"))
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def submit(self, question: Question) -> Ticket:
        """Put a question in line; on an event loop.

        Raises:
            BusyError: Too many wait already, or the desk is closed.
        """
        ticket = Ticket(question)
        with self._changed:
            if self._is_closed:
                raise BusyError("the device is stopping")
            ahead = len(self._waiting) + (self._present is not None)
            if ahead > self._most_waiting:
                raise BusyError(f"{ahead} questions are ahead; try again later")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for this answer any more; again is no matter."""
        with self._changed:
            ticket.is_cancelled = True
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                ticket.put(None)

    def _work(self) -> None:
        while (ticket := self._next()) is not None:
            try:
                self._serve(ticket)
            except FedptError as error:
                ticket.put(error)
            except Exception as error:  # one answer's fault never ends the desk
                _logger.exception("an answer failed")
                ticket.put(error)
            ticket.put(None)

    def _next(self) -> Ticket | None:
        with self._changed:
            self._present = None
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return None
            self._present = self._waiting.popleft()
            return self._present

    def _serve(self, ticket: Ticket) -> None:
        items = self._answer(ticket.question)
        try:
            for item in items:
                if ticket.is_cancelled:
                    return
                ticket.put(item)
        finally:
            if isinstance(items, Generator):
                items.close()
