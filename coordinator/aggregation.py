"""Many adapters into one. Pure numpy."""

from collections.abc import Sequence

import numpy as np

from fedpt.adapters import LARGEST_VALUE, Adapter, AdapterTensors
from fedpt.errors import AdapterError
from fedpt.low_rank import best_of_rank, factor_pairs

Weighted = Sequence[tuple[Adapter, float]]
"""Adapters and their shares, which add up to 1."""


def federated_average(updates: Sequence[tuple[Adapter, int]], start: Adapter) -> Adapter:
    """FedAvg: the updates' mean, each weighted by its number of examples, of the start's form.

    Of factors if all updates have the start's rank, else of products: see `mean_of_factors` and
    `mean_of_products`.

    Args:
        updates: Adapters that `fedpt.adapters.require_averageable` lets pass, and example counts.
        start: What the round started from.

    Raises:
        AdapterError: There are none, or a count is not positive.
    """
    if not updates or any(count < 1 for _, count in updates):
        raise AdapterError(f"nothing to average: example counts {[n for _, n in updates]}")
    total = sum(count for _, count in updates)
    weighted = [(one, count / total) for one, count in updates]
    if all(one.manifest.rank == start.manifest.rank for one, _ in updates):
        return mean_of_factors(weighted, start)
    return mean_of_products(weighted, start)


def mean_of_factors(updates: Weighted, start: Adapter) -> Adapter:
    """The mean of the A and that of the B, as in FedIT (https://arxiv.org/abs/2305.05644).

    That is not the mean of the products: ``mean(B) @ mean(A) != mean(B @ A)``. The difference is of
    second order in how far devices moved from the adapter that they all started from, and the
    result keeps the rank, which the mean of products does not.
    """
    shares = np.asarray([share for _, share in updates], np.float32)
    tensors = {
        name: np.tensordot(shares, np.stack([one.tensors[name] for one, _ in updates]), axes=1)
        for name in start.tensors
    }
    return Adapter(start.manifest, tensors)


def mean_of_products(updates: Weighted, start: Adapter) -> Adapter:
    """The mean of ``alpha / rank * B @ A``, as close as the start's rank allows.

    A sum of products is the product of stacked factors, ``sum w_i B_i A_i = [w_1 B_1 …] [A_1; …]``:
    that much is FLoRA's (https://arxiv.org/abs/2409.05976), which adds the product, of whatever
    rank it is, to the base. Ours is cut back to the start's rank by singular values, as FlexLoRA
    does (https://arxiv.org/abs/2402.11505), which forms the whole matrix for that; here the factors
    do (`fedpt.low_rank.best_of_rank`). It is exact if the updates' ranks add up to the start's or
    less. The start's A is stacked too, with a B of zeros: where the updates do not fill the rank,
    directions that can be trained take the rest.

    An update of a low rank has lost what its rank could not hold of the start, so the mean loses
    that in proportion to its share; FlexLoRA's does too.
    """
    tensors: AdapterTensors = {}
    for first, second in factor_pairs(start.tensors):
        stacked_first = [one.tensors[first] for one, _ in updates]
        stacked_second = [
            share * one.manifest.scale / start.manifest.scale * one.tensors[second]
            for one, share in updates
        ]
        tensors[first], tensors[second] = best_of_rank(
            np.concatenate([*stacked_first, start.tensors[first]]),
            np.concatenate([*stacked_second, np.zeros_like(start.tensors[second])], axis=1),
            start.manifest.rank,
        )
    for tensor in tensors.values():  # beyond it nobody could read the adapter; poison gets there
        np.clip(tensor, -LARGEST_VALUE, LARGEST_VALUE, out=tensor)
    return Adapter(start.manifest, tensors)
