"""Running several sides by turns, so that a noisy machine is unfair to none of them."""

import statistics
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def by_turns(
    sides: Mapping[str, Callable[[int], T]], *, turns: int, warm: bool = True
) -> dict[str, list[T]]:
    """Run every side `turns` times, once each after the other, every other time backwards.

    Args:
        sides: Get the number of the turn.
        turns: How often each; a turn is best short, such as one prompt.
        warm: Run each once before, for nothing: caches and clocks.
    """
    if warm:
        for side in sides.values():
            side(0)
    results: dict[str, list[T]] = {name: [] for name in sides}
    for turn in range(turns):
        names = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in names:
            results[name].append(sides[name](turn))
    return results


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of ours by theirs, turn by turn: both of a turn had the same machine."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
