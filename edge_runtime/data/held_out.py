"""Which examples are held out: the same ones as the data grows. Pure.

An example's own hash decides, so adding or removing others never moves it.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from fedpt.chat import EncodedExample

_ONE_IN: Final = 10
LEAST_EXAMPLES: Final = 20
"""With fewer, each one is worth more in training than as a judge."""
_LEAST_HELD_OUT: Final = 2
_MOST_HELD_OUT: Final = 64
"""More judges cost time and change little."""


def split(examples: Sequence[EncodedExample]) -> tuple[list[int], list[int]]:
    """Indices of examples to train on, and of held-out ones: none, if there are too few."""
    marks = [_mark(example) for example in examples]
    everything = range(len(examples))
    held_out = [index for index in everything if marks[index] % _ONE_IN == 0]
    if len(examples) < LEAST_EXAMPLES or len(held_out) < _LEAST_HELD_OUT:
        return list(everything), []
    kept = [index for index in everything if marks[index] % _ONE_IN]
    return kept, sorted(held_out, key=lambda index: marks[index])[:_MOST_HELD_OUT]


def _mark(example: EncodedExample) -> int:
    text = repr((example.prompt, example.answer)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
