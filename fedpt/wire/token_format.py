"""Token ids on the wire: texts three bytes a token, sorted sets as differences in varints."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from fedpt.errors import MalformedMessageError
from fedpt.proxy_tuning import TokenIds

Numbers: TypeAlias = npt.NDArray[np.int64]

_VARINT_BITS: Final = 7
_VARINT_BYTES: Final = 4
_MORE: Final = 0x80
"""The bit of a varint's byte that says that another follows."""


def tokens_to_bytes(tokens: Sequence[int]) -> bytes:
    """Token ids below 2^24 in their order, three bytes each."""
    wide = np.asarray(tokens, dtype="<u4")
    return wide.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()


def tokens_from_bytes(content: bytes) -> list[int]:
    """Read token ids.

    Raises:
        MalformedMessageError: No whole number of them.
    """
    if len(content) % 3:
        raise MalformedMessageError(f"token ids of {len(content)} bytes; each has three")
    parts = np.frombuffer(content, np.uint8).reshape(-1, 3).astype(np.int64)
    ids: list[int] = (parts @ np.array([1, 1 << 8, 1 << 16])).tolist()
    return ids


def id_sets_to_bytes(sets: Sequence[TokenIds]) -> bytes:
    """Sets of ids of one size, each ascending: the first id whole, then differences, as varints."""
    if not sets or not len(sets[0]):
        return b""
    return _varints(np.diff(np.stack(sets), axis=1, prepend=0).astype(np.int64).ravel())


def id_sets_from_bytes(content: bytes, count: int, *, vocabulary_size: int) -> list[TokenIds]:
    """Read `count` sets of ids of one size.

    Raises:
        MalformedMessageError: They are not ascending, not of one size, or no tokens.
    """
    if not content:
        return [np.zeros(0, np.int64)] * count
    numbers, used = read_varints(content, None)
    if used != len(content) or count < 1 or len(numbers) % count:
        raise MalformedMessageError(f"{len(content)} bytes are not {count} sets of token ids")
    return sets_from_numbers(numbers, count, vocabulary_size=vocabulary_size)


def sets_from_numbers(numbers: Numbers, count: int, *, vocabulary_size: int) -> list[TokenIds]:
    """Sets of ids from their first ids and differences.

    Raises:
        MalformedMessageError: They do not ascend, or are no tokens.
    """
    ids = np.cumsum(numbers.reshape(count, -1), axis=1)
    if ids.size and (
        (ids[:, -1] >= vocabulary_size).any() or (numbers.reshape(count, -1)[:, 1:] == 0).any()
    ):
        raise MalformedMessageError(
            f"token ids that do not ascend below a vocabulary of {vocabulary_size}"
        )
    return list(ids)


def read_varints(content: bytes, count: int | None) -> tuple[Numbers, int]:
    """Read `count` numbers, or all; and how many bytes they took.

    Raises:
        MalformedMessageError: There are not so many, or one is too large.
    """
    raw = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(raw < _MORE)[:count]
    if count is not None and len(ends) < count:
        raise MalformedMessageError(f"{len(ends)} token ids, not {count}")
    used = int(ends[-1]) + 1 if len(ends) else 0
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    if len(ends) and (ends - starts >= _VARINT_BYTES).any():
        raise MalformedMessageError("a token id that is too large")
    if not used:
        return np.zeros(0, np.int64), 0
    shift = (np.arange(used) - np.repeat(starts, ends - starts + 1)) * _VARINT_BITS
    parts = (raw[:used].astype(np.int64) & 0x7F) << shift
    return np.add.reduceat(parts, starts), used


def _varints(numbers: Numbers) -> bytes:
    """LEB128: seven bits a byte, the lowest first; the eighth says that more follow."""
    shifts = np.arange(_VARINT_BYTES) * _VARINT_BITS
    groups = (numbers[:, None] >> shifts) & 0x7F
    lengths = 1 + (numbers[:, None] >> shifts[1:] > 0).sum(axis=1)
    place = np.arange(_VARINT_BYTES)
    groups |= np.where(place < lengths[:, None] - 1, _MORE, 0)
    used: npt.NDArray[np.uint8] = groups[place < lengths[:, None]].astype(np.uint8)
    return used.tobytes()
