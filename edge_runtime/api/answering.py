"""An answer on its way to one client: in line, counted, and stopped when the client hangs up."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from starlette.requests import Request

from edge_runtime.api.answer_desk import AnswerDesk, Item, Ticket
from edge_runtime.api.api_errors import HUNG_UP, ApiError, as_api_error
from edge_runtime.api.api_metrics import ApiMetrics
from edge_runtime.question import AnswerSummary, Question
from fedpt.errors import BusyError

_RETRY_AFTER_S: Final = 5
"""A short answer on a small board."""


class Answering:
    """Begins answers."""

    def __init__(self, desk: AnswerDesk, metrics: ApiMetrics) -> None:
        self._desk = desk
        self._metrics = metrics
        self._watchers: set[asyncio.Task[None]] = set()
        """The event loop itself holds tasks only weakly."""

    async def begin(
        self, request: Request, question: Question, note: str = ""
    ) -> AsyncIterator[Item]:
        """Wait until an answer has begun, then give all of it.

        Args:
            request: The client's; its body must have been read.
            question: What is asked.
            note: Why it is not answered in the mode that was asked for.

        Raises:
            ApiError: It is refused; whatever goes wrong later is raised by the iterator.
        """
        try:
            ticket = self._desk.submit(question)
        except BusyError as error:
            self._metrics.count_refusal()
            retry = {"Retry-After": str(_RETRY_AFTER_S)}
            raise ApiError(str(error), status=429, code=error.code, headers=retry) from error
        watcher = asyncio.create_task(self._watch(request, ticket))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        items = ticket.items()
        try:
            first = await anext(items)
        except StopAsyncIteration:
            raise ApiError("the client has hung up", status=HUNG_UP) from None
        except Exception as error:
            raise as_api_error(error) from error
        return self._told(ticket, first, items, note)

    async def _told(
        self, ticket: Ticket, first: Item, items: AsyncIterator[Item], note: str
    ) -> AsyncIterator[Item]:
        try:
            yield self._last_words(ticket, first, note)
            async for item in items:
                yield self._last_words(ticket, item, note)
        except Exception as error:
            raise as_api_error(error) from error
        if not ticket.is_over:
            raise ApiError("the answer was cut off: the device is stopping", status=503)

    def _last_words(self, ticket: Ticket, item: Item, note: str) -> Item:
        if not isinstance(item, AnswerSummary):
            return item
        ticket.is_over = True
        summary = msgspec.structs.replace(item, fallback=note) if note else item
        self._metrics.count_answer(summary)
        return summary

    async def _watch(self, request: Request, ticket: Ticket) -> None:
        """The server tells of a hang-up, and of the reply's end, by the same message."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if not ticket.is_over:
            self._metrics.count_hang_up()
        self._desk.cancel(ticket)
