"""Whether to wait a moment for more jobs before a step of the models. Pure: time is an argument.

A device that was just answered often asks again at once, for its next draft. A step that begins
before that request is here leaves it out, and soon every step is half empty. So a step waits for as
many jobs as the last one had, for a small part of the time that it took; and hardly ever where
devices are too far away for that, which it learns.
"""

from typing import Final

_PART: Final = 0.1
"""Of a step's time: a step that waits in vain is a tenth later at worst."""
_LONGEST_S: Final = 0.02
_MOST_SKIPPED: Final = 64
"""After waits in vain up to so many steps do not wait, then it is tried again."""


class Gathering:
    """When the next step begins."""

    def __init__(self) -> None:
        self._expected = 0
        self._until = 0.0
        self._has_waited = False
        self._pause = 0
        self._skipped = 0

    def rest_s(self, jobs: int, now: float) -> float:
        """How long to wait for more jobs than these; 0: begin."""
        if jobs >= self._expected or self._skipped < self._pause or now >= self._until:
            return 0.0
        self._has_waited = True
        return self._until - now

    def stepped(self, jobs: int, began: float, ended: float) -> None:
        """A step was made of so many jobs."""
        if self._has_waited:
            came = jobs >= self._expected
            self._pause = 0 if came else min(2 * self._pause + 1, _MOST_SKIPPED)
            self._skipped = 0
        else:
            self._skipped += 1
        self._has_waited = False
        self._expected = jobs
        self._until = ended + min(_PART * (ended - began), _LONGEST_S)
