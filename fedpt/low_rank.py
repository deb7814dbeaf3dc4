"""The best approximation of a low rank, from factors alone. Pure numpy.

What counts of an adapter is the product ``alpha / rank * B @ A``; here adapters become others of a
lower rank with nearly the same products, without any product being formed.
"""

from collections.abc import Iterator
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from fedpt.adapters import FACTOR_PAIRS, Adapter, AdapterTensors

Matrix: TypeAlias = npt.NDArray[np.floating]


def with_rank(adapter: Adapter, rank: int) -> Adapter:
    """The adapter of `rank` that comes closest, product by product; itself, if it has no more.

    The scale stays, so equal learning rates move products of either rank equally fast.
    """
    manifest = adapter.manifest
    if rank >= manifest.rank:
        return adapter
    tensors: AdapterTensors = {}
    for first, second in factor_pairs(adapter.tensors):
        tensors[first], tensors[second] = best_of_rank(
            adapter.tensors[first], adapter.tensors[second], rank
        )
    lower = msgspec.structs.replace(manifest, rank=rank, alpha=manifest.scale * rank)
    return Adapter(lower, tensors)


def factor_pairs(tensors: AdapterTensors) -> Iterator[tuple[str, str]]:
    """The names of A and B of each module, sorted."""
    for name in sorted(tensors):
        for first, second in FACTOR_PAIRS:
            if name.endswith(first):
                yield name, name.removesuffix(first) + second


def best_of_rank(first: Matrix, second: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """Factors of the matrix of `rank` that is closest to ``second @ first`` in Frobenius' norm.

    That matrix is ``B A V V'``, V being the first r right singular vectors (Eckart and Young). With
    a QR decomposition ``A' = P S`` they are P times the eigenvectors of the small ``S B'B S'``.
    Squared so, singular values below 1e-8 of the largest are lost, which float32 could not tell
    either; in return many updates are put together in seconds. Deterministic: of each new row of A
    the value of largest magnitude is positive.

    The new A is V', its rows as long as A's were in quadratic mean; B has the singular values. So
    directions without any, as in a new adapter, where B is zero, can still be trained: were both
    factors zero there, no gradient would ever reach them.

    Args:
        first: A, `(R, in)`.
        second: B, `(out, R)`.
        rank: r, at most R.

    Returns:
        A `(r, in)` and B `(out, r)`, float32; computed in float64.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    basis, coordinates = np.linalg.qr(first.T)
    _, vectors = np.linalg.eigh(coordinates @ (second.T @ second) @ coordinates.T)
    directions = _with_signs(basis @ vectors[:, ::-1][:, :rank])
    length = float(np.sqrt(np.square(first).sum() / len(first))) or 1.0
    new_first = np.zeros((rank, first.shape[1]), np.float32)
    new_second = np.zeros((second.shape[0], rank), np.float32)
    found = directions.shape[1]  # less than r if the matrix is narrower than that
    new_first[:found] = length * directions.T
    new_second[:, :found] = second @ (first @ directions) / length
    return new_first, new_second


def _with_signs(columns: Matrix) -> Matrix:
    """Each turned so that its value of largest magnitude is positive."""
    largest = np.abs(columns).argmax(axis=0)
    return columns * np.where(columns[largest, np.arange(columns.shape[1])] < 0, -1.0, 1.0)
