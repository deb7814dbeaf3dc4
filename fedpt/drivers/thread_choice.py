"""How many threads decode a single token fastest: tried out while decoding. Pure.

More cores are not always faster. Small models' layers take microseconds each, and waking the other
threads at every one of them may take longer: on two virtual cores, models of 64 and 135 M
parameters decode twice as fast with one thread. Batches of tokens are worth all cores.
"""

from typing import Final

_TRIALS: Final = 3
"""Of each count; the least time counts, for what comes between makes it longer, never shorter."""

_WORTH: Final = 0.9
"""More threads must take no more than this share of the time of fewer: others want cores too."""


class ThreadChoice:
    """Tries 1, 2, 4, … threads, then keeps to the best."""

    def __init__(self, most: int) -> None:
        """Of up to so many threads."""
        counts = {min(1 << power, most) for power in range(most.bit_length() + 1)}
        self._least_s: dict[int, float] = dict.fromkeys(sorted(counts), float("inf"))
        self._to_try = sorted(counts) * _TRIALS if len(counts) > 1 else []
        self.threads = min(counts)
        """For the next token."""

    @property
    def counts(self) -> list[int]:
        """What is tried."""
        return list(self._least_s)

    @property
    def is_made(self) -> bool:
        """Whether nothing is tried any more."""
        return not self._to_try

    def saw(self, seconds: float) -> None:
        """A token was decoded with `threads`."""
        if self.is_made:
            return
        self._least_s[self.threads] = min(self._least_s[self.threads], seconds)
        self._to_try.pop(0)
        self.threads = self._to_try[0] if self._to_try else self._best()

    def _best(self) -> int:
        best, *others = self._least_s
        for count in others:
            if self._least_s[count] < _WORTH * self._least_s[best]:
                best = count
        return best
