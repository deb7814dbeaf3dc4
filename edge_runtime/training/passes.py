"""In which order examples are trained on, and how many at once. Pure.

The order of an epoch follows from seed and epoch alone, so a training that was interrupted needs to
remember neither it nor the state of a random generator.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from fedpt.batches import batches

_LEAST_FILLED: Final = 0.85
"""Examples go together if the shorter is at least so much of the longer: less is padding."""


def epoch_batches(
    lengths: Sequence[int], *, size: int, seed: int, epoch: int
) -> Iterator[list[int]]:
    """One epoch's batches as indices, the same every time."""
    return batches(lengths, size=size, rng=np.random.default_rng([seed, epoch]))


def steps_per_epoch(count: int, size: int) -> int:
    """How many batches an epoch has."""
    return -(-count // size)


def passes(batch: Sequence[int], lengths: Sequence[int], *, tokens: int) -> list[list[int]]:
    """A batch in parts that go through the model together, with little padding.

    Args:
        batch: Indices of examples.
        lengths: Of all examples, tokens.
        tokens: What may go at once, padding included; a longer example goes alone.
    """
    parts: list[list[int]] = []
    for index in sorted(batch, key=lambda one: -lengths[one]):
        widest = lengths[parts[-1][0]] if parts else 0
        fits = parts and (len(parts[-1]) + 1) * widest <= tokens
        if fits and lengths[index] >= _LEAST_FILLED * widest:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts
