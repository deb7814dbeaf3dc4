"""A row as a server tells it: log-probabilities of a few tokens. What follows for all others?

None of them is more probable than the last of the k most probable, if the server told all of those;
and together they have what is left of one. Both are bounds as a device needs them for its
certificate, so an answer steered with a black box is as exact as with whole rows, only less often
certain. Log-probabilities are logits less a constant, which steering does not see.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from fedpt.decoding.large_row import LargeRow
from fedpt.errors import LargeModelError

_LOWEST: Final = -1e4
"""Servers write minus infinity as -9999 or as the least float; no steering lifts either."""
_ABOVE_ZERO: Final = 1e-3
"""Log-probabilities of single precision may be so much above 0."""
_SLACK: Final = 1e-5
"""Rounding of a sum of probabilities: what is left may always be so much."""

Told = tuple[int | None, float]
"""A token id, None where it is not known which token that is, and its log-probability."""


def row_of(told: Sequence[Told], *, asked: int, size: int) -> LargeRow:
    """What is known of a row.

    Args:
        told: At least the `asked` most probable tokens, as the server claims.
        asked: How many it was asked for.
        size: Of the vocabulary. Ids above are padding of the server's model and left out.

    Raises:
        LargeModelError: Those are no log-probabilities, or none is of a token of ours.
    """
    if bad := next((value for _, value in told if not _is_logprob(value)), None):
        raise LargeModelError(_nonsense(bad))
    known = {token: min(0.0, max(_LOWEST, value)) for token, value in told if token is not None}
    known = {token: value for token, value in known.items() if 0 <= token < size}
    if not known:
        raise LargeModelError(f"the model server told no token of ours among {len(told)}")
    ids = np.array(sorted(known), np.int64)
    logits = np.array([known[token] for token in sorted(known)], np.float32)
    left = 1 - math.fsum(map(math.exp, known.values()))
    if left < -_ABOVE_ZERO:
        raise LargeModelError(f"the model server told probabilities that add up to {1 - left:g}")
    rest = math.log(max(left, 0.0) + _SLACK)
    floor = min(rest, _floor(told, min(asked, size)))
    if (others := size - len(ids)) > 0:
        rest = min(rest, floor + math.log(others))
    else:
        floor = rest = -math.inf
    return LargeRow(ids, logits, np.zeros(len(ids), np.float32), floor, rest, size)


def end_row(token: int, size: int) -> LargeRow:
    """A row of which only the most probable token is known: it has between 1 / size and one.

    Any other has at most one half.
    """
    half = math.log(size) / 2
    logits, error = np.array([[-half], [half]], np.float32)
    return LargeRow(np.array([token], np.int64), logits, error, -math.log(2), 0.0, size)


def _floor(told: Sequence[Told], asked: int) -> float:
    """No token that was not told is above; without a bound if one was told that we do not know."""
    if len(told) < asked or any(token is None for token, _ in told):
        return 0.0
    return max(_LOWEST, sorted((value for _, value in told), reverse=True)[asked - 1])


def _is_logprob(value: float) -> bool:
    return value <= _ABOVE_ZERO  # no comparison is true of NaN


def _nonsense(value: float) -> str:
    if value > 0:
        return (
            f"the model server told {value:g} as a log-probability, which are never positive; does"
            " it run with --logprobs-mode raw_logits?"
        )
    return f"the model server told {value:g} as a log-probability"
