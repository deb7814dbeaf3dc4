"""Many adapters into one. Pure numpy."""

from collections.abc import Sequence

import numpy as np

from fedpt.adapters import Adapter
from fedpt.errors import AdapterError


def federated_average(updates: Sequence[tuple[Adapter, int]]) -> Adapter:
    """FedAvg: the mean of the adapters' factors, each weighted by its number of examples.

    The factors A and B are averaged separately, as FedIT does (https://arxiv.org/abs/2305.05644).
    That is not the mean of the products: ``mean(B) @ mean(A) != mean(B @ A)``. The difference is of
    second order in how far devices moved from the adapter that they all started from, and the
    result keeps the rank, which the mean of products does not.

    Args:
        updates: Adapters of one form (`fedpt.adapters.require_same_form`), and example counts.

    Raises:
        AdapterError: There are none, or a count is not positive.
    """
    if not updates or any(count < 1 for _, count in updates):
        raise AdapterError(f"nothing to average: example counts {[n for _, n in updates]}")
    total = sum(count for _, count in updates)
    first = updates[0][0]
    shares = np.asarray([count / total for _, count in updates], np.float32)
    tensors = {
        name: np.tensordot(shares, np.stack([one.tensors[name] for one, _ in updates]), axes=1)
        for name in first.tensors
    }
    return Adapter(first.manifest, tensors)
