"""How many rows to ask for at once: a pure function of how often drafts are right, and of times.

With acceptance a, r rows give (1 - a^r) / (1 - a) tokens on average. They take a round trip and the
large model's time for r rows, or that of drafting the next r if it is longer, for drafts are made
while a reply is awaited; and, when a draft was wrong, the drafting of r new ones.

The large model's time grows by a straight line from two rows on. A single row may take far less
than that line says: on processors llama.cpp multiplies by vectors otherwise than by matrices, and
two tokens were seen to cost thrice as much as one.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

_DECAY: Final = 0.95
"""Of the weight of earlier drafts at each one more: about the last twenty count."""

_FORGET: Final = 0.8
_LEAST_SPREAD: Final = 0.5
_LASTS: Final = 100
"""After so many replies of the other kind, a single row's or several rows' time is forgotten."""

_FIRST_ROWS: Final = 4
_FIRST_GUESS: Final = 0.85
_GUESS_WEIGHT: Final = 4.0


class Pace:
    """Learns acceptance and times, and says how many rows to ask for."""

    def __init__(self, *, most_rows: int) -> None:
        self._most_rows = most_rows
        self._right = _FIRST_GUESS * _GUESS_WEIGHT
        self._tried = _GUESS_WEIGHT
        self._network = _Line()
        self._model = _ModelTime()
        self._draft = _Line()
        self._antiexpert = _Line()

    @property
    def acceptance(self) -> float:
        """The share of drafts that were right lately."""
        return self._right / self._tried

    def saw_draft(self, seconds: float) -> None:
        """One token was drafted."""
        self._draft.saw(1, seconds)

    def saw_antiexpert(self, rows: int, seconds: float) -> None:
        """The antiexpert ran over so many drafts."""
        self._antiexpert.saw(rows, seconds)

    def saw_verdict(self, *, is_right: bool) -> None:
        """One draft was accepted or replaced."""
        self._right = self._right * _DECAY + is_right
        self._tried = self._tried * _DECAY + 1

    def saw_reply(self, rows: int, network_s: float, model_s: float | None) -> None:
        """Some rows came.

        Args:
            rows: How many.
            network_s: Time on the way.
            model_s: The large model's time for them; None: it had other things to read too.
        """
        self._network.saw(1, network_s)
        if model_s is not None:
            self._model.saw(rows, model_s)

    def rows(self) -> int:
        """How many rows give the most tokens a second, as far as we know."""
        if self._model.is_new:
            return min(_FIRST_ROWS, self._most_rows)
        draft_s = self._draft.at(1) + self._antiexpert.fit()[1]
        times = Times(self._network.at(1), self._model.at, draft_s)
        return best_rows(min(self.acceptance, 0.99), times, most_rows=self._most_rows)


class Times(NamedTuple):
    """What a round trip is made of, s."""

    trip_s: float
    """Whatever the number of rows."""
    rows_s: Callable[[int], float]
    """For so many rows."""
    draft_s: float
    """For each row's draft."""


def best_rows(acceptance: float, times: Times, *, most_rows: int) -> int:
    """The number of rows with the most expected tokens a second; `acceptance` is below 1."""

    def speed(rows: int) -> float:
        all_right = acceptance**rows
        tokens = (1 - all_right) / (1 - acceptance)
        drafting = rows * times.draft_s
        waiting = max(times.trip_s + times.rows_s(rows), drafting)
        return tokens / (waiting + drafting * (1 - all_right) + 1e-9)

    return max(range(1, most_rows + 1), key=speed)


class _ModelTime:
    """The large model's time by rows. What is not known is hoped for, so that it is tried."""

    def __init__(self) -> None:
        self._one = _Line()
        self._several = _Line()
        self._was_single = False
        self._streak = 0
        """Replies of the same kind in a row."""

    @property
    def is_new(self) -> bool:
        """Whether nothing was seen yet."""
        return self._one.is_new and self._several.is_new

    def saw(self, rows: int, seconds: float) -> None:
        """So many rows took so long."""
        is_single = rows == 1
        self._streak = self._streak + 1 if is_single == self._was_single else 1
        self._was_single = is_single
        if is_single:
            self._one.saw(1, seconds)
            self._several = self._several if self._streak < _LASTS else _Line()
        else:
            self._several.saw(rows, seconds)
            self._one = self._one if self._streak < _LASTS else _Line()

    def at(self, rows: int) -> float:
        """What so many rows take."""
        if rows > 1:
            return (self._one if self._several.is_new else self._several).at(rows)
        if self._one.is_new:
            return self._several.fit()[1]  # without what is there whatever the number
        return self._one.at(1)


class _Line:
    """A straight line through times by size, recent ones counting more: start + slope * size."""

    def __init__(self) -> None:
        self._weight = self._size = self._time = self._square = self._product = 0.0

    @property
    def is_new(self) -> bool:
        """Whether nothing was seen yet."""
        return self._weight == 0

    def saw(self, size: int, seconds: float) -> None:
        """A thing of this size took so long."""
        self._weight = self._weight * _FORGET + 1
        self._size = self._size * _FORGET + size
        self._time = self._time * _FORGET + seconds
        self._square = self._square * _FORGET + size * size
        self._product = self._product * _FORGET + size * seconds

    def fit(self) -> tuple[float, float]:
        """Start and slope, neither negative. Seen at one size only, half of it is the slope's."""
        if self.is_new:
            return 0.0, 0.0
        size, time = self._size / self._weight, self._time / self._weight
        spread = self._square / self._weight - size * size
        slope = time / size / 2
        if spread > _LEAST_SPREAD:
            slope = (self._product / self._weight - size * time) / spread
        slope = min(max(slope, 0.0), time / size)
        return time - slope * size, slope

    def at(self, size: int) -> float:
        """What a thing of this size takes."""
        start, slope = self.fit()
        return start + slope * size
