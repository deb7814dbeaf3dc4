"""How much a client's JSON may ask of us. Pure.

A schema becomes a grammar that repeats its parts as often as it says: a short one could fill a
board's memory.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

DEEPEST: Final = 64
"""Levels of nesting; Python's own recursion ends at about a thousand."""

_MOST: Final = 1000
_COUNTS: Final = ("minItems", "maxItems", "minLength", "maxLength", "minProperties")
_REPETITION: Final = re.compile(r"\{(\d*),?(\d*)\}")


def fault_of_schema(schema: object) -> str:
    """What is too much in a JSON schema; empty: nothing."""
    for depth, value in _parts(schema):
        if depth > DEEPEST:
            return f"more than {DEEPEST} levels of nesting"
        if not isinstance(value, Mapping):
            continue
        for key in _COUNTS:
            count = value.get(key)
            if isinstance(count, int | float) and count > _MOST:
                return f"{key} = {count}: at most {_MOST}"
        pattern = value.get("pattern")
        if isinstance(pattern, str) and _most_repeated(pattern) > _MOST:
            return f"a pattern that repeats more than {_MOST} times"
    return ""


def is_deep(value: object) -> bool:
    """Whether a JSON value is nested more deeply than anybody needs."""
    return any(depth > DEEPEST for depth, _ in _parts(value))


def _parts(value: object) -> Iterator[tuple[int, object]]:
    """A value and all that is in it, with its depth; goes down no further than it must."""
    waiting = [(1, value)]
    while waiting:
        depth, part = waiting.pop()
        yield depth, part
        if depth > DEEPEST:
            continue
        if isinstance(part, Mapping):
            waiting += [(depth + 1, one) for one in part.values()]
        elif isinstance(part, list):
            waiting += [(depth + 1, one) for one in part]


def _most_repeated(pattern: str) -> int:
    counts = [number for pair in _REPETITION.findall(pattern) for number in pair if number]
    return max((int(number[:9]) for number in counts), default=0)
