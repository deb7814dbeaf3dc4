"""Which examples go through a model together. Pure."""

from collections.abc import Iterator, Sequence

import numpy as np


def batches(lengths: Sequence[int], *, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """One epoch's batches as indices: of like lengths, so little is padding; in random order."""
    order = np.argsort(np.asarray(lengths) + rng.uniform(0, 4, len(lengths)))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    for index in rng.permutation(len(groups)):
        yield [int(one) for one in groups[index]]
