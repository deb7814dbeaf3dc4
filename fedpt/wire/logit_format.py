"""Rows of logits on the wire: in few bytes, and read back without any trust.

Rows of one reply, little-endian::

    precision u8, k u32
    k = 0, whole rows:   rows x V  float32
    else, for each row:  peak float32, rest float16 (log-sum-exp of all untold, less peak)
          8-bit only:    step float16
          then           rows x k varints: ids ascending, the first whole, then differences
          then           rows x (k + m) values: of the k largest, then of the m candidates

Values are logits less their row's peak in float16 or 8-bit steps, or the very logits in float32.
Candidates are the ids that the request names, so their ids need not come back.

A black box tells what it tells, and nothing of the candidates: bit 7 of the precision says so. Then
k is 0, and every row is written by itself, with a bound for all others, since its server may know
of a token that it does not name::

    count u16, peak float32, rest float16, floor float16 (both less peak)
    8-bit only: step float16
    then        count varints, then count values, as above
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fedpt.decoding.large_row import LargeRow, full_row, largest_of, select_row
from fedpt.errors import MalformedMessageError
from fedpt.proxy_tuning import Logits, TokenIds
from fedpt.wire.token_format import id_sets_to_bytes, read_varints, sets_from_numbers

Precision = Literal["f16", "q8", "f32"]
Values: TypeAlias = npt.NDArray[np.float32]

_CODES: Final[dict[Precision, int]] = {"f16": 0, "q8": 1, "f32": 2}
_PRECISIONS: Final[dict[int, Precision]] = {code: name for name, code in _CODES.items()}
_VALUE_BYTES: Final[dict[Precision, int]] = {"f16": 2, "q8": 1, "f32": 4}
_HEADER: Final = struct.Struct("<BI")
_BLACK_BOX: Final = 0x80
_TOLD_HEAD: Final = struct.Struct("<Hfee")
_TOLD_MOST: Final = 2**16 - 1
_VARINT_MOST: Final = 4
"""Bytes of a token id's varint, at most."""
_HALF_ROUNDING: Final = 2.0**-11
_HALF_SMALLEST: Final = 2.0**-24
_HALF_LOWEST: Final = -65_000.0
_STEPS: Final = 255
_FLOAT_ROUNDING: Final = 2.0**-21
"""Of float32 differences and sums of a peak and an offset, relative to both together."""

_SUM_ROUNDING: Final = 1e-6
"""Of the logarithm of a sum of float32 exponentials."""

_LARGEST: Final = 1e30
"""Of any value that is read: sums of such ones do not overflow."""


def rows_to_bytes(
    rows: Logits, *, k: int, candidates: Sequence[TokenIds], precision: Precision
) -> bytes:
    """Rows `(T, V)` of logits for the wire.

    Args:
        rows: As the model gave them; finite.
        k: How many of the largest of each; 0: whole rows.
        candidates: For each row the ids that are told anyway, all of one count.
        precision: Of the values; whole rows are float32.
    """
    if k == 0:
        return _HEADER.pack(_CODES["f32"], 0) + rows.astype("<f4").tobytes()
    k = min(k, rows.shape[1])
    chosen = [select_row(row, k, ids) for row, ids in zip(rows, candidates, strict=True)]
    largest = [ids for ids, _, _ in chosen]
    told = np.stack(
        [
            np.concatenate([row[ids], row[more]])
            for row, ids, more in zip(rows, largest, candidates, strict=True)
        ]
    )
    peaks = rows.max(axis=1).astype("<f4")
    rests = np.array([rest for _, _, rest in chosen]) - peaks.astype(np.float64) + _SUM_ROUNDING
    rests = np.maximum(rests, _HALF_LOWEST)
    steps, values = _values_to_bytes(told, peaks[:, None], precision)
    header = _HEADER.pack(_CODES[precision], k)
    parts = [header, peaks.tobytes(), _half_above(rests).tobytes(), steps]
    return b"".join([*parts, id_sets_to_bytes(largest), values])


def told_rows_to_bytes(rows: Sequence[LargeRow], *, k: int, precision: Precision) -> bytes:
    """Rows of a black box for the wire, the candidates' logits not among them.

    Args:
        rows: As it told them; finite.
        k: How many of the largest of each, at most.
        precision: Of the values.
    """
    shortest = [largest_of(row, min(k, _TOLD_MOST)) for row in rows]
    header = _HEADER.pack(_BLACK_BOX | _CODES[precision], 0)
    return header + b"".join(_told_row_to_bytes(row, precision) for row in shortest)


def rows_from_bytes(
    content: bytes, *, candidates: Sequence[TokenIds], vocabulary_size: int
) -> list[LargeRow]:
    """Read as many rows as there are sets of candidates.

    Raises:
        MalformedMessageError: Anything but such rows, with finite values.
    """
    if len(content) < _HEADER.size:
        raise MalformedMessageError(f"{len(content)} bytes are no rows of logits")
    code, k = _HEADER.unpack_from(content)
    precision = _PRECISIONS.get(code & ~_BLACK_BOX)
    if precision is None or k > vocabulary_size:
        raise MalformedMessageError(f"rows of precision {code} with {k} logits")
    body = content[_HEADER.size :]
    if code & _BLACK_BOX:
        return _told_rows(body, len(candidates), _Shape(k, precision, vocabulary_size))
    if k == 0:
        return _whole_rows(body, len(candidates), vocabulary_size)
    return _few_rows(body, _Shape(k, precision, vocabulary_size), candidates)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a reply's rows look like."""

    k: int
    precision: Precision
    vocabulary_size: int


def _values_to_bytes(told: Values, peaks: Values, precision: Precision) -> tuple[bytes, bytes]:
    """Steps, for 8 bits, and values of rows `(T, n)`, whose peaks are `(T, 1)`."""
    offsets = np.maximum(told - peaks, np.float32(_HALF_LOWEST))
    match precision:
        case "f32":
            return b"", told.astype("<f4").tobytes()
        case "f16":
            return b"", offsets.astype("<f2").tobytes()
        case "q8":
            steps = _half_above(-offsets.min(axis=1) / _STEPS)
            wide = np.maximum(steps.astype(np.float32), _HALF_SMALLEST)[:, None]
            return steps.tobytes(), np.rint(-offsets / wide).astype(np.uint8).tobytes()


def _told_row_to_bytes(row: LargeRow, precision: Precision) -> bytes:
    logits = row.logits.astype(np.float32).reshape(1, -1)
    peaks = logits.max(axis=1, keepdims=True)
    peak = float(peaks[0, 0])
    bounds = np.clip(np.array([row.rest, row.floor]) - peak, _HALF_LOWEST, -_HALF_LOWEST)
    head = _TOLD_HEAD.pack(len(row.ids), peak, *map(float, _half_above(bounds)))
    step, values = _values_to_bytes(logits, peaks, precision)
    return head + step + id_sets_to_bytes([row.ids]) + values


def _told_rows(body: bytes, count: int, shape: _Shape) -> list[LargeRow]:
    rows = []
    for _ in range(count):
        row, body = _told_row(body, shape)
        rows.append(row)
    if body:
        raise MalformedMessageError(f"{len(body)} bytes after {count} rows of logits")
    return rows


def _told_row(body: bytes, shape: _Shape) -> tuple[LargeRow, bytes]:
    """One row, and what follows it."""
    precision = shape.precision
    start = _TOLD_HEAD.size + (2 if precision == "q8" else 0)
    if len(body) < start:
        raise MalformedMessageError(f"{len(body)} bytes are no row of logits")
    size, peak, rest, floor = _TOLD_HEAD.unpack_from(body)
    if not 0 < size <= shape.vocabulary_size:
        raise MalformedMessageError(f"a row of {size} logits")
    peaks = np.full((1, 1), peak, np.float32)
    steps = np.frombuffer(body[_TOLD_HEAD.size : start], "<f2").astype(np.float32)
    _require_sane(peaks, steps, np.array([rest, floor], np.float32))
    numbers, used = read_varints(body[start : start + _VARINT_MOST * size], size)
    (ids,) = sets_from_numbers(numbers, 1, vocabulary_size=shape.vocabulary_size)
    end = start + used + size * _VALUE_BYTES[precision]
    if len(body) < end:
        raise MalformedMessageError(f"a row of {size} logits in {len(body)} bytes")
    told, errors = _values(body[start + used : end], precision, peaks, steps)
    bounds = float(peak) + floor, float(peak) + rest
    return LargeRow(ids, told[0], errors[0], *bounds, shape.vocabulary_size), body[end:]


def _whole_rows(body: bytes, count: int, vocabulary_size: int) -> list[LargeRow]:
    if len(body) != 4 * count * vocabulary_size:
        raise MalformedMessageError(
            f"{count} rows in {len(body)} bytes for a vocabulary of {vocabulary_size} tokens"
        )
    rows = np.frombuffer(body, "<f4").astype(np.float32).reshape(count, vocabulary_size)
    _require_sane(rows)
    return [full_row(row) for row in rows]


def _few_rows(body: bytes, shape: _Shape, candidates: Sequence[TokenIds]) -> list[LargeRow]:
    count, k, precision = len(candidates), shape.k, shape.precision
    heads = count * (8 if precision == "q8" else 6)
    values_size = count * (k + len(candidates[0])) * _VALUE_BYTES[precision]
    ids_size = len(body) - heads - values_size
    if ids_size < 0:
        raise MalformedMessageError(f"{count} rows of {k} logits in {len(body)} bytes")
    peaks = np.frombuffer(body, "<f4", count).astype(np.float32)
    rests = np.frombuffer(body, "<f2", count, 4 * count).astype(np.float32)
    steps = np.frombuffer(body[6 * count : heads], "<f2").astype(np.float32)
    _require_sane(peaks, rests, steps)
    numbers, used = read_varints(body[heads : heads + ids_size], count * k)
    if used != ids_size:
        raise MalformedMessageError(f"{len(body)} bytes are not {count} rows of {k} logits")
    largest = sets_from_numbers(numbers, count, vocabulary_size=shape.vocabulary_size)
    told, errors = _values(body[heads + ids_size :], precision, peaks[:, None], steps[:, None])
    bounds = peaks + rests + _rounding(peaks, rests)
    return [
        _row(largest[i], candidates[i], (told[i], errors[i]), (bounds[i], shape))
        for i in range(count)
    ]


def _values(
    raw: bytes, precision: Precision, peaks: Values, steps: Values
) -> tuple[Values, Values]:
    """Logits `(T, k + m)`, and how far each may be off."""
    count = len(peaks)
    if precision == "f32":
        told = np.frombuffer(raw, "<f4").reshape(count, -1).astype(np.float32)
        _require_sane(told)
        return told, np.zeros_like(told)
    if precision == "f16":
        offsets = np.frombuffer(raw, "<f2").reshape(count, -1).astype(np.float32)
        _require_sane(offsets)
        errors = np.abs(offsets) * np.float32(_HALF_ROUNDING) + np.float32(_HALF_SMALLEST)
    else:
        offsets = -np.frombuffer(raw, np.uint8).reshape(count, -1).astype(np.float32) * steps
        errors = np.broadcast_to(steps / 2, offsets.shape)
    return peaks + offsets, errors + _rounding(peaks, offsets)


def _rounding(peaks: Values, offsets: Values) -> Values:
    return (np.abs(peaks) + np.abs(offsets)) * np.float32(_FLOAT_ROUNDING)


def _row(
    largest: TokenIds,
    candidates: TokenIds,
    values: tuple[Values, Values],
    bound: tuple[np.float32, _Shape],
) -> LargeRow:
    """One row; candidates that are among the largest come twice, with one value."""
    (logits, error), (rest, shape) = values, bound
    floor = float((logits[: shape.k] + error[: shape.k]).min())
    ids, first = np.unique(np.concatenate([largest, candidates]), return_index=True)
    return LargeRow(ids, logits[first], error[first], floor, float(rest), shape.vocabulary_size)


def _half_above(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    """The least float16 that is not below; bounds must stay bounds."""
    nearest = np.asarray(values).astype("<f2")
    return np.where(
        nearest.astype(np.float64) < values, np.nextafter(nearest, np.float16(np.inf)), nearest
    ).astype("<f2")


def _require_sane(*arrays: Values) -> None:
    if not all((np.abs(array) <= _LARGEST).all() for array in arrays):
        raise MalformedMessageError("logits that are not finite, or beyond all measure")
