"""The k largest of a row of logits, quickly.

`np.argpartition` over 49,152 values takes half a millisecond, a tenth of a small model's decode.
The k largest lie in the k groups with the largest maxima, so most of the row is read only once.
A group's values lie far apart: so their maxima are taken by whole vectors, ten times as fast.
"""

from typing import Final

import numpy as np

from fedpt.proxy_tuning import Logits, TokenIds

_GROUP: Final = 64


def top_tokens(row: Logits, k: int) -> TokenIds:
    """Ids of the `k` largest logits of a row `(V,)`, ascending by id; all if there are fewer."""
    size = len(row)
    groups = size // _GROUP
    if k == 0:
        return np.zeros(0, np.int64)
    if k >= size:
        return np.arange(size, dtype=np.int64)
    if k >= groups // 2:
        return np.sort(np.argpartition(row, -k)[-k:])
    maxima = row[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    chosen = np.argpartition(maxima, -k)[-k:]
    places = (chosen + groups * np.arange(_GROUP)[:, None]).ravel()
    places = np.concatenate([places, np.arange(groups * _GROUP, size)])
    return np.sort(places[np.argpartition(row[places], -k)[-k:]])
