import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from edge_runtime.api.answer_desk import AnswerDesk, Item
from edge_runtime.question import Piece, Question
from fedpt.errors import BusyError
from tests.fakes.api_servers import WAIT_S, ScriptedAssistant

HELLO = Question(text="Hello?")


def at_desk(
    answer: Callable[[Question], Iterator[Item]],
    work: Callable[[AnswerDesk], Coroutine[Any, Any, None]],
    *,
    most_waiting: int = 2,
) -> None:
    """Run `work` on an event loop beside an open desk."""
    desk = AnswerDesk(answer, most_waiting=most_waiting)
    desk.start()
    try:
        asyncio.run(asyncio.wait_for(work(desk), WAIT_S))
    finally:
        desk.close()


def test_answers_come_one_after_another_in_order() -> None:
    assistant = ScriptedAssistant()

    async def work(desk: AnswerDesk) -> None:
        tickets = [desk.submit(Question(text=str(n))) for n in range(3)]
        for ticket in tickets:
            assert len([item async for item in ticket.items()]) == 3

    at_desk(assistant.answer, work)
    assert [one.text for one in assistant.asked] == ["0", "1", "2"]


def test_too_many_are_refused() -> None:
    assistant = ScriptedAssistant()
    assistant.go_on.clear()

    async def work(desk: AnswerDesk) -> None:
        first = desk.submit(HELLO)
        await anext(first.items())  # it is being answered
        for _ in range(2):
            desk.submit(HELLO)
        assert desk.waiting == 2
        with pytest.raises(BusyError, match="3 questions are ahead"):
            desk.submit(HELLO)
        assistant.go_on.set()

    at_desk(assistant.answer, work)


def test_who_is_gone_is_passed_over() -> None:
    assistant = ScriptedAssistant()
    assistant.go_on.clear()

    async def work(desk: AnswerDesk) -> None:
        first, second, third = (desk.submit(Question(text=name)) for name in "abc")
        await anext(first.items())
        desk.cancel(second)
        desk.cancel(second)
        assistant.go_on.set()
        assert [item async for item in second.items()] == []
        assert [item async for item in third.items()]

    at_desk(assistant.answer, work)
    assert [one.text for one in assistant.asked] == ["a", "c"]


def test_a_cancelled_answer_ends_at_its_next_piece() -> None:
    done = threading.Event()

    def endless(_: Question) -> Iterator[Item]:
        try:
            while True:
                yield Piece("again ")
        finally:
            done.set()

    async def work(desk: AnswerDesk) -> None:
        ticket = desk.submit(HELLO)
        await anext(ticket.items())
        desk.cancel(ticket)
        assert await asyncio.to_thread(done.wait, WAIT_S)

    at_desk(endless, work)


def test_a_fault_reaches_who_asked_and_the_desk_goes_on() -> None:
    def answer(question: Question) -> Iterator[Item]:
        if question.text == "bad":
            raise ZeroDivisionError("our own bug")
        yield Piece("fine")

    async def work(desk: AnswerDesk) -> None:
        bad, good = desk.submit(Question(text="bad")), desk.submit(HELLO)
        with pytest.raises(ZeroDivisionError):
            await anext(bad.items())
        assert [item async for item in good.items()] == [Piece("fine")]

    at_desk(answer, work)


def test_closing_cuts_off_and_refuses() -> None:
    assistant = ScriptedAssistant()
    assistant.go_on.clear()

    async def work(desk: AnswerDesk) -> None:
        first, second = desk.submit(HELLO), desk.submit(HELLO)
        items = first.items()
        await anext(items)
        closing = asyncio.create_task(asyncio.to_thread(desk.close))
        with pytest.raises(BusyError, match="stopping"):
            await anext(second.items())
        assistant.go_on.set()
        assert [item async for item in items] == []
        await closing
        with pytest.raises(BusyError):
            desk.submit(HELLO)

    at_desk(assistant.answer, work)
    assert assistant.was_closed.is_set()
