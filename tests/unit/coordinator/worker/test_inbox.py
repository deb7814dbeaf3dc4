"""What a worker has to do comes in a fair order, and a flood drops only its own."""

from functools import partial

from coordinator.worker.inbox import Inbox
from fedpt.ids import DeviceId

FLOOD, QUIET = DeviceId("flood"), DeviceId("quiet")


class Desk:
    """An inbox, and what came out of it."""

    def __init__(self, most_requests: int = 1024) -> None:
        self.wakes = 0
        self.done: list[str] = []
        self.inbox = Inbox(on_put=self._wake, most_requests=most_requests)

    def _wake(self) -> None:
        self.wakes += 1

    def ask(self, device: DeviceId, what: str) -> None:
        self.inbox.put_request(device, partial(self.done.append, what))

    def work_off(self) -> list[str]:
        while (work := self.inbox.take()) is not None:
            work()
        return self.done


def test_devices_are_heard_by_turns_each_in_its_order() -> None:
    desk = Desk()
    for number in range(3):
        desk.ask(FLOOD, f"f{number}")
    desk.ask(QUIET, "q0")
    desk.ask(QUIET, "q1")
    assert desk.work_off() == ["f0", "q0", "f1", "q1", "f2"]
    assert desk.wakes == 5


def test_what_no_device_asked_for_comes_first() -> None:
    desk = Desk()
    desk.ask(FLOOD, "request")
    desk.inbox.put_first(partial(desk.done.append, "an answer ended"))
    assert desk.work_off() == ["an answer ended", "request"]


def test_a_flood_drops_its_own_oldest_and_nothing_else() -> None:
    desk = Desk(most_requests=10)
    desk.inbox.put_first(partial(desk.done.append, "an answer ended"))
    desk.ask(QUIET, "quiet")
    for number in range(1000):
        desk.ask(FLOOD, str(number))
    assert desk.work_off() == ["an answer ended", "quiet", *map(str, range(991, 1000))]


def test_an_emptied_inbox_holds_nothing_of_anybody() -> None:
    desk = Desk()
    for number in range(100):
        desk.ask(DeviceId(f"board-{number}"), "x")
    assert desk.inbox
    desk.work_off()
    assert not desk.inbox
    assert not desk.inbox._requests
    assert desk.inbox._count == 0
