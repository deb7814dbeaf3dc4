"""What a device knows of one row of the large model's logits: all of it, or the largest few.

A row with few logits still says something of all others: none is above `floor`, and together they
weigh `rest`. `steered_row` makes certainty of that.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fedpt.decoding.sampling import all_ids
from fedpt.decoding.top_tokens import top_tokens
from fedpt.proxy_tuning import Logits, TokenIds

_NOTHING: Final = float("-inf")
_UNDERFLOWN: Final = 1e-30
"""Of a sum of float32 exponentials: below, too much of it is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class LargeRow:
    """Logits of some tokens of a row, ascending by id, and bounds for the others."""

    ids: TokenIds
    logits: Logits
    error: Logits
    """How far each of `logits` may be from the truth, at most."""
    floor: float
    """No other token's logit is above this; `-inf` in a full row."""
    rest: float
    """Log-sum-exp of the other tokens' logits, at most; `-inf` in a full row."""
    size: int
    """Of the vocabulary."""

    @property
    def is_full(self) -> bool:
        """Whether nothing is left out and nothing rounded; only whole rows have no bounds."""
        return self.floor == _NOTHING


def full_row(logits: Logits) -> LargeRow:
    """A row `(V,)` as the model computed it."""
    size = len(logits)
    return LargeRow(all_ids(size), logits, np.zeros(1, np.float32), _NOTHING, _NOTHING, size)


def select_row(logits: Logits, k: int, candidates: TokenIds) -> tuple[TokenIds, float, float]:
    """Choose what to tell of a row `(V,)`: the k largest.

    Args:
        logits: The whole row.
        k: How many of the largest.
        candidates: Ids that are told anyway, ascending.

    Returns:
        The ids of the k largest, ascending; the least of their logits; and the log-sum-exp of all
        that are neither among them nor among the candidates.
    """
    ids = top_tokens(logits, k)
    floor = float(logits[ids].min())
    peak = float(logits.max())
    weights = np.exp(logits - peak)
    weights[ids] = 0
    weights[candidates] = 0
    left = float(weights.sum(dtype=np.float64))
    if left > _UNDERFLOWN:
        return ids, floor, peak + float(np.log(left))
    others = np.delete(logits, np.concatenate([ids, candidates])).astype(np.float64)
    return ids, floor, float(np.logaddexp.reduce(others, initial=_NOTHING))


def largest_of(row: LargeRow, k: int) -> LargeRow:
    """Leave all but the k largest of a row's logits out; what was told of them becomes bounds."""
    if k >= len(row.ids):
        return row
    order = np.argsort(row.logits)[::-1]
    kept, left = np.sort(order[:k]), order[k:]
    most = row.logits[left] + row.error[left]
    floor = max(row.floor, float(most.max()))
    rest = float(np.logaddexp.reduce([row.rest, *most.astype(np.float64)]))
    return LargeRow(row.ids[kept], row.logits[kept], row.error[kept], floor, rest, row.size)
