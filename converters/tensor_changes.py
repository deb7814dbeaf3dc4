"""How a tensor's values change between transformers and GGUF, both ways. Pure numpy.

Which tensor changes how is said by the tables in `converters.architectures`.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from converters.architectures.table import Change
from fedpt.errors import ModelFileError

Scalar = TypeVar("Scalar", bound=np.generic)


def to_gguf(
    values: npt.NDArray[np.floating], change: Change, heads: int | None
) -> npt.NDArray[np.floating]:
    """A weight or bias of transformers as GGUF stores it.

    Args:
        values: As transformers has them.
        change: What the table says; a transposed weight's bias is left as it is.
        heads: How many heads a rotary projection has.

    Raises:
        ModelFileError: See `to_rotary_order`.
    """
    match change:
        case Change.ROTARY if heads is not None:
            return to_rotary_order(values, heads)
        case Change.TRANSPOSED if values.ndim > 1:
            return values.T
        case Change.PLUS_ONE:
            return values.astype(np.float32) + np.float32(1)
    return values


def from_gguf(
    values: npt.NDArray[np.floating], change: Change, heads: int | None
) -> npt.NDArray[np.floating]:
    """The inverse of `to_gguf`.

    Raises:
        ModelFileError: See `to_rotary_order`.
    """
    match change:
        case Change.ROTARY if heads is not None:
            return from_rotary_order(values, heads)
        case Change.TRANSPOSED if values.ndim > 1:
            return values.T
        case Change.PLUS_ONE:
            return values.astype(np.float32) - np.float32(1)
    return values


def changed_shape(shape: tuple[int, ...], change: Change) -> tuple[int, ...]:
    """The shape on the other side, either way."""
    return shape[::-1] if change is Change.TRANSPOSED else shape


def to_rotary_order(rows: npt.NDArray[Scalar], heads: int) -> npt.NDArray[Scalar]:
    """Reorder a projection's output rows from transformers' order to GGUF's.

    Rotary embedding turns pairs of values. transformers pairs row `i` of a head with row
    `i + size / 2`, llama.cpp rows `2i` and `2i + 1` (section 3.4 of
    https://arxiv.org/abs/2104.09864).

    Args:
        rows: A weight `(heads * size, in)`, a bias `(heads * size,)` or a LoRA B
            `(heads * size, r)`.
        heads: Number of heads in it.

    Raises:
        ModelFileError: The rows are no whole number of pairs per head.
    """
    _require_pairs(rows.shape, heads)
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def from_rotary_order(rows: npt.NDArray[Scalar], heads: int) -> npt.NDArray[Scalar]:
    """The inverse of `to_rotary_order`.

    Raises:
        ModelFileError: As there.
    """
    _require_pairs(rows.shape, heads)
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _require_pairs(shape: tuple[int, ...], heads: int) -> None:
    if not shape or shape[0] % (2 * heads):
        raise ModelFileError(f"a projection of shape {shape} does not fit {heads} rotary heads")
