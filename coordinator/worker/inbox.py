"""What a worker has to do, from all its threads, in a fair order and never too much of it.

Requests are taken from the devices by turns; above what can be answered in time, the oldest of the
device that has most is dropped. What is not asked by a device comes first and is never dropped.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, TypeAlias

from fedpt.ids import DeviceId

Work: TypeAlias = Callable[[], None]

_MOST_REQUESTS: Final = 1024


class Inbox:
    """Filled by many threads, emptied by one."""

    def __init__(self, *, on_put: Work, most_requests: int = _MOST_REQUESTS) -> None:
        """Make an empty one.

        Args:
            on_put: Called after something was put in, on whatever thread.
            most_requests: How many requests may wait.
        """
        self._on_put = on_put
        self._most_requests = most_requests
        self._first: deque[Work] = deque()
        self._requests: OrderedDict[DeviceId, deque[Work]] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._first or self._requests)

    def put_first(self, work: Work) -> None:
        """What no device asked for."""
        with self._lock:
            self._first.append(work)
        self._on_put()

    def put_request(self, device: DeviceId, work: Work) -> None:
        """What a device asks for."""
        with self._lock:
            self._requests.setdefault(device, deque()).append(work)
            self._count += 1
            if self._count > self._most_requests:
                self._pop(max(self._requests, key=lambda one: len(self._requests[one])))
        self._on_put()

    def take(self) -> Work | None:
        """The next thing to do."""
        with self._lock:
            if self._first:
                return self._first.popleft()
            if not self._requests:
                return None
            device = next(iter(self._requests))
            self._requests.move_to_end(device)
            return self._pop(device)

    def _pop(self, device: DeviceId) -> Work:
        waiting = self._requests[device]
        work = waiting.popleft()
        self._count -= 1
        if not waiting:
            del self._requests[device]
        return work
