"""When to ask for the large model again after it failed."""

from collections.abc import Callable
from typing import Final

from fedpt.errors import LargeModelError

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0


class Revival:
    """When to try again after a failure: soon, then ever more seldom."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = _FIRST_PAUSE_S
        self._due: float | None = None
        self._is_asked = False

    def is_back(
        self, ask: Callable[[], None], is_there: Callable[[], bool], fetch: Callable[[], object]
    ) -> bool:
        """Whether a probe has been answered; sends one when it is due.

        Args:
            ask: Sends one.
            is_there: Whether `fetch` returns, or raises, at once.
            fetch: Raises LargeModelError if the answer is no good.
        """
        now = self._clock()
        if self._due is None:
            self._due = now + self._pause_s
        try:
            if self._is_asked and is_there():
                self._is_asked = False
                fetch()
                self._pause_s, self._due = _FIRST_PAUSE_S, None
                return True
            if not self._is_asked and now >= self._due:
                ask()
                self._is_asked = True
        except LargeModelError:
            self._is_asked = False
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._due = self._clock() + self._pause_s
        return False
