"""Texts as lists of token ids."""

from collections.abc import Sequence


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    shorter = min(len(first), len(second))
    if list(first[:shorter]) == list(second[:shorter]):  # nearly always, and at C's speed
        return shorter
    pairs = zip(first, second, strict=False)
    return next(index for index, (left, right) in enumerate(pairs) if left != right)
