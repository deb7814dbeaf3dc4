"""Whether a few tokens go through a model together or one by one: learnt from the times. Pure.

A batch of two may take longer than two single tokens: libllama's kernels for one column read the
weights at memory speed, those for many columns want eight of them to be worth it. On x86 with
AVX-512, a model of 64 M parameters in Q8_0 takes 2.6 ms for one token, 12 for two, 19 for four, 21
for eight, 22 for sixteen.
"""

from typing import Final

_FEW: Final = 8
"""Larger batches are never slower than their tokens one by one."""

_DRIFT: Final = 1.02
"""The least time seen grows by this at every call, so that what was true once is tried again."""


class CallSize:
    """Keeps the least time of calls with few tokens, a row wanted of each."""

    def __init__(self) -> None:
        self._least_s: dict[int, float] = {}

    def saw(self, tokens: int, seconds: float) -> None:
        """A call with so many tokens took so long."""
        if tokens <= _FEW:
            before = self._least_s.get(tokens, float("inf"))
            self._least_s[tokens] = min(seconds, _DRIFT * before)

    def is_faster_alone(self, tokens: int) -> bool:
        """Whether so many tokens shall go one by one; both ways are tried at first."""
        if not 1 < tokens <= _FEW:
            return False
        alone, together = self._least_s.get(1), self._least_s.get(tokens)
        if alone is None or together is None:
            return alone is None
        return tokens * alone < together
