"""The k largest of a row of logits, quickly.

`np.argpartition` over 49,152 values takes half a millisecond, a tenth of a small model's decode.
The k largest lie in the k blocks with the largest maxima, so most of the row is read only once.
"""

from typing import Final

import numpy as np

from fedpt.proxy_tuning import Logits, TokenIds

_BLOCK: Final = 64


def top_tokens(row: Logits, k: int) -> TokenIds:
    """Ids of the `k` largest logits of a row `(V,)`, ascending by id; all if there are fewer."""
    size = len(row)
    blocks = size // _BLOCK
    if k == 0:
        return np.zeros(0, np.int64)
    if k >= size:
        return np.arange(size, dtype=np.int64)
    if k >= blocks // 2:
        return np.sort(np.argpartition(row, -k)[-k:])
    maxima = row[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    chosen = np.argpartition(maxima, -k)[-k:]
    places = (chosen[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
    places = np.concatenate([places, np.arange(blocks * _BLOCK, size)])
    return np.sort(places[np.argpartition(row[places], -k)[-k:]])
