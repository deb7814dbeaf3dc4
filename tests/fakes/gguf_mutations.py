"""Damage to a GGUF file, reproducible by a number: changed bytes, extreme numbers, lost ends.

A mutation is made from its seed and the file's length alone, so that a crash can be told, and made
again, as one line. What then happens is `tests.fakes.gguf_fuzzing`.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_WORDS: Final = tuple(
    number.to_bytes(size, "little", signed=number < 0)
    for size in (4, 8)
    for number in (0, 1, 2, 3, 7, 8, 9, 255, 256, 1 << 16, (1 << 31) - 1, -1, -2, -(1 << 31))
)
"""Numbers at which code goes wrong, as a header stores them."""

_CUTS: Final = 0.02  # of all mutations
_WORDS_SHARE: Final = 0.4  # of all changes; the rest are single bytes
_EDGE_BYTES: Final = 2048
"""Hyperparameters stand at a header's beginning and the table of tensors at its end; between them
is the vocabulary, which is most of it and harms least."""


@dataclass(frozen=True)
class Mutation:
    """What is done to a file's bytes: some overwritten, or its end cut off."""

    seed: int
    changes: tuple[tuple[int, bytes], ...]
    """Place and new bytes."""
    length: int
    """Of the file afterwards."""

    def __str__(self) -> str:
        parts = [f"{place}: {new.hex()}" for place, new in self.changes]
        return f"seed {self.seed}: {', '.join(parts) or f'cut to {self.length} bytes'}"


def mutation(seed: int, *, header_bytes: int, file_bytes: int) -> Mutation:
    """The mutation of this number.

    Args:
        seed: Any number; the same one gives the same mutation.
        header_bytes: Where the file's tensor data begins.
        file_bytes: The whole file.
    """
    rng = random.Random(seed)
    if rng.random() < _CUTS:
        return Mutation(seed, (), rng.randrange(file_bytes))
    edge = min(_EDGE_BYTES, header_bytes // 2)
    ends = ((0, edge), (header_bytes - edge, header_bytes))
    regions = (*ends, *ends, (0, header_bytes), (0, file_bytes))
    changes = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        new = rng.choice(_WORDS) if rng.random() < _WORDS_SHARE else bytes([rng.randrange(256)])
        begin, end = rng.choice(regions)
        changes.append((rng.randrange(begin, max(begin + 1, end - len(new))), new))
    return Mutation(seed, tuple(changes), file_bytes)


@contextmanager
def mutated(path: Path, content: bytes, one: Mutation) -> Iterator[None]:
    """The file at `path`, which holds `content`, with a mutation while the block runs."""
    with path.open("r+b", buffering=0) as file:
        for place, new in one.changes:
            file.seek(place)
            file.write(new)
        file.truncate(one.length)
    try:
        yield
    finally:
        with path.open("r+b", buffering=0) as file:
            for place, new in one.changes:
                file.seek(place)
                file.write(content[place : place + len(new)])
            file.seek(one.length)
            file.write(content[one.length :])
